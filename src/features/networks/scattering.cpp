#include "features/networks/scattering.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

namespace sfumato {
namespace {

constexpr int64_t kSide = 7, kMargin = kSide / 2, kDirections = 8, kCells = 7;
constexpr int64_t kMostScales = 3, kLeastSide = 24;
struct Frequency {
  double radians, envelope;  // standard deviation, pixels
};
constexpr Frequency kFrequencies[] = {{1.6, 1.2}, {0.8, 2.5}};
constexpr int64_t kWavelets = kDirections * static_cast<int64_t>(std::size(kFrequencies));
/// Moduli beside means of cells, which are as large where an image is black and white.
constexpr float kModulusWeight = 0.5F;
constexpr float kLeastNorm = 1e-4F;  // of a black image, whose features are 0

/// A Morlet wavelet: a wave under a Gaussian, made zero-mean, magnitudes adding up to 1.
std::vector<std::complex<double>> morlet(const Frequency& frequency, int64_t direction) {
  const double angle =
      std::numbers::pi * static_cast<double>(direction) / static_cast<double>(kDirections);
  std::vector<std::complex<double>> wave;
  std::vector<double> envelope;
  std::complex<double> sum = 0;
  double mass = 0, magnitude = 0;
  for (int64_t y = -kMargin; y <= kMargin; ++y)
    for (int64_t x = -kMargin; x <= kMargin; ++x) {
      const double along =
          static_cast<double>(x) * std::cos(angle) + static_cast<double>(y) * std::sin(angle);
      envelope.push_back(std::exp(-static_cast<double>(x * x + y * y) /
                                  (2 * frequency.envelope * frequency.envelope)));
      wave.push_back(envelope.back() * std::polar(1.0, frequency.radians * along));
      sum += wave.back();
      mass += envelope.back();
    }
  for (size_t i = 0; i < wave.size(); ++i) {
    wave[i] -= envelope[i] * sum / mass;
    magnitude += std::abs(wave[i]);
  }
  for (std::complex<double>& value : wave) value /= magnitude;
  return wave;
}

/// One plane of floats.
struct Plane {
  int64_t height = 0, width = 0;
  std::vector<float> values;  // [height][width]

  Plane(int64_t rows, int64_t columns)
      : height(rows), width(columns), values(static_cast<size_t>(rows * columns)) {}
  float* row(int64_t y) { return values.data() + y * width; }
  const float* row(int64_t y) const { return values.data() + y * width; }
};

/// With its edges repeated: a border of zeros would be an edge of its own.
Plane padded(const Plane& plane) {
  Plane out(plane.height + 2 * kMargin, plane.width + 2 * kMargin);
  for (int64_t y = 0; y < out.height; ++y) {
    const float* in = plane.row(std::clamp<int64_t>(y - kMargin, 0, plane.height - 1));
    for (int64_t x = 0; x < out.width; ++x)
      out.row(y)[x] = in[std::clamp<int64_t>(x - kMargin, 0, plane.width - 1)];
  }
  return out;
}

Plane halved(const Plane& plane) {
  Plane out(plane.height / 2, plane.width / 2);
  for (int64_t y = 0; y < out.height; ++y) {
    const float *upper = plane.row(2 * y), *lower = plane.row(2 * y + 1);
    for (int64_t x = 0; x < out.width; ++x)
      out.row(y)[x] = (upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]) * 0.25F;
  }
  return out;
}

/// Mean of each cell, times `weight`; cells as adaptive pooling cuts them.
void add_cell_means(const Plane& plane, float weight, float*& out) {
  const auto begin = [](int64_t cell, int64_t side) { return cell * side / kCells; };
  const auto end = [](int64_t cell, int64_t side) {
    return ((cell + 1) * side + kCells - 1) / kCells;
  };
  for (int64_t i = 0; i < kCells; ++i)
    for (int64_t j = 0; j < kCells; ++j) {
      float sum = 0;
      const int64_t top = begin(i, plane.height), bottom = end(i, plane.height);
      const int64_t left = begin(j, plane.width), right = end(j, plane.width);
      for (int64_t y = top; y < bottom; ++y)
        for (int64_t x = left; x < right; ++x) sum += plane.row(y)[x];
      *out++ = weight * sum / static_cast<float>((bottom - top) * (right - left));
    }
}

/// Adds `weight` times the plane that lies (dy, dx) further in `in`.
void add_shifted(const Plane& in, int64_t dy, int64_t dx, float weight, Plane& out) {
  for (int64_t y = 0; y < out.height; ++y) {
    const float* from = in.row(y + dy) + dx;
    float* to = out.row(y);
    for (int64_t x = 0; x < out.width; ++x) to[x] += weight * from[x];
  }
}

Plane modulus_of(const Plane& in, std::span<const std::complex<double>> wavelet, int64_t height,
                 int64_t width) {
  Plane real(height, width), imaginary(height, width);
  for (int64_t dy = 0; dy < kSide; ++dy)
    for (int64_t dx = 0; dx < kSide; ++dx) {
      const std::complex<double> value = wavelet[static_cast<size_t>(dy * kSide + dx)];
      add_shifted(in, dy, dx, static_cast<float>(value.real()), real);
      add_shifted(in, dy, dx, static_cast<float>(value.imag()), imaginary);
    }
  for (size_t i = 0; i < real.values.size(); ++i)
    real.values[i] =
        std::sqrt(real.values[i] * real.values[i] + imaginary.values[i] * imaginary.values[i]);
  return real;
}

class Scattering : public FeatureNetwork {
 public:
  explicit Scattering(const ImageShape& shape) : FeatureNetwork({}), shape_(shape) {
    for (const Frequency& frequency : kFrequencies)
      for (int64_t direction = 0; direction < kDirections; ++direction)
        wavelets_.push_back(morlet(frequency, direction));
    for (int64_t side = std::min(shape.height, shape.width) / 2;
         side >= kLeastSide && scales_ < kMostScales; side /= 2)
      ++scales_;
    facts_.network = "scattering";
    facts_.distance = "FD-scattering";
    facts_.weights_sha256 = "none (Morlet wavelets, sfumato scattering features 1)";
    facts_.preprocessing = "uint8 / 255, not resized, edges repeated";
    facts_.dimension = kCells * kCells * (shape.channels + kWavelets * scales_);
  }

