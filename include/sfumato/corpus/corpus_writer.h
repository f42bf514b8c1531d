#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/generate/image_id.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/models/image_shape.h"
#include "sfumato/run/corpus_places.h"

namespace sfumato {

/// What a corpus is to be. `settings` holds everything that decides the pixels (network, sampler,
/// seed): an unfinished corpus is continued only if they are the same.
struct CorpusSpec {
  std::filesystem::path folder;
  CorpusFormat format = CorpusFormat::kFolder;
  std::vector<int64_t> images_per_class;  ///< one entry, class 0, where there are no classes
  /// As long as images_per_class; empty where there are no classes.
  std::vector<std::string> class_names = {};
  /// What is known of classes that may have been trained on no image; README.md says so of those
  /// that are drawn.
  std::vector<bool> may_be_untrained = {};
  ImageShape shape;
  nlohmann::ordered_json settings;
  /// images_per_class follows a label histogram that the run released; README.md says so.
  bool noisy_proportions = false;
  int64_t candidates = 1;  ///< drawn for each image that is kept; README.md says so
  /// As long as images_per_class; CorpusWriter sets them (corpus/class_folders.h).
  std::vector<std::string> class_folders = {};
};

/// The order in which images are made and packed: the first of each class, the second of each, ...
/// so that any beginning of the corpus, and any shard, holds all classes.
std::vector<ImageId> corpus_order(std::span<const int64_t> images_per_class);

class ImageSink;

/// A corpus on disk:
///
///   images/03_cat/000000.png  or shard-000000.tar ... with LABEL-INDEX.png, .cls and .json,
///   metadata.csv              file_name,label,class_name (folder only)
///   README.md                 with the Hugging Face header, the card, the classes and the settings
///   privacy_card.json, lineage.json, report.html
///   __preview__/contact_sheet.png   where imagefolder of `datasets` does not take it for data
///
/// and, until it is finished, .sampling.json with what it is to be. Everything is put in place by
/// renaming, so a killed writer loses only what it had not yet written: the next one continues.
/// Complete pictures are recognised by decoding them (PNG carries checksums), shards by reading
/// them to the end; so pictures need no fsync each, one sync of the file system at the end is
/// enough.
class CorpusWriter {
 public:
  /// Starts a corpus or continues an unfinished one. UsageError: `folder` holds something else, a
  /// finished corpus, or an unfinished one made with other settings (says which differ); no images.
  explicit CorpusWriter(CorpusSpec spec);
  ~CorpusWriter();
  CorpusWriter(const CorpusWriter&) = delete;
  CorpusWriter& operator=(const CorpusWriter&) = delete;

  int64_t total() const { return static_cast<int64_t>(order_.size()); }
  /// Images on disk (of shards: also those in the shard being written).
  int64_t done() const { return done_; }
  const CorpusSpec& spec() const { return spec_; }

  /// All images, in the order in which they are made.
  std::span<const ImageId> order() const { return order_; }
  /// Up to `most` images that are still to be made, of the first `end` of the order where that is
  /// given; none when all are there.
  std::vector<ImageId> next(int64_t most, std::optional<int64_t> end = std::nullopt);
  /// Writes the images that the last next() named, in its order.
  void add(std::span<const Image> images);
  /// Writes everything but the images and ends the corpus. `card` as in report/privacy_card.h;
  /// `origin`: what the network is and where it comes from, for lineage.json.
  void finish(const nlohmann::ordered_json& card, const nlohmann::ordered_json& origin);

 private:
  void open_folder();
  void continue_corpus(const nlohmann::ordered_json& plan);

  CorpusSpec spec_;
  std::vector<ImageId> order_;
  std::vector<bool> complete_;
  std::vector<int64_t> pending_;  ///< positions in order_ that next() named
  std::size_t cursor_ = 0;
  int64_t done_ = 0;
  std::unique_ptr<ImageSink> sink_;
};

}  // namespace sfumato
