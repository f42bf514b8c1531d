#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>

#include "image_source.h"
#include "sfumato/core/error.h"
#include "sfumato/io/idx.h"

namespace sfumato {
namespace {

class IdxSource : public ImageSource {
 public:
  explicit IdxSource(const PrepareOptions& options) : images_(options.source) {
    const auto& dims = images_.dimensions();
    const bool grey = dims.size() == 3 || (dims.size() == 4 && dims[3] == 1);
    const bool rgb = dims.size() == 4 && dims[3] == 3;
    if (images_.type() != 0x08 || (!grey && !rgb))
      throw DataError(fmt::format(
          "'{}' holds no images: expected type 08 with dimensions NxHxW, NxHxWx1 or NxHxWx3, found "
          "type {:02x} with {}",
          options.source.string(), images_.type(), fmt::join(dims, "x")));
    height_ = dims[1];
    width_ = dims[2];
    channels_ = rgb ? 3 : 1;
    if (height_ < 1 || width_ < 1 || height_ > options.max_megapixels * 1'000'000 / width_)
      throw DataError(
          fmt::format("'{}' has images of {}x{} pixels", options.source.string(), width_, height_));
    if (options.num_classes > 0) open_labels(options);
  }

  bool next(SourceItem& item) override {
    Image image{height_, width_, channels_, {}};
    image.pixels.resize(static_cast<std::size_t>(images_.record_bytes()));
    if (!images_.next(image.pixels)) return false;
    item = {};
    item.name = std::to_string(index_);
    item.place = fmt::format("{}, image {}", images_.path().string(), index_);
    item.raw = std::move(image);
    if (labels_) labels_->next_integer(item.label);
    ++index_;
    return true;
  }

 private:
  void open_labels(const PrepareOptions& options) {
    if (options.labels.empty())
      throw UsageError(
          fmt::format("data.num_classes is {}, but no labels are given for '{}'; set "
                      "data.labels to the IDX label file, or data.num_classes=0",
                      options.num_classes, options.source.string()));
    labels_.emplace(options.labels);
    if (labels_->dimensions().size() != 1 || labels_->type() > 0x0C)
      throw DataError(fmt::format(
          "'{}' holds no labels: expected one dimension of integers, found "
          "type {:02x} with dimensions {}",
          options.labels.string(), labels_->type(), fmt::join(labels_->dimensions(), "x")));
    if (labels_->count() != images_.count())
      throw DataError(fmt::format("'{}' has {} labels, but '{}' has {} images",
                                  options.labels.string(), labels_->count(),
                                  options.source.string(), images_.count()));
  }

  IdxReader images_;
  std::optional<IdxReader> labels_;
  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
  std::int64_t channels_ = 1;
  std::int64_t index_ = 0;
};

}  // namespace

std::unique_ptr<ImageSource> make_idx_source(const PrepareOptions& options) {
  return std::make_unique<IdxSource>(options);
}

}  // namespace sfumato
