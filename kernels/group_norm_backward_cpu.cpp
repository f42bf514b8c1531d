#include "kernels/group_norm_backward.h"

namespace sfumato {
namespace {

constexpr int64_t kLanes = 16;

struct Sums {
  double dy = 0, dyx = 0;
};

/// Sums of dy and dy * x over one channel: float lanes over short runs, double across runs.
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
Sums channel_sums(const float* x, const float* dy, int64_t positions) {
  Sums sums;
  constexpr int64_t kRun = 64 * kLanes;
  for (int64_t start = 0; start < positions; start += kRun) {
    const int64_t stop = start + kRun < positions ? start + kRun : positions;
    const int64_t whole = start + (stop - start) / kLanes * kLanes;
    float a[kLanes] = {}, b[kLanes] = {};
    for (int64_t s = start; s < whole; s += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) {
        a[l] += dy[s + l];
        b[l] += dy[s + l] * x[s + l];
      }
    double run_dy = 0, run_dyx = 0;
    for (int64_t l = 0; l < kLanes; ++l) {
      run_dy += double{a[l]};
      run_dyx += double{b[l]};
    }
    for (int64_t s = whole; s < stop; ++s) {
      run_dy += double{dy[s]};
      run_dyx += double{dy[s]} * double{x[s]};
    }
    sums.dy += run_dy;
    sums.dyx += run_dyx;
  }
  return sums;
}

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
void scale_channel(const float* x, const float* dy, float a, float b, float c, int64_t positions,
                   float* dx) {
  for (int64_t s = 0; s < positions; ++s) dx[s] = a * dy[s] + b * x[s] + c;
}

}  // namespace

void group_norm_backward_cpu(const float* x, const float* dy, const float* mean, const float* rstd,
                             const float* gamma, int64_t begin, int64_t end, int64_t channels,
                             int64_t groups, int64_t positions, float* dx, float* dgamma,
                             float* dbeta) {
  const int64_t per_group = channels / groups;
  const double count = static_cast<double>(per_group) * static_cast<double>(positions);
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      const double m = mean[n * groups + g], r = rstd[n * groups + g];
      double sum_beta = 0, sum_gamma = 0;
      for (int64_t c = g * per_group; c < (g + 1) * per_group; ++c) {
        const int64_t offset = (n * channels + c) * positions;
        const Sums sums = channel_sums(x + offset, dy + offset, positions);
        const double channel_dgamma = r * (sums.dyx - m * sums.dy);
        if (dgamma != nullptr) {
          dgamma[n * channels + c] = static_cast<float>(channel_dgamma);
          dbeta[n * channels + c] = static_cast<float>(sums.dy);
        }
        sum_beta += sums.dy * double{gamma[c]};
        sum_gamma += channel_dgamma * double{gamma[c]};
      }
      if (dx == nullptr) continue;
      // dx = r gamma dy - r/M sum_beta - r^2/M (x - m) sum_gamma, as a dy + b x + c.
      const double b = -r * r * sum_gamma / count;
      const double c0 = -r * sum_beta / count - b * m;
      for (int64_t c = g * per_group; c < (g + 1) * per_group; ++c) {
        const int64_t offset = (n * channels + c) * positions;
        scale_channel(x + offset, dy + offset, static_cast<float>(r * double{gamma[c]}),
                      static_cast<float>(b), static_cast<float>(c0), positions, dx + offset);
      }
    }
  }
}

}  // namespace sfumato
