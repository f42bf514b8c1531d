#include "kernels/group_norm_backward.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/element_access.h"
#include "kernels/every_x86_64.h"
#include "kernels/lane_math.h"

namespace sfumato {
namespace {

constexpr std::int64_t kRun = 64 * kLanes;

#define SFUMATO_INLINE inline __attribute__((always_inline))

/// Sums of d and d (x - mean).
struct Sums {
  double d = 0, dx = 0;
};

/// A group of one sample: its first channel's x, dy and dx (or null), gamma and beta.
struct Group {
  const float *x, *dy;
  float* dx;
  const float *gamma, *beta;
  float mean, rstd;
  std::int64_t per_group, positions;

  float weight(std::int64_t c) const { return rstd * gamma[c]; }
};

/// Sums over one channel: float lanes over short runs, double across runs. With SiLU, d is kept in
/// dx where there is one, for the second pass.
template <bool kSilu>
SFUMATO_INLINE Sums channel_sums(const Group& g, std::int64_t c) {
  const float *x = g.x + c * g.positions, *dy = g.dy + c * g.positions;
  float* kept = g.dx == nullptr ? nullptr : g.dx + c * g.positions;
  const float mean = g.mean, weight = kSilu ? g.weight(c) : 0, beta = kSilu ? g.beta[c] : 0;
  Sums sums;
  for (std::int64_t start = 0; start < g.positions; start += kRun) {
    const std::int64_t stop = std::min(start + kRun, g.positions);
    const std::int64_t whole = start + (stop - start) / kLanes * kLanes;
    Lanes a = {}, b = {}, d, offset;
    for (std::int64_t s = start; s < whole; s += kLanes) {
      load_lanes(x + s, offset);
      offset -= mean;
      if constexpr (kSilu) {
        float through[kLanes];
        for (std::int64_t l = 0; l < kLanes; ++l)
          through[l] = through_silu(dy[s + l], (x[s + l] - mean) * weight + beta);
        load_lanes(through, d);
        if (kept != nullptr) std::memcpy(kept + s, through, sizeof through);
      } else {
        load_lanes(dy + s, d);
      }
      a += d;
      b += d * offset;
    }
    double run_d = lane_sum(a), run_dx = lane_sum(b);
    for (std::int64_t s = whole; s < stop; ++s) {
      const float rest = x[s] - mean;
      const float through = kSilu ? through_silu(dy[s], rest * weight + beta) : dy[s];
      run_d += double{through};
      run_dx += double{through} * double{rest};
      if (kSilu && kept != nullptr) kept[s] = through;
    }
    sums.d += run_d;
    sums.dx += run_dx;
  }
  return sums;
}

/// First pass: the sums of each channel of a group.
SFUMATO_EVERY_X86_64 void group_sums(const Group& g, Sums* sums) {
  for (std::int64_t c = 0; c < g.per_group; ++c) sums[c] = channel_sums<false>(g, c);
}
SFUMATO_EVERY_X86_64 void group_sums_silu(const Group& g, Sums* sums) {
  for (std::int64_t c = 0; c < g.per_group; ++c) sums[c] = channel_sums<true>(g, c);
}

/// Second pass: dx = weight d + slope (x - mean) + level; d may be dx.
SFUMATO_EVERY_X86_64 void scale_group(const Group& g, const float* d, float slope, float level) {
  for (std::int64_t c = 0; c < g.per_group; ++c) {
    const float weight = g.weight(c), mean = g.mean;
    const float *x = g.x + c * g.positions, *dc = d + c * g.positions;
    float* dx = g.dx + c * g.positions;
    for (std::int64_t s = 0; s < g.positions; ++s)
      dx[s] = weight * dc[s] + (slope * (x[s] - mean) + level);
  }
}

}  // namespace

void group_norm_backward_float_cpu(const float* x, const float* dy, const float* mean,
                                   const float* rstd, const float* gamma, const float* beta,
                                   std::int64_t begin, std::int64_t end, std::int64_t channels,
                                   std::int64_t groups, std::int64_t positions,
                                   FusedActivation activation, float* dx, float* dgamma,
                                   float* dbeta) {
  const std::int64_t per_group = channels / groups;
  const bool silu = activation == FusedActivation::kSilu;
  const double count = static_cast<double>(per_group) * static_cast<double>(positions);
  std::vector<Sums> sums(static_cast<std::size_t>(per_group));
  for (std::int64_t index = begin * groups; index < end * groups; ++index) {
    const std::int64_t first = index % groups * per_group, row = index * per_group;
    const std::int64_t offset = row * positions;
    const Group group{x + offset,
                      dy + offset,
                      dx == nullptr ? nullptr : dx + offset,
                      gamma + first,
                      silu ? beta + first : nullptr,
                      mean[index],
                      rstd[index],
                      per_group,
                      positions};
    (silu ? group_sums_silu : group_sums)(group, sums.data());
    const double r = double{rstd[index]};
    double sum_beta = 0, sum_gamma = 0;
    for (std::int64_t c = 0; c < per_group; ++c) {
      const Sums& sum = sums[static_cast<std::size_t>(c)];
      if (dgamma != nullptr) {
        dgamma[row + c] = static_cast<float>(r * sum.dx);
        dbeta[row + c] = static_cast<float>(sum.d);
      }
      sum_beta += sum.d * double{group.gamma[c]};
      sum_gamma += r * sum.dx * double{group.gamma[c]};
    }
    if (dx != nullptr)
      scale_group(group, silu ? group.dx : group.dy, static_cast<float>(-r * r * sum_gamma / count),
                  static_cast<float>(-r * sum_beta / count));
  }
}

std::int64_t group_norm_backward_workspace_bytes(const GroupNormShape& shape) {
  const GroupNormPlan plan = group_norm_plan(shape, 2);
  return 8 * shape.samples * (plan.splits * shape.channels + (plan.resident ? 0 : shape.groups));
}

namespace {

/// What the twin reads, in float64.
struct Reader {
  const void *x, *dy;
  const float *mean, *rstd, *gamma, *beta;
  const GroupNormShape& shape;

