#include "kernels/image_norm.h"

#include <array>
#include <cmath>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/lane_math.h"

#define SFUMATO_INLINE inline __attribute__((always_inline))

namespace sfumato {
namespace {

constexpr std::int64_t kChains = 4;  // sums beside each other, which hide the latency of additions

SFUMATO_INLINE float read(const float* from) { return *from; }
SFUMATO_INLINE float read(const std::uint16_t* from) { return from_bfloat16(*from); }
SFUMATO_INLINE void write(float value, float* to) { *to = value; }
SFUMATO_INLINE void write(float value, std::uint16_t* to) { *to = to_bfloat16(value); }

SFUMATO_INLINE void read_lanes(const float* from, Lanes& lanes) { load_lanes(from, lanes); }
SFUMATO_INLINE void read_lanes(const std::uint16_t* from, Lanes& lanes) {
  float wide[kLanes];
  for (std::int64_t c = 0; c < kLanes; ++c) wide[c] = from_bfloat16(from[c]);
  load_lanes(wide, lanes);
}

/// Of one channel of an image: the mean and the sum of squared differences from it.
struct ChannelMoments {
  double mean = 0, squares = 0;
};

/// Of kLanes channels at x, whose positions lie `stride` apart.
template <typename T>
SFUMATO_INLINE void moments_of_lanes(const T* x, std::int64_t stride, std::int64_t positions,
                                     ChannelMoments* out) {
  Lanes first, d;
  read_lanes(x, first);
  Lanes sums[kChains] = {}, squares[kChains] = {};
  const std::int64_t whole = positions / kChains * kChains;
  for (std::int64_t s = 0; s < whole; s += kChains)
    for (std::int64_t i = 0; i < kChains; ++i) {
      read_lanes(x + (s + i) * stride, d);
      d -= first;
      sums[i] += d;
      squares[i] += d * d;
    }
  for (std::int64_t s = whole; s < positions; ++s) {
    read_lanes(x + s * stride, d);
    d -= first;
    sums[0] += d;
    squares[0] += d * d;
  }
  const Lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const Lanes square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  const double count = static_cast<double>(positions);
  for (std::int64_t c = 0; c < kLanes; ++c) {
    const double total = sum[c], offset = total / count, rest = double{square[c]} - offset * total;
    out[c] = {double{first[c]} + offset, rest < 0 ? 0 : rest};  // keeps NaN
  }
}

SFUMATO_EVERY_X86_64 void channel_moments(const float* x, std::int64_t stride,
                                          std::int64_t positions, ChannelMoments* out) {
  moments_of_lanes(x, stride, positions, out);
}
SFUMATO_EVERY_X86_64 void channel_moments(const std::uint16_t* x, std::int64_t stride,
                                          std::int64_t positions, ChannelMoments* out) {
  moments_of_lanes(x, stride, positions, out);
}

/// What each channel of an image becomes: act((x - mean) weight + offset).
struct Affine {
  const float *mean, *weight, *offset;
  std::int64_t channels, positions;
};

template <bool kSilu, typename From, typename To>
SFUMATO_INLINE void apply_lanes(const From* x, const Affine& affine, To* y) {
  const std::int64_t channels = affine.channels;
  for (std::int64_t first = 0; first < channels; first += kLanes) {
    Lanes mean, weight, offset, lanes;
    load_lanes(affine.mean + first, mean);
    load_lanes(affine.weight + first, weight);
    load_lanes(affine.offset + first, offset);
    for (std::int64_t s = 0; s < affine.positions; ++s) {
      read_lanes(x + s * channels + first, lanes);
      lanes = (lanes - mean) * weight + offset;
      float z[kLanes];
      store_lanes(lanes, z);
      if constexpr (kSilu)
        for (std::int64_t c = 0; c < kLanes; ++c) z[c] *= lane_sigmoid(z[c]);
      To* to = y + s * channels + first;
      for (std::int64_t c = 0; c < kLanes; ++c) write(z[c], to + c);
    }
  }
}

template <typename From, typename To>
SFUMATO_INLINE void apply_either(const From* x, const Affine& affine, FusedActivation activation,
                                 To* y) {
  if (activation == FusedActivation::kSilu)
    apply_lanes<true>(x, affine, y);
  else
    apply_lanes<false>(x, affine, y);
}

SFUMATO_EVERY_X86_64 void apply(const float* x, const Affine& affine, FusedActivation activation,
                                float* y) {
  apply_either(x, affine, activation, y);
}
SFUMATO_EVERY_X86_64 void apply(const float* x, const Affine& affine, FusedActivation activation,
                                std::uint16_t* y) {
  apply_either(x, affine, activation, y);
}
SFUMATO_EVERY_X86_64 void apply(const std::uint16_t* x, const Affine& affine,
                                FusedActivation activation, float* y) {
  apply_either(x, affine, activation, y);
}
SFUMATO_EVERY_X86_64 void apply(const std::uint16_t* x, const Affine& affine,
                                FusedActivation activation, std::uint16_t* y) {
  apply_either(x, affine, activation, y);
}

/// The norms of one image after another.
class ImageNorms {
 public:
  explicit ImageNorms(const ImageNorm& norm)
      : norm_(norm),
        moments_(static_cast<std::size_t>(norm.channels)),
        mean_(moments_.size()),
        weight_(moments_.size()) {}

