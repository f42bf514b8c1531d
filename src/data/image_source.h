#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cards_of_source.h"
#include "sfumato/data/prepare.h"
#include "sfumato/io/image_codec.h"

namespace sfumato {

/// One image as its source delivers it: exactly one of `file`, `encoded` and `raw` is set.
struct SourceItem {
  std::string name;   ///< what the users' CSV calls it
  std::string place;  ///< what errors call it
  /// The class as the source names it (a folder, a column of text): prepare looks it up in the
  /// public list of names, and never counts positions in what a source happens to hold. Empty where
  /// the source has numbers, or no classes.
  std::string class_name;
  std::int64_t label = 0;  ///< the class as the source numbers it; means nothing with a class_name
  std::filesystem::path file;  ///< a picture still to be read
  std::string encoded;         ///< a picture as in a file
  Image raw;
};

/// How a source tells classes apart, and what it calls them.
struct ClassesFound {
  enum class Order {
    kAny,      ///< items have a class_name; prepare proposes an order of its own
    kByLabel,  ///< names[i] is the class of label i, by a file that belongs to the data set
  };
  std::vector<std::string> names = {};  ///< all different; also of classes without an image
  Order order = Order::kAny;
  /// The list is part of what was released with a synthetic corpus: public, not found in images.
  bool is_public = false;
  /// Labels of classes that a public list says are empty; only with is_public.
  std::vector<std::int64_t> known_empty = {};
};

/// Files that a source passes over, by extension: what is not read is said, not hidden.
struct UnreadFiles {
  std::map<std::string, std::int64_t> by_extension;  ///< ".webp", "(hidden)", "(link)", ...
  void add(std::string_view name);
  void add_as(const std::string& kind);
  std::int64_t total() const;
  std::string text() const { return unread_files_text(by_extension); }
};

/// A sequence of images, always in the same order.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  /// False at the end. DataError if the source itself is damaged.
  virtual bool next(SourceItem& item) = 0;
  /// The names of classes that the source holds, known before the first next(): what prepare shows
  /// to somebody who has not listed the classes. Only a proposal, because adding one image may add
  /// a name. A source that names no class returns none.
  virtual ClassesFound classes_found() const { return {}; }
  /// Files passed over so far because they are no images by name.
  virtual UnreadFiles unread_files() const { return {}; }
  /// Those of them that lie in the folder of this class.
  virtual UnreadFiles unread_files_of(const std::string& class_name) const {
    (void)class_name;
    return {};
  }
  /// After the end: the privacy cards that lie in archives with the images.
  virtual std::vector<CardFound> cards() const { return {}; }
};

/// Whether the caller needs the pictures, or only their names.
enum class SourcePass { kNames, kImages };

std::unique_ptr<ImageSource> make_folder_source(const PrepareOptions& options);
std::unique_ptr<ImageSource> make_tar_source(const PrepareOptions& options, SourcePass pass);
std::unique_ptr<ImageSource> make_zip_source(const PrepareOptions& options, SourcePass pass);
std::unique_ptr<ImageSource> make_npz_source(const PrepareOptions& options);
std::unique_ptr<ImageSource> make_idx_source(const PrepareOptions& options);
std::unique_ptr<ImageSource> make_cifar_source(const PrepareOptions& options);
/// A corpus that `sfumato sample` made: its folder, the images/ in it, or some of its shards. The
/// names and numbers of its classes are those in its lineage.json, which was released with it.
bool is_own_corpus(const std::filesystem::path& source);
std::unique_ptr<ImageSource> make_corpus_source(const PrepareOptions& options, SourcePass pass);

/// What a source was found to be: never kAuto. Nothing for a corpus of ours, a layout that no
/// setting names because it is always recognised.
using FoundFormat = std::optional<SourceFormat>;
inline constexpr FoundFormat kOwnCorpus = std::nullopt;
/// "folder", ..., "corpus".
std::string name_of(FoundFormat format);

/// `options.format`, or what the source looks like. DataError if it is nothing known.
FoundFormat detect_format(const PrepareOptions& options);
/// By the format that detect_format returned.
std::unique_ptr<ImageSource> make_source(const PrepareOptions& options, FoundFormat format,
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
