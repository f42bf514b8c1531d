#pragma once
// One group normalisation for tests: its inputs, what the twins make of them, and the launches.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "emulation/device_buffer.h"
#include "emulation/draws.h"
#include "emulation/kernel_test.h"
#include "kernels/group_norm_backward.h"
#include "kernels/group_norm_forward.h"

namespace sfumato::emulation {

struct GroupNormForward {
  std::vector<float> y, mean, rstd;
};
struct GroupNormBackward {
  std::vector<float> dx, dgamma, dbeta;
};

struct GroupNormCase {
  static constexpr double kEps = 1e-5;
  GroupNormShape shape;
  std::vector<float> x, dy, gamma, beta;  // x and dy as stored

  GroupNormCase(const GroupNormShape& s, std::uint64_t seed, float mean = 0.5f)
      : shape(s),
        x(random_floats(count(), seed)),
        dy(as_stored(random_floats(count(), seed + 1), s.element)),
        gamma(random_floats(s.channels, seed + 2)),
        beta(random_floats(s.channels, seed + 3)) {
    for (float& value : x) value += mean;
    x = as_stored(x, s.element);
  }

  std::int64_t count() const { return shape.samples * shape.channels * shape.positions; }
  std::int64_t statistics() const { return shape.samples * shape.groups; }
  std::int64_t parameters() const { return shape.examples() * shape.channels; }
  std::int64_t place(std::int64_t n, std::int64_t c, std::int64_t s) const {
    return shape.layout == Layout::kChannelsLast ? (n * shape.positions + s) * shape.channels + c
                                                 : (n * shape.channels + c) * shape.positions + s;
  }

  GroupNormForward forward_twin() const {
    const auto input = device_elements(x, shape.element);
    DeviceBuffer<unsigned char> y(input.size());
    DeviceBuffer<float> mean(statistics()), rstd(statistics());
    group_norm_forward_cpu(input.data(), gamma.data(), beta.data(), kEps, shape, y.data(),
                           mean.data(), rstd.data());
    return {host_floats(y, shape.element), mean.to_vector(), rstd.to_vector()};
  }
  GroupNormForward forward() const {
    const auto input = device_elements(x, shape.element);
    DeviceBuffer<unsigned char> y(input.size());
    DeviceBuffer<unsigned char> workspace(group_norm_forward_workspace_bytes(shape));
    DeviceBuffer<float> mean(statistics()), rstd(statistics()), g(gamma), b(beta);
    EXPECT_LAUNCHED(launch_group_norm_forward(input.data(), g.data(), b.data(), kEps, shape,
                                              y.data(), mean.data(), rstd.data(), workspace.data(),
                                              nullptr));
    return {host_floats(y, shape.element), mean.to_vector(), rstd.to_vector()};
  }

  GroupNormBackward backward_twin(const GroupNormForward& f) const {
    const auto input = device_elements(x, shape.element),
               output = device_elements(dy, shape.element);
    DeviceBuffer<unsigned char> dx(input.size());
    DeviceBuffer<float> dgamma(parameters()), dbeta(parameters());
    group_norm_backward_cpu(input.data(), output.data(), f.mean.data(), f.rstd.data(), gamma.data(),
                            beta.data(), shape, dx.data(), dgamma.data(), dbeta.data());
    return {host_floats(dx, shape.element), dgamma.to_vector(), dbeta.to_vector()};
  }
  /// What is not wanted is null for the launcher, and empty here.
  GroupNormBackward backward(const GroupNormForward& f, bool want_dx = true,
                             bool want_parameters = true) const {
    const auto input = device_elements(x, shape.element),
               output = device_elements(dy, shape.element);
    DeviceBuffer<unsigned char> dx(want_dx ? input.size() : 0);
    DeviceBuffer<unsigned char> workspace(group_norm_backward_workspace_bytes(shape));
    const std::int64_t wanted = want_parameters ? parameters() : 0;
    DeviceBuffer<float> dgamma(wanted), dbeta(wanted), mean(f.mean), rstd(f.rstd), g(gamma),
        b(beta);
    EXPECT_LAUNCHED(launch_group_norm_backward(
        input.data(), output.data(), mean.data(), rstd.data(), g.data(), b.data(), shape,
        want_dx ? dx.data() : nullptr, want_parameters ? dgamma.data() : nullptr,
        want_parameters ? dbeta.data() : nullptr, workspace.data(), nullptr));
    return {host_floats(dx, shape.element), dgamma.to_vector(), dbeta.to_vector()};
  }
};

inline float largest(const std::vector<float>& values) {
  float most = 0;
  for (const float value : values) most = std::max(most, std::abs(value));
  return most;
}

/// Rounding of the elements of an output to bfloat16, and of float32 arithmetic.
inline double rounding(Element element) { return element == Element::kBfloat16 ? 8e-3 : 4e-6; }

}  // namespace sfumato::emulation
