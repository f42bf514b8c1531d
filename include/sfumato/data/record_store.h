#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "sfumato/core/file.h"

namespace sfumato {

/// What all records of a store share: public choices, all of it, none computed from the images.
struct StoreLayout {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;             ///< 1 grey, 3 RGB
  std::int64_t num_classes = 0;          ///< 0: unconditional, no labels are kept
  std::vector<std::string> class_names;  ///< num_classes of them
  bool has_users = false;                ///< the unit of privacy is a user, not an image
  std::int64_t records_per_user = 1;     ///< bound m on the records of a user; 1 without users
  /// How the names came to be public: "configuration" (data.class_names), "numbers" (they are the
  /// labels), "corpus" (the lineage of a released corpus), or "source": they were found among the
  /// private images and accepted.
  std::string class_names_from = "configuration";
  /// Classes of which the public may know that they have no image; "*": any may have none.
  std::vector<std::string> classes_that_may_be_empty = {};
};

/// Prepared private images, memory-mapped: opening costs nothing and memory is the system's page
/// cache. A store is a folder (mode 0700, files 0600; all of it is private):
///
///   records.bin    a 4096-byte header page, then count records of height*width*channels bytes:
///                  uint8 pixels [height, width, channels], RGB or grey
///   labels.bin     int32 little-endian [count]; only if num_classes > 0
///   users.bin      int32 little-endian [count]; only if has_users
///   manifest.json  schema version, layout, count, how it was prepared, SHA-256 of each file, a
///                  random key and manifest_hash
///
/// manifest_hash is HMAC-SHA-256 under the key, over the manifest in canonical JSON without the
/// hash. It ties a run to its data and may be published: without the key, which never leaves the
/// store, nobody can test a guess of the data against it.
class RecordStore {
 public:
  /// DataError: no store, another schema version, a damaged manifest (its keyed hash is checked),
  /// a file of a wrong size, a label out of range. File contents are left to verify_checksums().
  static RecordStore open(const std::filesystem::path& path);

  /// Reads everything; DataError names the file whose SHA-256 differs. Interrupted where a signal
  /// asks to stop and more than a moment's reading is left.
  void verify_checksums() const;

  std::int64_t count() const { return count_; }
  std::int64_t height() const { return layout_.height; }
  std::int64_t width() const { return layout_.width; }
  std::int64_t channels() const { return layout_.channels; }
  std::int64_t num_classes() const { return layout_.num_classes; }
  const std::vector<std::string>& class_names() const { return layout_.class_names; }
  const StoreLayout& layout() const { return layout_; }

  /// Record i as uint8 [height, width, channels]; valid as long as the store. DataError if i is
  /// outside 0..count-1.
  std::span<const std::uint8_t> pixels(std::int64_t i) const;
  /// 0 where the store is unconditional.
  std::int32_t label(std::int64_t i) const;
  /// -1 where the store knows no users.
  std::int32_t user(std::int64_t i) const;

  /// What one unit of the privacy guarantee is: "one image" or "one user, at most m images".
  std::string unit() const;
  /// At most this many records belong to one unit.
  std::int64_t records_per_unit() const { return layout_.records_per_user; }
  /// 64 lower-case hexadecimal digits; may be published.
  const std::string& manifest_hash() const { return manifest_hash_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  RecordStore() = default;
  void check_contents() const;

  std::filesystem::path path_;
  StoreLayout layout_;
  std::int64_t count_ = 0;
  std::int64_t record_bytes_ = 0;
  std::string manifest_hash_;
  std::vector<MappedFile> files_;
  std::vector<std::string> checksums_;  ///< of files_, in the same order
  const std::uint8_t* records_ = nullptr;
  const std::int32_t* labels_ = nullptr;
  const std::int32_t* users_ = nullptr;
};

/// The unit of privacy in words, for a bound of m records per user (or no users).
std::string unit_of_privacy(bool has_users, std::int64_t records_per_user);

}  // namespace sfumato
