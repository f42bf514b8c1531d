#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/io/image_codec.h"
#include "sfumato/io/tar.h"

namespace sfumato {

/// The pictures of a corpus one after another, whatever its form: image folder (images/**) or
/// WebDataset shards (*.tar).
class CorpusImages {
 public:
  /// At most `count` pictures (0: all): of a folder spread evenly over its files, in the order of
  /// their names; of shards the first ones, which hold all classes. UsageError if the folder holds
  /// neither form.
  explicit CorpusImages(const std::filesystem::path& corpus, int64_t count = 0);

  /// Moves to the next picture; false at the end.
  bool next();
  /// "images/3/000012.png", or "shard-000000.tar/3-000012.png".
  const std::string& name() const { return name_; }
  /// Decodes the current picture; call at most once for each.
  Image image();

 private:
  bool next_in_shards();

  std::filesystem::path corpus_;
  std::vector<std::filesystem::path> files_;  ///< pictures, or shards
  bool shards_ = false;
  std::size_t next_file_ = 0;
  int64_t left_ = 0;
  std::string name_;
  std::filesystem::path path_;
  std::unique_ptr<TarReader> reader_;
};

}  // namespace sfumato
