#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cards_of_source.h"
#include "sfumato/data/prepare.h"

namespace sfumato {

/// A file or folder of a source, whatever holds it.
struct Member {
  enum class Kind { kFile, kFolder, kOther };  // kOther: links and devices of archives
  std::string name;                            ///< relative to the source, parts between "/"
  Kind kind = Kind::kFile;
  std::string origin = {};  ///< which of several archives it is in, with a "/" at its end; or ""
};

/// Goes once through a folder or through archives, always in the same order.
class MemberWalk {
 public:
  virtual ~MemberWalk() = default;
  virtual bool next(Member& member) = 0;
  /// Of the file that next() returned; at most once. DataError if it is larger than `limit`.
  virtual std::string content(std::int64_t limit) = 0;
  /// Where it lies on disk; empty for a member of an archive.
  virtual std::filesystem::path file() const { return {}; }
  /// What errors call it.
  virtual std::string place() const = 0;
  /// After the end: what the user should be told about the archives.
  virtual std::vector<std::string> remarks() const { return {}; }
  /// After the end: the privacy cards in the archives that speak of the images.
  virtual std::vector<CardFound> cards() const { return {}; }
};

using WalkFactory = std::function<std::unique_ptr<MemberWalk>()>;

std::unique_ptr<MemberWalk> make_folder_walk(const std::filesystem::path& folder);

/// Archives that make up one source, and the folder within them ("" for all of it).
struct ArchiveSet {
  std::vector<std::filesystem::path> files;
  std::string folder;
};

std::unique_ptr<MemberWalk> make_tar_walk(const ArchiveSet& archives);
std::unique_ptr<MemberWalk> make_zip_walk(const ArchiveSet& archives);

/// `source` is an archive, a folder within one ("images.zip/train"), a folder of archives, or a
/// pattern of archives ("shards/{000..003}.tar", "shards/*.tar"). DataError if there is none, or if
/// a folder or what * ? [ match are archives of several splits, or one of them is the same file as
/// another, also through links.
ArchiveSet find_archives(const std::filesystem::path& source);
/// True if `source` does not exist and reads as a pattern.
bool is_archive_pattern(const std::filesystem::path& source);
/// kTar or kZip for a folder that holds such archives, and neither folders nor images beside them;
/// else nothing.
std::optional<SourceFormat> format_of_archives_in(const std::filesystem::path& folder);
bool has_tar_extension(const std::string& name);
/// What members of `archive` are called after, where it is one of several: its path below the
/// folder that all of them lie in, with a "/" at the end; "" where it is the only one.
std::string origin_of(const ArchiveSet& archives, const std::filesystem::path& archive);

/// Makes `name` of an archive's member relative to `folder`; false if it lies elsewhere. A leading
/// "/" does not count. DataError for a name that leads out of the archive ("..").
bool relative_member_name(const std::string& folder, const std::string& place, std::string& name);

}  // namespace sfumato