  /// visit(place, xhat, d) of the elements of one channel of a sample.
  template <class Visit>
  void channel(std::int64_t n, std::int64_t c, const Visit& visit) const {
    const std::int64_t group = n * shape.groups + c / shape.per_group();
    for (std::int64_t s = 0; s < shape.positions; ++s) {
      const std::int64_t place = shape.layout == Layout::kChannelsLast
                                     ? (n * shape.positions + s) * shape.channels + c
                                     : (n * shape.channels + c) * shape.positions + s;
      const double xhat =
          (double{element_at(x, shape.element, place)} - double{mean[group]}) * double{rstd[group]};
      double d = double{element_at(dy, shape.element, place)};
      if (shape.activation == FusedActivation::kSilu) {
        const double z = xhat * double{gamma[c]} + double{beta[c]};
        const double sigmoid = 1 / (1 + std::exp(-z));
        d *= sigmoid * (1 + z * (1 - sigmoid));
      }
      visit(place, xhat, d);
    }
  }
};

}  // namespace

void group_norm_backward_cpu(const void* x, const void* dy, const float* mean, const float* rstd,
                             const float* gamma, const float* beta, const GroupNormShape& shape,
                             void* dx, float* dgamma, float* dbeta) {
  const Reader read{x, dy, mean, rstd, gamma, beta, shape};
  for (std::int64_t i = 0; dgamma != nullptr && i < shape.examples(); ++i)
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      double sum = 0, sum_xhat = 0;
      for (std::int64_t n = i * shape.draws; n < (i + 1) * shape.draws; ++n)
        read.channel(n, c, [&](std::int64_t, double xhat, double d) {
          sum += d;
          sum_xhat += d * xhat;
        });
      dbeta[i * shape.channels + c] = static_cast<float>(sum);
      dgamma[i * shape.channels + c] = static_cast<float>(sum_xhat);
    }
  const std::int64_t per_group = shape.per_group();
  const double count = static_cast<double>(per_group * shape.positions);
  for (std::int64_t group = 0; dx != nullptr && group < shape.samples * shape.groups; ++group) {
    const std::int64_t n = group / shape.groups, first = group % shape.groups * per_group;
    double sum = 0, sum_xhat = 0;
    for (std::int64_t c = first; c < first + per_group; ++c)
      read.channel(n, c, [&](std::int64_t, double xhat, double d) {
        sum += d * double{gamma[c]};
        sum_xhat += d * double{gamma[c]} * xhat;
      });
    for (std::int64_t c = first; c < first + per_group; ++c)
      read.channel(n, c, [&](std::int64_t place, double xhat, double d) {
        set_element(dx, shape.element, place,
                    static_cast<float>(double{rstd[group]} *
                                       (d * double{gamma[c]} - (sum + xhat * sum_xhat) / count)));
      });
  }
}

}  // namespace sfumato
