#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <optional>

#include "image_source.h"
#include "sfumato/core/error.h"
#include "sfumato/io/gzip_stream.h"

namespace sfumato {
namespace {

constexpr std::int64_t kSide = 32;
constexpr std::int64_t kPlane = kSide * kSide;

/// Records: label byte(s), then the red, green and blue plane. CIFAR-100 has a coarse and a fine
/// label; the fine one counts.
class CifarSource : public ImageSource {
 public:
  explicit CifarSource(const PrepareOptions& options) {
    find_files(options.source);
    for (const auto& file : files_) check_size(file);
    read_class_names(files_.front().parent_path());
  }

  bool next(SourceItem& item) override {
    while (!stream_ || stream_->at_end()) {
      if (next_file_ == files_.size()) return false;
      stream_.emplace(files_[next_file_++]);
      index_ = 0;
    }
    std::array<std::uint8_t, 2 + 3 * kPlane> record{};
    stream_->read_exact(record.data(), static_cast<std::size_t>(label_bytes_ + 3 * kPlane),
                        "a CIFAR record");
    item = {};
    const std::filesystem::path& file = stream_->path();
    item.name = fmt::format("{}:{}", file.filename().string(), index_);
    item.place = fmt::format("{}, image {}", file.string(), index_);
    item.label = record[static_cast<std::size_t>(label_bytes_ - 1)];
    item.raw = {kSide, kSide, 3, std::vector<std::uint8_t>(3 * kPlane)};
    const std::uint8_t* planes = record.data() + label_bytes_;
    for (std::int64_t p = 0; p < kPlane; ++p)
      for (std::int64_t c = 0; c < 3; ++c) item.raw.pixels[3 * p + c] = planes[c * kPlane + p];
    ++index_;
    return true;
  }

  ClassesFound classes_found() const override {
    return {.names = class_names_, .order = ClassesFound::Order::kByLabel};
  }

 private:
  void find_files(const std::filesystem::path& source) {
    std::error_code error;
    if (!std::filesystem::is_directory(source, error)) {
      files_.push_back(source);
      return;
    }
    for (const auto& entry : std::filesystem::directory_iterator(source, error)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(".bin") && name != "test_batch.bin" && name != "test.bin")
        files_.push_back(entry.path());
    }
    if (files_.empty())
      throw DataError(fmt::format("no CIFAR training file (.bin) in '{}'", source.string()));
    std::ranges::sort(files_);
  }

  void check_size(const std::filesystem::path& file) {
    std::error_code error;
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file, error));
    if (error) throw DataError(fmt::format("cannot read '{}': {}", file.string(), error.message()));
    const std::int64_t label_bytes = size % (1 + 3 * kPlane) == 0   ? 1
                                     : size % (2 + 3 * kPlane) == 0 ? 2
                                                                    : 0;
    if (label_bytes == 0 || size == 0)
      throw DataError(
          fmt::format("'{}' has {} bytes, which is no multiple of 3073 (CIFAR-10) or "
                      "3074 (CIFAR-100): no CIFAR binary, or truncated",
                      file.string(), size));
    if (label_bytes_ != 0 && label_bytes != label_bytes_)
      throw DataError(fmt::format("'{}' mixes CIFAR-10 and CIFAR-100 files; move one away",
                                  file.parent_path().string()));
    label_bytes_ = label_bytes;
  }

  /// The names that come with the data set, if they are there.
  void read_class_names(const std::filesystem::path& folder) {
    std::ifstream names(folder / (label_bytes_ == 1 ? "batches.meta.txt" : "fine_label_names.txt"));
    for (std::string line; std::getline(names, line);) {
      while (line.ends_with('\r') || line.ends_with(' ')) line.pop_back();
      if (!line.empty()) class_names_.push_back(line);
    }
  }

  std::vector<std::filesystem::path> files_;
  std::vector<std::string> class_names_;
  std::optional<GzipStream> stream_;
  std::size_t next_file_ = 0;
  std::int64_t label_bytes_ = 0;
  std::int64_t index_ = 0;
};

}  // namespace

std::unique_ptr<ImageSource> make_cifar_source(const PrepareOptions& options) {
  return std::make_unique<CifarSource>(options);
}

}  // namespace sfumato
