#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/image_norm.h"
#include "kernels/lane_math.h"

#define SFUMATO_INLINE inline __attribute__((always_inline))

namespace sfumato {
namespace {

constexpr std::int64_t kRun = 64;  // positions whose sums stay in float32

/// What the passes read of an image's channels, and what they leave.
struct Channels {
  explicit Channels(std::size_t count)
      : mean(count), weight(count), beta(count), slope(count), level(count), d(count), dx(count) {}
  std::vector<float> mean, weight, beta, slope, level;
  std::vector<double> d, dx;  ///< sums of d and d (x - mean)
};

/// The sums of kLanes channels from `first` on; with SiLU, d is kept where there is a place for it.
template <bool kSilu>
SFUMATO_INLINE void sums_of_lanes(const float* x, const float* dy, float* kept,
                                  const ImageNormBackward& norm, std::int64_t first, Channels& c) {
  Lanes mean, weight, beta, offset, d;
  load_lanes(c.mean.data() + first, mean);
  load_lanes(c.weight.data() + first, weight);
  load_lanes(c.beta.data() + first, beta);
  for (std::int64_t start = 0; start < norm.positions; start += kRun) {
    const std::int64_t stop = std::min(start + kRun, norm.positions);
    Lanes sum_d = {}, sum_dx = {};
    for (std::int64_t s = start; s < stop; ++s) {
      const std::int64_t place = s * norm.channels + first;
      load_lanes(x + place, offset);
      offset -= mean;
      if constexpr (kSilu) {
        float z[kLanes];
        store_lanes(offset * weight + beta, z);
        for (std::int64_t l = 0; l < kLanes; ++l) z[l] = through_silu(dy[place + l], z[l]);
        load_lanes(z, d);
        if (kept != nullptr) store_lanes(d, kept + place);
      } else {
        load_lanes(dy + place, d);
      }
      sum_d += d;
      sum_dx += d * offset;
    }
    float run_d[kLanes], run_dx[kLanes];
    store_lanes(sum_d, run_d);
    store_lanes(sum_dx, run_dx);
    for (std::int64_t l = 0; l < kLanes; ++l) {
      c.d[first + l] += double{run_d[l]};
      c.dx[first + l] += double{run_dx[l]};
    }
  }
}

SFUMATO_EVERY_X86_64 void image_sums(const float* x, const float* dy, float* kept,
                                     const ImageNormBackward& norm, Channels& c) {
  for (std::int64_t first = 0; first < norm.channels; first += kLanes)
    sums_of_lanes<false>(x, dy, kept, norm, first, c);
}
SFUMATO_EVERY_X86_64 void image_sums_silu(const float* x, const float* dy, float* kept,
                                          const ImageNormBackward& norm, Channels& c) {
  for (std::int64_t first = 0; first < norm.channels; first += kLanes)
    sums_of_lanes<true>(x, dy, kept, norm, first, c);
}

/// dx = weight d + slope (x - mean) + level; d may be dx.
SFUMATO_EVERY_X86_64 void scale_image(const float* x, const float* d, const ImageNormBackward& norm,
                                      const Channels& c, float* dx) {
  for (std::int64_t first = 0; first < norm.channels; first += kLanes) {
    Lanes mean, weight, slope, level, offset, lanes;
    load_lanes(c.mean.data() + first, mean);
    load_lanes(c.weight.data() + first, weight);
    load_lanes(c.slope.data() + first, slope);
    load_lanes(c.level.data() + first, level);
    for (std::int64_t s = 0; s < norm.positions; ++s) {
      const std::int64_t place = s * norm.channels + first;
      load_lanes(x + place, offset);
      load_lanes(d + place, lanes);
      store_lanes(weight * lanes + (slope * (offset - mean) + level), dx + place);
    }
  }
}

void backward_of_image(const ImageNormBackward& norm, std::int64_t n, Channels& c) {
  const std::int64_t channels = norm.channels, per_group = channels / norm.groups;
  const std::int64_t offset = n * norm.positions * channels;
  const bool silu = norm.activation == FusedActivation::kSilu;
  for (std::int64_t i = 0; i < channels; ++i) {
    const std::int64_t group = n * norm.groups + i / per_group;
    c.mean[i] = norm.mean[group];
    c.weight[i] = norm.rstd[group] * norm.gamma[i];
    c.beta[i] = silu ? norm.beta[i] : 0;
    c.d[i] = c.dx[i] = 0;
  }
  const float *x = norm.x + offset, *dy = norm.dy + offset;
  float* dx = norm.dx == nullptr ? nullptr : norm.dx + offset;
  (silu ? image_sums_silu : image_sums)(x, dy, dx, norm, c);
  const double count = static_cast<double>(per_group) * static_cast<double>(norm.positions);
  for (std::int64_t g = 0; g < norm.groups; ++g) {
    const double r = double{norm.rstd[n * norm.groups + g]};
    double sum_beta = 0, sum_gamma = 0;
    for (std::int64_t i = g * per_group; i < (g + 1) * per_group; ++i) {
      if (norm.dgamma != nullptr) {
        norm.dgamma[n * channels + i] = static_cast<float>(r * c.dx[i]);
        norm.dbeta[n * channels + i] = static_cast<float>(c.d[i]);
      }
      sum_beta += c.d[i] * double{norm.gamma[i]};
      sum_gamma += r * c.dx[i] * double{norm.gamma[i]};
    }
    for (std::int64_t i = g * per_group; i < (g + 1) * per_group; ++i) {
      c.slope[i] = static_cast<float>(-r * r * sum_gamma / count);
      c.level[i] = static_cast<float>(-r * sum_beta / count);
    }
  }
  if (dx != nullptr) scale_image(x, silu ? dx : dy, norm, c, dx);
}

}  // namespace

void image_norm_backward_cpu(const ImageNormBackward& norm, std::int64_t begin, std::int64_t end) {
  Channels channels(static_cast<std::size_t>(norm.channels));
  for (std::int64_t n = begin; n < end; ++n) backward_of_image(norm, n, channels);
}

}  // namespace sfumato
