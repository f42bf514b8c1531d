#include "sfumato/run/run_directory.h"

#include <fmt/format.h>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/shell_word.h"

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

RunDirectory RunDirectory::choose(const std::filesystem::path& path) {
  if (!is_unused(path))
    throw UsageError(fmt::format(
        "run directory '{}' {} run.dir", path.string(),
        holds_run(path) ? "exists; continue it with --resume (or --resume=auto), or choose another"
                        : "exists and holds no run that --resume could continue; choose "
                          "another"));
  return RunDirectory(path);
}

RunDirectory RunDirectory::create(const std::filesystem::path& path) {
  RunDirectory run = choose(path);
  std::error_code ignored;
  for (std::filesystem::path each = run.checkpoints();
       !each.empty() && !std::filesystem::exists(each, ignored); each = each.parent_path())
    run.made_.push_back(each);
  try {
    make_folder(path);
    make_folder(run.private_folder(), 0700);
    make_folder(run.checkpoints(), 0700);
  } catch (...) {
    run.withdraw();
    throw;
  }
  run.is_new_ = true;
  return run;
}

void RunDirectory::withdraw() const {
  std::error_code ignored;
  if (std::filesystem::exists(ledger(), ignored)) return;
  if (is_new_ && std::filesystem::is_regular_file(config(), ignored))
    std::filesystem::remove(config(), ignored);
  for (const std::filesystem::path& each : made_)
    std::filesystem::remove(each, ignored);  // not a folder with anything in it
}

bool RunDirectory::holds_run(const std::filesystem::path& path) {
  return std::filesystem::exists(RunDirectory(path).config());
}

RunDirectory RunDirectory::look_at(const std::filesystem::path& path) {
  if (!holds_run(path))
    throw UsageError(
        fmt::format("'{}' is no run directory (config.yaml is missing); name the run.dir of a run",
                    path.string()));
  return RunDirectory(path);
}

RunDirectory RunDirectory::open(const std::filesystem::path& path) {
  RunDirectory run(path);
  if (!holds_run(path))
    throw UsageError(fmt::format(
        "there is no run to resume in '{}' (config.yaml is missing); start it without --resume, or "
        "with --resume=auto",
        path.string()));
  make_folder(run.private_folder(), 0700);
  make_folder(run.checkpoints(), 0700);
  return run;
}

std::string resume_command(const std::filesystem::path& run) {
  // A configuration names the folder that the run was started in: of a copy another run's.
  const std::filesystem::path folder = run.empty() ? "." : run;
  return fmt::format("`sfumato train --config {} --resume {}`",
                     shell_word((folder / "config.yaml").string()),
                     shell_word("run.dir=" + folder.string()));
}

std::vector<StageFile> stage_files(const SettingsTree& settings) {
  std::vector<StageFile> files;
  for (const StageSettings* section : stage_settings(settings))
    files.push_back({section->stage.name, section->stage.result});
  return files;
}

std::vector<StageFile> stage_files() { return stage_files(Config()); }

}  // namespace sfumato
