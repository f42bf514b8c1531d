#include "sfumato/report/report_folder.h"

#include <fmt/format.h>

#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/place.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// What a report must not be written into; null if `folder` is nothing of the kind.
const char* forbidden(const fs::path& folder) {
  std::error_code ignored;
  const auto holds = [&](const fs::path& name) { return fs::exists(folder / name, ignored); };
  if (holds("lineage.json") || holds(".sampling.json") ||
      (holds("metadata.csv") && holds("images")))
    return "a corpus, which is made to be shared";
  const fs::path above = folder.parent_path();
  const bool of_run = fs::exists(above / "ledger.jsonl", ignored) ||
                      fs::exists(above / "private", ignored) ||
                      fs::exists(above / "config.yaml", ignored);
  if (holds("model_index.json") || holds("privacy_card.json") ||
      (folder.filename() == "release" && of_run))
    return "a released model, which is made to be shared";
  if (holds("manifest.json") && holds("records.bin"))
    return "a record store, which holds its own files only";
  return nullptr;
}

}  // namespace

ReportFolder::ReportFolder(const fs::path& path) : path_(resolved(path)) {
  for (fs::path folder = path_; folder.has_relative_path(); folder = folder.parent_path())
    if (const char* what = forbidden(folder))
      throw UsageError(fmt::format(
          "the report would tell about private images, and '{}' lies inside '{}', {}; name another "
          "folder with --out",
          path.string(), folder.string(), what));
  if (fs::exists(path_)) {
    if (!fs::is_directory(path_))
      throw UsageError(fmt::format("'{}' is not a folder; name another with --out", path.string()));
    if ((fs::status(path_).permissions() & (fs::perms::group_all | fs::perms::others_all)) !=
        fs::perms::none)
      throw UsageError(
          fmt::format("others may enter '{}', and the report tells about private images; name a "
                      "new folder with --out, or close this one: chmod 700 '{}'",
                      path.string(), path.string()));
    return;
  }
  std::vector<fs::path> missing;
  for (fs::path folder = path_; !fs::exists(folder); folder = folder.parent_path())
    missing.push_back(folder);
  for (auto folder = missing.rbegin(); folder != missing.rend(); ++folder)
    make_folder(*folder, 0700);
}

void ReportFolder::write(const std::string& name, std::string_view bytes) const {
  write_file_atomic(path_ / name, bytes, 0600);
}

fs::path ReportFolder::usual(const fs::path& run, const fs::path& store, std::string_view what) {
  if (!run.empty()) return run / "private" / what;
  const fs::path place = resolved(store);
  return place.parent_path() / fmt::format("{}-{}", place.filename().string(), what);
}

}  // namespace sfumato
