#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace sfumato {

class SettingsTree;

/// A run on disk: what may leave (release/, ledger.jsonl, config.yaml) apart from what may not
/// (private/, mode 0700).
class RunDirectory {
 public:
  /// Where a new run will be; nothing is made. UsageError if the folder exists and holds a file.
  static RunDirectory choose(const std::filesystem::path& path);
  /// Makes a new run. Errors as choose(); what it cannot make whole it takes back.
  static RunDirectory create(const std::filesystem::path& path);
  /// An existing run, to resume. UsageError if there is none.
  static RunDirectory open(const std::filesystem::path& path);
  /// An existing run, only to be read. UsageError if there is none.
  static RunDirectory look_at(const std::filesystem::path& path);
  /// Takes back what the create() that returned this made, parents too, and the configuration,
  /// where a start was refused before there was a ledger. Folders that were there before stay, and
  /// so does what else is in one.
  void withdraw() const;
  /// Whether there is one: open() takes the folder, and create() does not.
  static bool holds_run(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.yaml"; }
  std::filesystem::path ledger() const { return path_ / "ledger.jsonl"; }
  std::filesystem::path private_folder() const { return path_ / "private"; }
  std::filesystem::path checkpoints() const { return private_folder() / "checkpoints"; }
  std::filesystem::path previews() const { return private_folder() / "previews"; }
  /// Which settings changed when the run was resumed: a line of JSON each time.
  std::filesystem::path settings_history() const { return path_ / "settings_history.jsonl"; }
  std::filesystem::path release() const { return path_ / "release"; }

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  ///< by create(), innermost first
  bool is_new_ = false;                      ///< from create(): the configuration is its own
};

/// How to go on with a run, and to write anew what it released: "`sfumato train --config
/// RUN/config.yaml --resume run.dir=RUN`", of this folder even where the run was copied or moved to
/// it, quoted for a shell. Other relative paths in the configuration count from where it is called.
std::string resume_command(const std::filesystem::path& run);

/// What a stage leaves in release/.
struct StageFile {
  std::string stage;  ///< its name in plans, ledgers and cards
  std::string file;   ///< the file's
};
/// Of every stage that has a section in `settings`, in their order.
std::vector<StageFile> stage_files(const SettingsTree& settings);
/// Of every stage that this program has.
std::vector<StageFile> stage_files();

}  // namespace sfumato
