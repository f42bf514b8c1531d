#include "sfumato/run/run_directory.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {
namespace {

/// Nothing there, or folders without files: a start that was refused or killed left them.
bool is_unused(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return true;
  if (!std::filesystem::is_directory(path)) return false;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (!entry.is_directory() || entry.is_symlink()) return false;
  return true;
}

}  // namespace

RunDirectory RunDirectory::create(const std::filesystem::path& path) {
  if (!is_unused(path))
    throw UsageError(fmt::format(
        "run directory '{}' exists; continue it with --resume, or choose another run.dir",
        path.string()));
  RunDirectory run(path);
  make_folder(path);
  make_folder(run.private_folder(), 0700);
  make_folder(run.checkpoints(), 0700);
  return run;
}

RunDirectory RunDirectory::open(const std::filesystem::path& path) {
  RunDirectory run(path);
  if (!std::filesystem::exists(run.config()))
    throw UsageError(fmt::format(
        "there is no run to resume in '{}' (config.yaml is missing); start it without --resume",
        path.string()));
  make_folder(run.private_folder(), 0700);
  make_folder(run.checkpoints(), 0700);
  return run;
}

std::filesystem::path stage_file(const std::filesystem::path& release, const std::string& stage) {
  if (stage == "label_histogram") return release / "label_histogram.json";
  if (stage == "central_images") return release / "central_images.safetensors";
  return {};
}

std::filesystem::path label_histogram_file(const RunDirectory& run) {
  return stage_file(run.release(), "label_histogram");
}

std::filesystem::path central_images_file(const RunDirectory& run) {
  return stage_file(run.release(), "central_images");
}

}  // namespace sfumato
