#pragma once
#include <filesystem>
#include <string>
#include <utility>

namespace sfumato {

/// A run on disk: what may leave (release/, ledger.jsonl, config.yaml) apart from what may not
/// (private/, mode 0700).
class RunDirectory {
 public:
  /// Makes a new run. UsageError if the folder exists and holds a file.
  static RunDirectory create(const std::filesystem::path& path);
  /// An existing run, to resume. UsageError if there is none.
  static RunDirectory open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.yaml"; }
  std::filesystem::path ledger() const { return path_ / "ledger.jsonl"; }
  std::filesystem::path private_folder() const { return path_ / "private"; }
  std::filesystem::path checkpoints() const { return private_folder() / "checkpoints"; }
  std::filesystem::path release() const { return path_ / "release"; }

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

std::filesystem::path label_histogram_file(const RunDirectory& run);  ///< release/*.json
std::filesystem::path central_images_file(const RunDirectory& run);   ///< release/*.safetensors

/// The file that a stage of this name leaves in the folder `release`; empty for an unknown stage.
std::filesystem::path stage_file(const std::filesystem::path& release, const std::string& stage);

}  // namespace sfumato
