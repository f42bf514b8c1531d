#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/data/prepare.h"
#include "sfumato/io/image_codec.h"

namespace sfumato {

/// One image as its source delivers it: exactly one of `file`, `encoded` and `raw` is set.
struct SourceItem {
  std::string name;   ///< what the users' CSV calls it
  std::string place;  ///< what errors call it
  std::int64_t label = 0;
  std::filesystem::path file;  ///< a picture still to be read
  std::string encoded;         ///< a picture as in a file
  Image raw;
};

/// A sequence of images, always in the same order.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  /// False at the end. DataError if the source itself is damaged.
  virtual bool next(SourceItem& item) = 0;
  /// One per class that the source names, in order of ids; may be shorter than num_classes.
  virtual std::vector<std::string> class_names() const { return {}; }
  /// Files passed over so far because they are no pictures by name.
  virtual std::int64_t other_files() const { return 0; }
};

/// Whether the caller needs the pictures, or only their names.
enum class SourcePass { kNames, kImages };

std::unique_ptr<ImageSource> make_folder_source(const PrepareOptions& options);
std::unique_ptr<ImageSource> make_tar_source(const PrepareOptions& options, SourcePass pass);
std::unique_ptr<ImageSource> make_idx_source(const PrepareOptions& options);
std::unique_ptr<ImageSource> make_cifar_source(const PrepareOptions& options);

/// `options.format`, or what the source looks like. DataError if it is nothing known.
std::string detect_format(const PrepareOptions& options);
/// By the format that detect_format returned.
std::unique_ptr<ImageSource> make_source(const PrepareOptions& options, const std::string& format,
                                         SourcePass pass);

/// Splits "images.tar.gz/train" into the archive and the folder within ("" for all of it).
struct ArchivePath {
  std::filesystem::path archive;
  std::string folder;
};
ArchivePath split_archive_path(const std::filesystem::path& source);

/// Refuses what is no class-folder tree: `folders` are the sorted top-level names, `outside` an
/// image that lies in none of them ("" for none). True if there are class folders, false if the
/// images are one class or have none.
bool check_class_folders(const std::vector<std::string>& folders, const std::string& outside,
                         const PrepareOptions& options);

}  // namespace sfumato
