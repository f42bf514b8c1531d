#include "kernels/group_norm_forward.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/element_access.h"
#include "kernels/every_x86_64.h"
#include "kernels/lane_math.h"

namespace sfumato {
namespace {

constexpr std::int64_t kRun = 64 * kLanes;

struct Moments {
  double count = 0, mean = 0, squares = 0;
};

/// Chan, Golub and LeVeque (1983), formula (2.1).
void merge(Moments& to, const Moments& from) {
  const double count = to.count + from.count, difference = from.mean - to.mean;
  to.mean += difference * from.count / count;
  to.squares += from.squares + difference * difference * to.count * from.count / count;
  to.count = count;
}

/// The moments of consecutive values: of each run the mean first, then the squared differences from
/// it, while the run is in the first-level cache.
SFUMATO_EVERY_X86_64 Moments moments(const float* x, std::int64_t size) {
  Moments all;
  for (std::int64_t start = 0; start < size; start += kRun) {
    const std::int64_t length = std::min(kRun, size - start), whole = length / kLanes * kLanes;
    const float* run = x + start;
    // Differences from the run's first value: a large mean costs no digits.
    const float shift = run[0];
    Lanes lanes = {}, d;
    for (std::int64_t s = 0; s < whole; s += kLanes) {
      load_lanes(run + s, d);
      lanes += d - shift;
    }
    double sum = lane_sum(lanes);
    for (std::int64_t s = whole; s < length; ++s) sum += double{run[s] - shift};
    const double count = static_cast<double>(length), offset = sum / count;
    const float center = static_cast<float>(double{shift} + offset);
    Lanes squares = {};
    for (std::int64_t s = 0; s < whole; s += kLanes) {
      load_lanes(run + s, d);
      d -= center;
      squares += d * d;
    }
    double square_sum = lane_sum(squares);
    for (std::int64_t s = whole; s < length; ++s) {
      const double rest = double{run[s]} - double{center};
      square_sum += rest * rest;
    }
    // What rounding the center to float32 added.
    const double rounding = double{shift} + offset - double{center};
    const double total = square_sum - count * rounding * rounding;
    merge(all, {count, double{shift} + offset, total < 0 ? 0 : total});  // keeps NaN
  }
  return all;
}

/// A group of one sample.
struct Group {
  const float* x;
  float* y;
  const float *gamma, *beta;
  float mean, rstd;
  std::int64_t per_group, positions;
};

template <bool kSilu>
inline __attribute__((always_inline)) void apply_channels(const Group& g) {
  for (std::int64_t c = 0; c < g.per_group; ++c) {
    const float mean = g.mean, weight = g.rstd * g.gamma[c], offset = g.beta[c];
    const float* x = g.x + c * g.positions;
    float* y = g.y + c * g.positions;
    for (std::int64_t s = 0; s < g.positions; ++s) {
      const float z = (x[s] - mean) * weight + offset;
      y[s] = kSilu ? z * lane_sigmoid(z) : z;
    }
  }
}

SFUMATO_EVERY_X86_64 void apply(const Group& g) { apply_channels<false>(g); }
SFUMATO_EVERY_X86_64 void apply_silu(const Group& g) { apply_channels<true>(g); }

}  // namespace

void group_norm_forward_float_cpu(const float* x, const float* gamma, const float* beta, double eps,
                                  std::int64_t begin, std::int64_t end, std::int64_t channels,
                                  std::int64_t groups, std::int64_t positions,
                                  FusedActivation activation, float* y, float* mean, float* rstd) {
  const std::int64_t per_group = channels / groups;
  for (std::int64_t group = begin * groups; group < end * groups; ++group) {
    const std::int64_t first = group % groups * per_group, offset = group * per_group * positions;
    const Moments m = moments(x + offset, per_group * positions);
    mean[group] = static_cast<float>(m.mean);
    rstd[group] = static_cast<float>(1 / std::sqrt(m.squares / m.count + eps));
    (activation == FusedActivation::kSilu ? apply_silu : apply)(
        {x + offset, y + offset, gamma + first, beta + first, mean[group], rstd[group], per_group,
         positions});
  }
}

std::int64_t group_norm_forward_workspace_bytes(const GroupNormShape& shape) {
  const GroupNormPlan plan = group_norm_plan(shape, 1);
  return plan.resident ? 0 : 8 * shape.samples * plan.splits * shape.channels;
}

void group_norm_forward_cpu(const void* x, const float* gamma, const float* beta, double eps,
                            const GroupNormShape& shape, void* y, float* mean, float* rstd) {
  const std::int64_t per_group = shape.per_group();
  const bool last = shape.layout == Layout::kChannelsLast;
  const double count = static_cast<double>(per_group * shape.positions);
  for (std::int64_t n = 0; n < shape.samples; ++n)
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      const auto each = [&](const auto& visit) {
        for (std::int64_t c = g * per_group; c < (g + 1) * per_group; ++c)
          for (std::int64_t s = 0; s < shape.positions; ++s) {
            const std::int64_t place = last ? (n * shape.positions + s) * shape.channels + c
                                            : (n * shape.channels + c) * shape.positions + s;
            visit(c, place, double{element_at(x, shape.element, place)});
          }
      };
      double sum = 0, squares = 0;
      each([&](std::int64_t, std::int64_t, double value) { sum += value; });
      const double m = sum / count;
      each([&](std::int64_t, std::int64_t, double value) { squares += (value - m) * (value - m); });
      const double r = 1 / std::sqrt(squares / count + eps);
      mean[n * shape.groups + g] = static_cast<float>(m);
      rstd[n * shape.groups + g] = static_cast<float>(r);
      each([&](std::int64_t c, std::int64_t place, double value) {
        double z = (value - m) * r * double{gamma[c]} + double{beta[c]};
        if (shape.activation == FusedActivation::kSilu) z /= 1 + std::exp(-z);
        set_element(y, shape.element, place, static_cast<float>(z));
      });
    }
}

}  // namespace sfumato
