#include "sweep/selection_silence.h"

#include <fmt/format.h>

#include <exception>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {

void rethrow_without_names(const SweepPlan& plan, std::span<const SweepRun> runs) {
  ErrorKind kind = ErrorKind::kData;
  std::string whole;
  try {
    throw;
  } catch (const Error& error) {
    kind = error.kind();
    whole = error.what();
  } catch (const std::exception& error) {  // a file system's, say
    whole = error.what();
  }
  if (plan.purpose() != SweepPurpose::kPrivateSelection) throw;
  std::string told = whole;
  for (const SweepRun& run : runs) {
    const std::string name = run.name();
    for (std::size_t at = 0; (at = told.find(name, at)) != std::string::npos;)
      told.replace(at, name.size(), "(a run)");
  }
  if (told == whole) throw;
  const std::filesystem::path file = plan.private_folder() / "trouble.txt";
  try {
    write_file_atomic(file, whole + "\n", 0600);
    told += fmt::format("; '{}' says which", file.string());
  } catch (const Error&) {
    // A full disk, say, which may be what this is about.
  }
  throw Error(kind, told);
}

}  // namespace sfumato
