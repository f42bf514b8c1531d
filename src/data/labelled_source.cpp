#include "sfumato/data/labelled_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "class_names.h"
#include "image_source.h"
#include "npz_archive.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/npy.h"

namespace sfumato {
namespace {

// More classes than anybody numbers: labels are taken as they come, and checked by the caller.
constexpr std::int64_t kAnyNumberOfClasses = 1'000'000;
// Of classes that labels alone tell of: one label that is no class, as an id, would make as many.
constexpr std::int64_t kMostCountedClasses = 10'000;

/// Generated images as arrays of floats.
class FloatArrays : public ImageSource {
 public:
  FloatArrays(const ArraySelection& selection, bool with_classes) : images_(selection.images()) {
    const auto& shape = images_.shape();
    channels_first_ = shape.size() == 4 && (shape[1] == 1 || shape[1] == 3);
    if (shape.size() != 4 || (!channels_first_ && shape[3] != 1 && shape[3] != 3))
      throw DataError(fmt::format(
          "numpy array '{}' of shape {} holds no images: of floats expected are [N, C, H, W] or "
          "[N, H, W, C] with 1 or 3 channels",
          images_.place(), fmt::join(shape, "x")));
    height_ = channels_first_ ? shape[2] : shape[1];
    width_ = channels_first_ ? shape[3] : shape[2];
    channels_ = channels_first_ ? shape[1] : shape[3];
    if (!with_classes) return;
    if (!selection.labels)
      throw UsageError(fmt::format("there are no labels beside '{}'", images_.place()));
    labels_.emplace(selection.labels());
    if (!labels_->has_integers() || labels_->count() != images_.count())
      throw DataError(fmt::format("'{}' does not hold an integer for each of the {} images",
                                  labels_->place(), images_.count()));
  }

  bool next(SourceItem& item) override {
    record_.resize(static_cast<std::size_t>(images_.record_bytes()));
    if (!images_.next(record_)) return false;
    item = {};
    item.name = std::to_string(index_);
    item.place = fmt::format("{}, image {}", images_.place(), index_++);
    item.raw = {height_, width_, channels_, {}};
    const std::int64_t pixels = height_ * width_;
    item.raw.pixels.resize(static_cast<std::size_t>(pixels * channels_));
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
      for (std::int64_t c = 0; c < channels_; ++c) {
        const std::int64_t from = channels_first_ ? c * pixels + pixel : pixel * channels_ + c;
        item.raw.pixels[static_cast<std::size_t>(pixel * channels_ + c)] =
            rounded(value(from), item.place);
      }
    if (labels_) labels_->next_integer(item.label);
    return true;
  }

 private:
  double value(std::int64_t i) const {
    if (images_.type() == "f8") {
      double wide = 0;
      std::memcpy(&wide, record_.data() + i * 8, sizeof wide);
      return wide;
    }
    float narrow = 0;
    std::memcpy(&narrow, record_.data() + i * 4, sizeof narrow);
    return static_cast<double>(narrow);
  }

  static std::uint8_t rounded(double value, const std::string& place) {
    constexpr double kSlack = 1e-3;
    if (!(value >= -kSlack && value <= 1 + kSlack))
      throw DataError(
          fmt::format("{}: the value {} lies outside [0, 1]; save images from 0 to 1, or "
                      "uint8",
                      place, value));
    return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 1.0) * 255));
  }

  NpyReader images_;
  std::optional<NpyReader> labels_;
  std::vector<std::uint8_t> record_;
  std::int64_t height_ = 0, width_ = 0, channels_ = 0, index_ = 0;
  bool channels_first_ = false;
};

/// A corpus says which classes there are, with images or without: fewer than are asked for are
/// others.
void require_all_classes(const SourceRequest& request, const ClassesFound& found) {
  if (!found.is_public || request.class_names.empty() ||
      found.names.size() >= request.class_names.size())
    return;
  throw UsageError(
      fmt::format("'{}' has {} classes ({}), and the images that it is held against have {} ({})",
                  request.source.string(), found.names.size(), fmt::join(found.names, ", "),
                  request.class_names.size(), fmt::join(request.class_names, ", ")));
}

