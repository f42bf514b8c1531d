#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sfumato/corpus/corpus_writer.h"

namespace sfumato {

/// Where the pictures of a corpus go: one per file, or packed in shards. `order` is corpus_order.
class ImageSink {
 public:
  virtual ~ImageSink() = default;
  /// For each image of the order, whether it is on disk, whole. Called once, first.
  virtual std::vector<bool> complete() = 0;
  /// The image at `position` of the order.
  virtual void add(int64_t position, const std::string& png) = 0;
  /// Reads written images back.
  virtual std::vector<Image> read(std::span<const ImageId> images) = 0;
};

std::unique_ptr<ImageSink> make_image_sink(const CorpusSpec& spec,
                                           const std::vector<ImageId>& order);

inline constexpr const char* kImagesFolder = "images";
/// "images/03_cat/000012.png", relative to the corpus.
std::string image_file_name(const CorpusSpec& spec, const ImageId& image);

inline constexpr int64_t kImagesPerShard = 1000;
/// "shard-000000.tar".
std::string shard_file_name(int64_t shard);
/// Member names of an image in its shard, without extension: "03-000012".
std::string shard_key(const CorpusSpec& spec, const ImageId& image);

/// Removes what killed writers left in a folder: files named as AtomicFileWriter's temporaries.
void remove_temporaries(const std::filesystem::path& folder);

}  // namespace sfumato
