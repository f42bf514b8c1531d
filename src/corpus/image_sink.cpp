#include "corpus/image_sink.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <stdexcept>

#include "corpus/class_folders.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Written beside its place and renamed, but not flushed to the disk: one sync at the end of the
/// corpus is far cheaper, and a picture that a power cut left incomplete is found on restart.
void write_renamed(const fs::path& path, const std::string& bytes) {
  const fs::path temporary = path.parent_path() / ("." + path.filename().string() + ".tmp");
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code error;
  if (file.good()) fs::rename(temporary, path, error);
  if (file.good() && !error) return;
  const std::string why = std::strerror(error ? error.value() : errno);
  fs::remove(temporary, error);
  throw DataError(fmt::format(
      "cannot write '{}': {}; make room or choose another place, then run again to continue",
      path.string(), why));
}

bool has_shape(const Image& image, const ImageShape& shape) {
  return image.height == shape.height && image.width == shape.width &&
         image.channels == shape.channels;
}

class FolderSink : public ImageSink {
 public:
  FolderSink(const CorpusSpec& spec, const std::vector<ImageId>& order)
      : spec_(spec), order_(order) {}

  std::vector<bool> complete() override {
    // Also of classes without images: readers that number the folders must count them.
    for (const std::string& name : spec_.class_folders) {
      const fs::path folder = spec_.folder / kImagesFolder / name;
      make_folder(folder);
      remove_temporaries(folder);
    }
    std::vector<bool> found(order_.size());
    for (std::size_t i = 0; i < order_.size(); ++i) found[i] = is_whole(order_[i]);
    return found;
  }

  void add(int64_t position, const std::string& png) override {
    const ImageId& image = order_[static_cast<std::size_t>(position)];
    write_renamed(spec_.folder / image_file_name(spec_, image), png);
  }

  std::vector<Image> read(std::span<const ImageId> images) override {
    std::vector<Image> read;
    for (const ImageId& image : images) {
      const fs::path path = spec_.folder / image_file_name(spec_, image);
      read.push_back(decode_image(read_file(path), path.string()));
    }
    return read;
  }

 private:
  bool is_whole(const ImageId& image) const {
    const fs::path path = spec_.folder / image_file_name(spec_, image);
    if (!fs::exists(path)) return false;
    try {
      return has_shape(decode_image(read_file(path), path.string()), spec_.shape);
    } catch (const DataError&) {
      return false;
    }
  }

  const CorpusSpec& spec_;
  const std::vector<ImageId>& order_;
};

/// Shards hold kImagesPerShard consecutive images of the order, so that what is complete is always
/// a whole number of shards from the first one on.
class ShardSink : public ImageSink {
 public:
  ShardSink(const CorpusSpec& spec, const std::vector<ImageId>& order)
      : spec_(spec), order_(order) {}

  std::vector<bool> complete() override {
    std::vector<bool> found(order_.size());
    const auto images = static_cast<int64_t>(order_.size());
    for (int64_t first = 0; first < images; first += kImagesPerShard) {
      if (!is_whole(first)) break;
      std::fill(found.begin() + first, found.begin() + end_of_shard(first), true);
    }
    return found;
  }

  void add(int64_t position, const std::string& png) override {
    const int64_t shard = position / kImagesPerShard;
    if (position % kImagesPerShard == 0) writer_.emplace(spec_.folder / shard_file_name(shard));
    if (!writer_) throw std::logic_error("a shard is written from its first image on");
    const ImageId& image = order_[static_cast<std::size_t>(position)];
    writer_->add(shard_key(spec_, image) + ".png", png);
    writer_->add(shard_key(spec_, image) + ".cls", std::to_string(image.label));
    if (!spec_.class_names.empty())
      writer_->add(shard_key(spec_, image) + ".json", class_json(image.label));
    if (position + 1 != end_of_shard(position)) return;
    writer_->finish();
    writer_.reset();
  }

  std::vector<Image> read(std::span<const ImageId> images) override {
    std::vector<Image> read(images.size());
    std::size_t missing = images.size();
    for (int64_t shard = 0; missing > 0; ++shard) {
      const fs::path path = spec_.folder / shard_file_name(shard);
      TarReader reader(path);
      TarEntry entry;
      while (missing > 0 && reader.next(entry)) {
        const auto wanted = std::ranges::find_if(images, [&](const ImageId& image) {
          return shard_key(spec_, image) + ".png" == entry.name;
        });
        if (wanted == images.end()) continue;
        read[static_cast<std::size_t>(wanted - images.begin())] =
            decode_image(reader.read_content(), path.string() + "/" + entry.name);
        --missing;
      }
    }
    return read;
  }

 private:
  std::string class_json(int64_t label) const {
    const nlohmann::ordered_json json = {
        {"label", label}, {"class_name", spec_.class_names[static_cast<std::size_t>(label)]}};
    return json.dump();
  }

  int64_t end_of_shard(int64_t position) const {
    return std::min<int64_t>((position / kImagesPerShard + 1) * kImagesPerShard,
                             static_cast<int64_t>(order_.size()));
  }

  /// A shard is renamed into place when it is whole; its members are still compared, in case the
  /// machine and not only the program went down.
  bool is_whole(int64_t first) const {
    const fs::path path = spec_.folder / shard_file_name(first / kImagesPerShard);
    if (!fs::exists(path)) return false;
    try {
      TarReader reader(path);
      TarEntry entry;
      for (int64_t position = first; position < end_of_shard(first); ++position) {
        const std::string key = shard_key(spec_, order_[static_cast<std::size_t>(position)]);
        if (!reader.next(entry) || entry.name != key + ".png") return false;
        if (!has_shape(decode_image(reader.read_content(), key), spec_.shape)) return false;
        if (!reader.next(entry) || entry.name != key + ".cls") return false;
        if (spec_.class_names.empty()) continue;
        if (!reader.next(entry) || entry.name != key + ".json") return false;
      }
      return !reader.next(entry);
    } catch (const DataError&) {
      return false;
    }
  }

  const CorpusSpec& spec_;
  const std::vector<ImageId>& order_;
  std::optional<TarWriter> writer_;
};

}  // namespace

std::unique_ptr<ImageSink> make_image_sink(const CorpusSpec& spec,
                                           const std::vector<ImageId>& order) {
  if (spec.format == CorpusFormat::kFolder) return std::make_unique<FolderSink>(spec, order);
  return std::make_unique<ShardSink>(spec, order);
}

std::string image_file_name(const CorpusSpec& spec, const ImageId& image) {
  return fmt::format("{}/{}/{:06}.png", kImagesFolder,
                     spec.class_folders[static_cast<std::size_t>(image.label)], image.index);
}

std::string shard_file_name(int64_t shard) { return fmt::format("shard-{:06}.tar", shard); }

std::string shard_key(const CorpusSpec& spec, const ImageId& image) {
  return fmt::format("{}-{:06}", padded_label(image.label, std::ssize(spec.images_per_class)),
                     image.index);
}

void remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> temporaries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name.starts_with(".") && name.ends_with(".tmp"))
      temporaries.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& path : temporaries) fs::remove(path, ignored);
}

}  // namespace sfumato