PrepareOptions options_of(const SourceRequest& request) {
  PrepareOptions options;
  options.source = request.source;
  options.labels = request.labels;
  options.class_names = request.class_names;
  options.accept_class_names = true;
  // Whoever wants no classes has said that folders are none.
  options.merge_folders = !request.with_classes;
  options.num_classes = !request.with_classes         ? 0
                        : request.class_names.empty() ? kAnyNumberOfClasses
                                                      : std::ssize(request.class_names);
  return options;
}

}  // namespace

class LabelledSource::Reader {
 public:
  explicit Reader(const SourceRequest& request) : options_(options_of(request)) {
    const FoundFormat format = detect_format(options_);
    if (format == SourceFormat::kNpz || format == SourceFormat::kNpy) {
      const ArraySelection selection = select_arrays(options_);
      const std::string type = selection.images().type();
      rounded_ = type == "f4" || type == "f8";
      if (rounded_) source_ = std::make_unique<FloatArrays>(selection, request.with_classes);
    }
    if (!source_) source_ = make_source(options_, format, SourcePass::kImages);
    if (!request.with_classes) return;
    const ClassesFound found = source_->classes_found();
    require_all_classes(request, found);
    if (options_.class_names.empty()) {
      if (found.names.empty()) return;  // numbers
      options_.num_classes = std::ssize(found.names);
      if (found.order == ClassesFound::Order::kByLabel) options_.class_names = found.names;
    }
    plan_ = plan_classes(options_, found);
  }

  bool next(Image& image, int64_t& label) {
    if (!source_->next(item_)) return false;
    label = plan_ ? label_of(item_, *plan_) : item_.label;
    if (options_.num_classes == 0) label = 0;
    if (label < 0 || label >= kAnyNumberOfClasses)
      throw DataError(fmt::format("{} has the label {}", item_.place, label));
    if (classes_are_counted() && label >= kMostCountedClasses)
      throw DataError(fmt::format(
          "{} has the label {}: classes that are known by their labels alone are numbered from 0, "
          "and at most {}; number them so, or do not read labels (--no-classes)",
          item_.place, label, kMostCountedClasses));
    largest_ = std::max(largest_, label);
    if (!item_.raw.pixels.empty()) {
      image = std::move(item_.raw);
      return true;
    }
    if (!item_.file.empty()) item_.encoded = read_file(item_.file);
    image = decode_image(item_.encoded, item_.place);
    return true;
  }

  const std::string& place() const { return item_.place; }
  bool rounded() const { return rounded_; }
  bool classes_are_counted() const { return options_.num_classes > 0 && !plan_; }

  std::vector<std::string> class_names() const {
    if (options_.num_classes == 0) return {};
    if (plan_) return plan_->names;
    std::vector<std::string> numbers;
    for (int64_t label = 0; label <= largest_; ++label) numbers.push_back(std::to_string(label));
    return numbers;
  }

 private:
  PrepareOptions options_;
  std::unique_ptr<ImageSource> source_;
  std::optional<ClassPlan> plan_;
  SourceItem item_;
  int64_t largest_ = -1;
  bool rounded_ = false;
};

LabelledSource::LabelledSource(const SourceRequest& request)
    : reader_(std::make_unique<Reader>(request)) {}
LabelledSource::~LabelledSource() = default;
bool LabelledSource::next(Image& image, int64_t& label) { return reader_->next(image, label); }
const std::string& LabelledSource::place() const { return reader_->place(); }
std::vector<std::string> LabelledSource::class_names() const { return reader_->class_names(); }
bool LabelledSource::classes_are_counted() const { return reader_->classes_are_counted(); }
bool LabelledSource::rounded() const { return reader_->rounded(); }

}  // namespace sfumato