  template <typename From, typename To>
  void image(const From* x, std::int64_t n, const float* shift, To* y) {
    for (std::int64_t c = 0; c < norm_.channels; c += kLanes)
      channel_moments(x + c, norm_.channels, norm_.positions, moments_.data() + c);
    for (std::int64_t g = 0; g < norm_.groups; ++g) find_group(n, g, shift);
    apply(x, {mean_.data(), weight_.data(), norm_.beta, norm_.channels, norm_.positions},
          norm_.activation, y);
  }

 private:
  /// Mean and weight of a group's channels, from their moments. They have as many values each:
  /// Chan, Golub and LeVeque (1983), (2.1).
  void find_group(std::int64_t n, std::int64_t group, const float* shift) {
    const std::int64_t per_group = norm_.channels / norm_.groups, first = group * per_group;
    const double positions = static_cast<double>(norm_.positions);
    double mean = 0, squares = 0;
    for (std::int64_t c = first; c < first + per_group; ++c) {
      ChannelMoments& m = moments_[static_cast<std::size_t>(c)];
      if (shift != nullptr) m.mean += double{shift[c]};
      mean += m.mean;
    }
    mean /= static_cast<double>(per_group);
    for (std::int64_t c = first; c < first + per_group; ++c) {
      const ChannelMoments& m = moments_[static_cast<std::size_t>(c)];
      squares += m.squares + positions * (m.mean - mean) * (m.mean - mean);
    }
    const double variance = squares / (static_cast<double>(per_group) * positions);
    const double rstd = 1 / std::sqrt(variance + norm_.eps);
    if (norm_.mean != nullptr) {
      norm_.mean[n * norm_.groups + group] = static_cast<float>(mean);
      norm_.rstd[n * norm_.groups + group] = static_cast<float>(rstd);
    }
    for (std::int64_t c = first; c < first + per_group; ++c) {
      const auto i = static_cast<std::size_t>(c);
      mean_[i] = static_cast<float>(shift == nullptr ? mean : mean - double{shift[c]});
      weight_[i] = static_cast<float>(rstd * double{norm_.gamma[c]});
    }
  }

  const ImageNorm& norm_;
  std::vector<ChannelMoments> moments_;
  std::vector<float> mean_, weight_;
};

template <typename From, typename To>
void norms_of(const ImageNorm& norm, std::int64_t begin, std::int64_t end) {
  ImageNorms norms(norm);
  const std::int64_t size = norm.positions * norm.channels;
  for (std::int64_t n = begin; n < end; ++n)
    norms.image(static_cast<const From*>(norm.x) + n * size, n,
                norm.shift == nullptr ? nullptr : norm.shift + n * norm.channels,
                static_cast<To*>(norm.y) + n * size);
}

template <typename A, typename B>
SFUMATO_INLINE void add(const A* a, const B* b, float* sum, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) sum[i] = read(a + i) + read(b + i);
}

}  // namespace

void image_norm_cpu(const ImageNorm& norm, std::int64_t begin, std::int64_t end) {
  const bool from_float = norm.from == Element::kFloat32, to_float = norm.to == Element::kFloat32;
  if (from_float && to_float) return norms_of<float, float>(norm, begin, end);
  if (from_float) return norms_of<float, std::uint16_t>(norm, begin, end);
  if (to_float) return norms_of<std::uint16_t, float>(norm, begin, end);
  norms_of<std::uint16_t, std::uint16_t>(norm, begin, end);
}

SFUMATO_EVERY_X86_64 void image_sum_cpu(const void* a, Element type_a, const void* b,
                                        Element type_b, float* sum, std::int64_t begin,
                                        std::int64_t end) {
  const auto *wide_a = static_cast<const float*>(a), *wide_b = static_cast<const float*>(b);
  const auto *half_a = static_cast<const std::uint16_t*>(a),
             *half_b = static_cast<const std::uint16_t*>(b);
  if (type_a == Element::kFloat32 && type_b == Element::kFloat32)
    add(wide_a, wide_b, sum, begin, end);
  else if (type_a == Element::kFloat32)
    add(wide_a, half_b, sum, begin, end);
  else if (type_b == Element::kFloat32)
    add(half_a, wide_b, sum, begin, end);
  else
    add(half_a, half_b, sum, begin, end);
}

}  // namespace sfumato
