#include "sfumato/evaluate/image_sets.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/data/labelled_source.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/evaluate/numpy_random.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

/// "test" where a part of the path, or the beginning of a file's name, says so.
std::string split_of_path(const fs::path& path) {
  static constexpr std::array<std::pair<const char*, const char*>, 8> kWords = {
      {{"train", "train"},
       {"training", "train"},
       {"test", "test"},
       {"t10k", "test"},
       {"val", "validation"},
       {"valid", "validation"},
       {"validation", "validation"},
       {"holdout", "holdout"}}};
  const std::string last = without_slash(fs::absolute(path)).filename().string();
  const std::string word = last.substr(0, last.find_first_of("-_."));
  for (const auto& [name, split] : kWords)
    if (word == name) return split;
  return "not said";
}

/// How many images lineage.json says that there are; -1 without one.
int64_t said_by_lineage(const fs::path& corpus) {
  if (!fs::is_regular_file(corpus / "lineage.json")) return -1;
  const nlohmann::json lineage = read_json(corpus / "lineage.json");
  if (!lineage.is_object() || !lineage.contains("images_per_class")) return -1;
  int64_t sum = 0;
  for (const nlohmann::json& count : lineage["images_per_class"])
    if (count.is_number_integer()) sum += count.get<int64_t>();
  return sum;
}

void check_is_whole(const fs::path& corpus, int64_t found) {
  const int64_t said = said_by_lineage(corpus);
  if (said >= 0 && said != found)
    throw DataError(
        fmt::format("'{}' holds {} images, and its lineage.json says {}: shards or pictures are "
                    "missing or were "
                    "added; copy it again, or name the shards that are there",
                    corpus.string(), found, said));
}

/// Pixels of images that all have the same shape, in blocks.
class PixelCollector {
 public:
  void add(const Image& image, const std::string& place) {
    if (count_ == 0) shape_ = {image.height, image.width, image.channels};
    if (std::array{image.height, image.width, image.channels} != shape_)
      throw DataError(fmt::format(
          "{} is {}x{} pixels with {} channels, the images before it are {}x{} with {}; an "
          "evaluation compares images of one size (sfumato prepare makes them so)",
          place, image.width, image.height, image.channels, shape_[1], shape_[0], shape_[2]));
    if (count_ % kBlock == 0)
      blocks_.push_back(at::empty({kBlock, shape_[0], shape_[1], shape_[2]}, at::kByte));
    std::memcpy(blocks_.back().mutable_data_ptr<std::uint8_t>() +
                    (count_ % kBlock) * std::ssize(image.pixels),
                image.pixels.data(), image.pixels.size());
    ++count_;
  }
  int64_t count() const { return count_; }
  at::Tensor images() {
    if (count_ % kBlock != 0) blocks_.back() = blocks_.back().narrow(0, 0, count_ % kBlock);
    at::Tensor all = at::cat(blocks_);
    blocks_.clear();
    return all;
  }

 private:
  static constexpr int64_t kBlock = 1024;
  std::array<int64_t, 3> shape_{};
  int64_t count_ = 0;
  std::vector<at::Tensor> blocks_;
};

/// Where `name` stands as a word of its own from `at` on; npos for nowhere.
std::size_t word_at(const std::string& text, const std::string& name, std::size_t at) {
  const auto goes_on = [](char c) { return c == '_' || (c >= 'a' && c <= 'z'); };
  for (; (at = text.find(name, at)) != std::string::npos; ++at) {
    const std::size_t end = at + name.size();
    if (!goes_on(name.back()) || end == text.size() || !goes_on(text[end])) return at;
  }
  return at;
}

/// "list them in data.class_names": a file or list that this program does not take.
bool is_asked_for(const std::string& text, std::size_t at) {
  const std::string before = text.substr(0, at);
  return before.ends_with("in ") || before.ends_with("set ") || before.ends_with("to ");
}

/// Messages of `prepare` speak of its settings: here of options.
std::string in_words_of_options(std::string message, const SetRequest& request) {
  const bool argument = request.option == "corpus";
  const std::string source = argument ? "CORPUS" : "--" + request.option;
  const std::string labels = fmt::format("--{}-labels", request.option);
  const std::pair<std::string, std::string> words[] = {
      {"data.num_classes=0", "--no-classes"},
      {"data.num_classes", "the number of classes"},
      {"data.class_names", "the classes of the other set"},
      {"data.labels=", labels + " "},
      {"data.labels", labels},
      {"data.source=", source + (argument ? "=" : " ")},
      {"data.source", source},
      {"the private images", "the images"}};
  for (const auto& [setting, option] : words)
    for (std::size_t at = 0; (at = word_at(message, setting, at)) != std::string::npos;) {
      const bool stays = setting == "data.class_names" && is_asked_for(message, at);
      if (!stays) message.replace(at, setting.size(), option);
      at += stays ? setting.size() : option.size();
    }
  const Config config;
  const auto settings = config.data.settings();
  if (std::ranges::any_of(settings, [&](const SettingBase* setting) {
        return word_at(message, setting->key(), 0) != std::string::npos;
      }))
    message += fmt::format(
        "; settings named data.* are those of `sfumato prepare`, whose store {} takes", source);
  return message;
}