  int64_t image_bytes() const override {
    constexpr int64_t kPlanes = 8;
    return static_cast<int64_t>(sizeof(float)) *
           (facts_.dimension + (kPlanes + shape_.channels) * shape_.height * shape_.width);
  }

  FeatureBatch operator()(const at::Tensor& images) const override {
    const at::Tensor pixels = images.contiguous();
    const int64_t count = pixels.size(0), size = shape_.elements();
    FeatureBatch batch{at::empty({count, facts_.dimension}, at::kFloat), {}};
    const uint8_t* in = pixels.const_data_ptr<uint8_t>();
    float* out = batch.features.mutable_data_ptr<float>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) describe(in + i * size, out + i * facts_.dimension);
    });
    return batch;
  }

 private:
  /// Every sum in one fixed order, so that the bits do not hang on batches or threads.
  void describe(const uint8_t* pixels, float* features) const {
    float* out = features;
    Plane grey(shape_.height, shape_.width);
    for (int64_t c = 0; c < shape_.channels; ++c) {
      Plane channel(shape_.height, shape_.width);
      for (size_t i = 0; i < channel.values.size(); ++i) {
        channel.values[i] =
            static_cast<float>(pixels[static_cast<int64_t>(i) * shape_.channels + c]) / 255;
        grey.values[i] += channel.values[i] / static_cast<float>(shape_.channels);
      }
      add_cell_means(channel, 1, out);
    }
    for (int64_t scale = 0; scale < scales_; ++scale) {
      if (scale > 0) grey = halved(grey);
      const Plane in = padded(grey);
      for (const auto& wavelet : wavelets_)
        add_cell_means(modulus_of(in, wavelet, grey.height, grey.width), kModulusWeight, out);
    }
    float squares = 0;
    for (int64_t i = 0; i < facts_.dimension; ++i) squares += features[i] * features[i];
    const float norm = std::max(std::sqrt(squares), kLeastNorm);
    for (int64_t i = 0; i < facts_.dimension; ++i) features[i] /= norm;
  }

  ImageShape shape_;
  int64_t scales_ = 1;
  std::vector<std::vector<std::complex<double>>> wavelets_;
};

}  // namespace

std::unique_ptr<FeatureNetwork> make_scattering(const FeatureRequest& request) {
  return std::make_unique<Scattering>(request.shape);
}

}  // namespace sfumato
