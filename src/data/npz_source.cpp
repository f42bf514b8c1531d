#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>

#include "image_source.h"
#include "label_table.h"
#include "npz_archive.h"
#include "sfumato/core/error.h"
#include "sfumato/io/npy.h"

namespace sfumato {
namespace {

[[noreturn]] void refuse_images(const NpyReader& array, const std::string& why) {
  throw DataError(fmt::format("numpy array '{}' of shape {} and type {} holds no images: {}",
                              array.place(), fmt::join(array.shape(), "x"), array.type(), why));
}

/// Arrays that look like images and are laid out otherwise get the line that mends them.
void check_images(const NpyReader& array) {
  const auto& shape = array.shape();
  if (array.type() != "u1")
    refuse_images(array,
                  "expected uint8; save, for values from 0 to 1, (x * 255).round()"
                  ".astype(numpy.uint8)");
  if (shape.size() == 2)
    refuse_images(array, "expected NxHxW, NxHxWx1 or NxHxWx3; save x.reshape(-1, height, width)");
  if (shape.size() == 3 && shape[2] <= 4 && shape[1] > 4)
    refuse_images(array, "it is one image, expected a list of them; save x[None]");
  if (shape.size() == 4 && shape[3] != 1 && shape[3] != 3 && (shape[1] == 1 || shape[1] == 3))
    refuse_images(array, "channels come first; save x.transpose(0, 2, 3, 1)");
  if (shape.size() == 4 && shape[3] > 4)
    refuse_images(array, "they are volumes; save slices of them, NxHxW");
  if (shape.size() != 3 && (shape.size() != 4 || (shape[3] != 1 && shape[3] != 3)))
    refuse_images(array, "expected NxHxW, NxHxWx1 or NxHxWx3");
  if (shape[1] < 1 || shape[2] < 1 || shape[1] > kMaxImagePixels / shape[2])
    refuse_images(array, fmt::format("pictures of {}x{} pixels", shape[2], shape[1]));
}

void check_labels(const NpyReader& labels, const NpyReader& images) {
  const auto& shape = labels.shape();
  const std::string what = fmt::format("numpy array '{}' of shape {} and type {}", labels.place(),
                                       fmt::join(shape, "x"), labels.type());
  const bool one_each =
      std::all_of(shape.begin() + 1, shape.end(), [](std::int64_t size) { return size == 1; });
  if (!one_each)
    throw DataError(
        fmt::format("{} holds several labels for each image, and an image has one class; "
                    "save one column of it (of one-hot labels, x.argmax(axis=1)), or set "
                    "data.num_classes=0",
                    what));
  if (!labels.has_integers() && !labels.has_text())
    throw DataError(fmt::format("{} holds no labels: expected integers or text", what));
  if (labels.count() != images.count())
    throw DataError(fmt::format("{} holds {} labels, but '{}' {} images", what, labels.count(),
                                images.place(), images.count()));
}

/// An .npz archive, or an .npy file of images with another of labels.
class NpzSource : public ImageSource {
 public:
  explicit NpzSource(const PrepareOptions& options) : texts_(options.class_names) {
    const ArraySelection selection = select_arrays(options);
    images_.emplace(selection.images());
    check_images(*images_);
    const auto& shape = images_->shape();
    height_ = shape[1];
    width_ = shape[2];
    channels_ = shape.size() == 4 ? shape[3] : 1;
    if (options.num_classes == 0) return;
    if (!selection.labels)
      throw UsageError(fmt::format(
          "data.num_classes is {}, but there are no labels for '{}'; set data.labels to "
          "an .npy file or ARCHIVE.npz/ARRAY, or data.num_classes=0",
          options.num_classes, images_->place()));
    labels_.emplace(selection.labels());
    check_labels(*labels_, *images_);
    if (labels_->has_text()) read_texts(selection.labels());
  }

  bool next(SourceItem& item) override {
    Image image{height_, width_, channels_, {}};
    image.pixels.resize(static_cast<std::size_t>(images_->record_bytes()));
    if (!images_->next(image.pixels)) return false;
    item = {};
    item.name = std::to_string(index_);
    item.place = fmt::format("{}, image {}", images_->place(), index_);
    item.raw = std::move(image);
    if (labels_ && labels_->has_integers()) labels_->next_integer(item.label);
    if (labels_ && labels_->has_text()) {
      std::string text;
      labels_->next_text(text);
      texts_.apply(std::string_view(text), item);
    }
    ++index_;
    return true;
  }

  ClassesFound classes_found() const override { return texts_.classes_found(); }

 private:
  /// Names must be known before the first image: one more pass over the labels.
  void read_texts(NpyReader labels) {
    std::string text;
    for (std::int64_t i = 0; labels.next_text(text); ++i)
      texts_.add(text, fmt::format("{}, label {}", labels.place(), i));
  }

  std::optional<NpyReader> images_;
  std::optional<NpyReader> labels_;
  LabelTexts texts_;
  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
  std::int64_t channels_ = 1;
  std::int64_t index_ = 0;
};

}  // namespace

std::unique_ptr<ImageSource> make_npz_source(const PrepareOptions& options) {
  return std::make_unique<NpzSource>(options);
}

}  // namespace sfumato