void read_images(const SetRequest& request, const Names& names, ImageSet& set) {
  LabelledSource source({request.path, request.labels, request.with_classes, names});
  PixelCollector pixels;
  std::vector<int64_t> labels;
  Image image;
  for (int64_t label = 0; source.next(image, label);) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    pixels.add(image, source.place());
    labels.push_back(label);
  }
  set.found = pixels.count();
  set.rounded = source.rounded();
  set.classes_are_counted = source.classes_are_counted();
  if (set.found > 0) set.images.images = pixels.images();
  set.images.class_names = source.class_names();
  if (set.images.num_classes() > 0) set.images.labels = at::tensor(labels, at::kLong);
}

void read_source(const SetRequest& request, const Names& names, ImageSet& set) {
  try {
    read_images(request, names, set);
  } catch (const UsageError& error) {
    throw UsageError(in_words_of_options(error.what(), request));
  } catch (const DataError& error) {
    throw DataError(in_words_of_options(error.what(), request));
  }
}

void map_store(const SetRequest& request, ImageSet& set) {
  set.store = std::make_shared<const RecordStore>(RecordStore::open(request.path));
  const RecordStore& store = *set.store;
  set.found = store.count();
  if (set.found == 0) return;
  // Records lie one after another.
  auto* first = const_cast<std::uint8_t*>(store.pixels(0).data());
  set.images.images = at::from_blob(
      first, {store.count(), store.height(), store.width(), store.channels()}, at::kByte);
  set.identity = store.manifest_hash();
  if (!request.with_classes || store.num_classes() == 0) return;
  set.images.class_names = store.class_names();
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < store.count(); ++i) labels.push_back(store.label(i));
  set.images.labels = at::tensor(labels, at::kLong);
}

std::string hash_of(const LabelledImages& images) {
  Sha256 hash;
  const at::Tensor pixels = images.images.contiguous();
  hash.update(pixels.const_data_ptr(), pixels.nbytes());
  if (images.labels.defined())
    hash.update(images.labels.contiguous().const_data_ptr(), images.labels.nbytes());
  return hex(hash.finish());
}

void choose(const SetRequest& request, ImageSet& set) {
  if (request.count == 0 || request.count >= set.found) return;
  std::vector<int64_t> chosen =
      NumpyRandom(static_cast<uint32_t>(request.seed)).choice(set.found, request.count);
  std::ranges::sort(chosen);
  const at::Tensor rows = at::tensor(chosen, at::kLong);
  set.images.images = set.images.images.index_select(0, rows);
  if (set.images.labels.defined()) set.images.labels = set.images.labels.index_select(0, rows);
}

ImageSet open_set(const SetRequest& request, const Names& names) {
  ImageSet set;
  if (request.count < 0) throw UsageError("--count takes a number of images, 0 for all of them");
  if (request.path.empty()) throw UsageError("name a corpus and, with --reference, real images");
  set.name = without_slash(fs::absolute(request.path)).filename().string();
  set.split = request.split.empty() ? split_of_path(request.path) : request.split;
  if (is_record_store(request.path)) {
    map_store(request, set);
  } else {
    read_source(request, names, set);
    check_is_whole(request.path, set.found);
  }
  if (set.found < 2)
    throw DataError(
        fmt::format("'{}' holds fewer than two images, and a comparison of sets needs many",
                    request.path.string()));
  choose(request, set);
  if (set.identity.empty()) set.identity = hash_of(set.images);
  set.card = read_privacy_card(request.path / "privacy_card.json");
  return set;
}

/// Classes that were counted on one side are as many as the other side has.
void widen_counted(ImageSet& a, const ImageSet& b) {
  if (a.classes_are_counted && a.images.num_classes() < b.images.num_classes())
    a.images.class_names = b.images.class_names;
}

void require_fit(const ImageSet& corpus, const ImageSet& reference) {
  const ImageShape a = corpus.images.shape(), b = reference.images.shape();
  if (a.height != b.height || a.width != b.width || a.channels != b.channels)
    throw UsageError(fmt::format(
        "'{}' holds images of {}x{} pixels with {} channels, '{}' of {}x{} with {}; bring one of "
        "them to the other's size (sfumato prepare with data.image_size and data.channels)",
        corpus.name, a.width, a.height, a.channels, reference.name, b.width, b.height, b.channels));
  if (corpus.images.class_names != reference.images.class_names)
    throw UsageError(
        fmt::format("'{}' has {} classes ({}), '{}' has {} ({}): labels would not mean the same; "
                    "name sets with "
                    "the same classes, or compare without them (--no-classes)",
                    corpus.name, corpus.images.num_classes(),
                    fmt::join(corpus.images.class_names, ", "), reference.name,
                    reference.images.num_classes(), fmt::join(reference.images.class_names, ", ")));
}

}  // namespace

ImageSets open_image_sets(const SetRequest& corpus, const SetRequest& reference) {
  ImageSets sets;
  if (is_record_store(reference.path)) {
    sets.reference = open_set(reference, {});
    SetRequest with = corpus;
    with.with_classes = corpus.with_classes && sets.reference.images.num_classes() > 0;
    sets.corpus = open_set(with, sets.reference.images.class_names);
  } else {
    sets.corpus = open_set(corpus, {});
    SetRequest with = reference;
    with.with_classes = reference.with_classes && sets.corpus.images.num_classes() > 0;
    sets.reference =
        open_set(with, sets.corpus.classes_are_counted ? Names() : sets.corpus.images.class_names);
  }
  widen_counted(sets.corpus, sets.reference);
  widen_counted(sets.reference, sets.corpus);
  require_fit(sets.corpus, sets.reference);
  return sets;
}

ImageSet open_test_set(const SetRequest& request, const ImageSet& reference) {
  ImageSet set = open_set(request, reference.images.class_names);
  require_fit(set, reference);
  return set;
}

}  // namespace sfumato
