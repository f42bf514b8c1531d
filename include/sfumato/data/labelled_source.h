#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/io/image_codec.h"

namespace sfumato {

struct SourceRequest {
  std::filesystem::path source;  ///< anything that prepare reads
  std::filesystem::path labels;  ///< of IDX images or a .npy, as PrepareOptions::labels
  bool with_classes = true;      ///< false: labels are not read
  /// Label by label, where they are known; else they are what the source says.
  std::vector<std::string> class_names = {};
};

/// Images as a source holds them, neither cropped, resized nor de-duplicated, with their labels:
/// for what looks at images and trains on none. Besides what prepare reads: numpy archives of
/// floats in [0, 1], [N, C, H, W] or [N, H, W, C], as other programs write generated images, which
/// come to 8 bits by rounding.
class LabelledSource {
 public:
  /// DataError and UsageError as prepare, where a source is damaged or its classes are not those of
  /// `class_names`.
  explicit LabelledSource(const SourceRequest& request);
  ~LabelledSource();

  /// False at the end. DataError names an image that cannot be read.
  bool next(Image& image, int64_t& label);
  /// Of the image that next() gave, for messages.
  const std::string& place() const;
  /// Label by label; of a source that numbers its classes and is given no names, the numbers seen
  /// so far. Empty without classes.
  std::vector<std::string> class_names() const;
  /// They are numbers that were seen, and there may be more.
  bool classes_are_counted() const;
  /// Values were floats, which came to 8 bits.
  bool rounded() const;

  class Reader;  ///< private

 private:
  std::unique_ptr<Reader> reader_;
};

}  // namespace sfumato
