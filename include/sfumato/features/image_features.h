#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "sfumato/core/enum_names.h"
#include "sfumato/features/nearest_neighbours.h"
#include "sfumato/models/image_shape.h"

namespace sfumato {

class RecordStore;

/// What "near" means between images.
enum class FeatureSpace {
  kPixels,      ///< every value, black 0 and white 1
  kConvolution  ///< responses of fixed random filters, pooled over sixteenths of the image
};
template <>
struct EnumNames<FeatureSpace> {
  static constexpr std::string_view kWhat = "features";
  static constexpr EnumName<FeatureSpace> kTable[] = {{FeatureSpace::kPixels, "pixels"},
                                                      {FeatureSpace::kConvolution, "convolution"}};
};

/// Features that are the same on every machine and learnt from nothing, so they cannot leak.
///
/// Convolution: at each of three scales (the image, halved, quartered, while its side is 8 pixels
/// or more) 24 filters of 7 x 7 pixels with standard normal entries of a fixed seed, made zero-mean
/// and of unit norm in each channel; magnitudes of the responses, averaged over a 4 x 4 grid; all
/// of them together of unit norm. Brightness and contrast leave them as they are, noise and a shift
/// by a pixel move them less than they move pixels, against the distances between images. They know
/// nothing of content: two pictures of one scene by different cameras are far apart, and so is a
/// mirrored picture.
class ImageFeatures {
 public:
  ImageFeatures(FeatureSpace space, const ImageShape& shape);

  FeatureSpace space() const { return space_; }
  int64_t dimension() const { return dimension_; }
  /// Of an image and its features in float32.
  int64_t row_bytes() const;
  /// uint8 [n, H, W, C] -> float32 [n, dimension].
  at::Tensor operator()(const at::Tensor& images) const;

 private:
  at::Tensor convolved(const at::Tensor& images) const;

  FeatureSpace space_;
  ImageShape shape_;
  int64_t scales_ = 0;
  int64_t dimension_ = 0;
  at::Tensor filters_;  ///< float32 [24, C, 7, 7]
};

/// Records of a store as uint8 [n, H, W, C].
at::Tensor store_images(const RecordStore& store, std::span<const int64_t> records);

/// Features of a store's records, computed anew each time; both are borrowed.
class StoreFeatures : public FeatureRows {
 public:
  StoreFeatures(const RecordStore& store, const ImageFeatures& features)
      : store_(store), features_(features) {}
  int64_t count() const override;
  int64_t dimension() const override { return features_.dimension(); }
  int64_t row_bytes() const override { return features_.row_bytes(); }
  at::Tensor rows(std::span<const int64_t> indices) const override {
    return features_(store_images(store_, indices));
  }

 private:
  const RecordStore& store_;
  const ImageFeatures& features_;
};

}  // namespace sfumato
