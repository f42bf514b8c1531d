#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace sfumato {

/// Where an audit or an evaluation by private data leaves its findings, for the data holder's eyes
/// only: a folder of mode 0700 with files of mode 0600.
class ReportFolder {
 public:
  /// Makes the folder and its missing parents. UsageError where it lies inside something that is
  /// made to be shared (a release, a corpus) or inside a record store, and where it exists and
  /// others may enter it. Symbolic links are followed before the place is judged.
  explicit ReportFolder(const std::filesystem::path& path);

  /// Writes one file, all or nothing.
  void write(const std::string& name, std::string_view bytes) const;
  const std::filesystem::path& path() const { return path_; }

  /// RUN/private/WHAT; where there is no run (empty), STORE-WHAT beside the store. `what`: "audit".
  static std::filesystem::path usual(const std::filesystem::path& run,
                                     const std::filesystem::path& store, std::string_view what);

 private:
  std::filesystem::path path_;
};

}  // namespace sfumato
