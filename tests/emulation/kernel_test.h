#pragma once
// What tests of kernels share: schedules, random tensors, comparisons that name the place.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "emulation/device_buffer.h"
#include "emulation/emulator.h"
#include "kernels/element.h"

/// `status` is what a launcher returned.
#define EXPECT_LAUNCHED(status) EXPECT_EQ((status), 0) << ::sfumato::emulation::last_error()
#define ASSERT_LAUNCHED(status) ASSERT_EQ((status), 0) << ::sfumato::emulation::last_error()

namespace sfumato::emulation {

inline constexpr std::uint64_t kSchedules = 3;  // in order, reversed, drawn at every switch

/// Calls f(seed) under `schedules` schedules of the emulator, then goes back to the first.
template <class F>
void for_each_schedule(F f, std::uint64_t schedules = kSchedules) {
  for (std::uint64_t seed = 0; seed < schedules; ++seed) {
    SCOPED_TRACE("schedule " + std::to_string(seed));
    set_schedule(seed);
    f(seed);
  }
  set_schedule(0);
}

/// `count` draws of N(0, scale^2).
inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed,
                                        float scale = 1.0f) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

inline std::vector<std::uint16_t> to_bfloat16(const std::vector<float>& values) {
  std::vector<std::uint16_t> rounded;
  rounded.reserve(values.size());
  for (const float value : values) rounded.push_back(sfumato::to_bfloat16(value));
  return rounded;
}
inline std::vector<float> from_bfloat16(const std::vector<std::uint16_t>& values) {
  std::vector<float> wide;
  wide.reserve(values.size());
  for (const std::uint16_t value : values) wide.push_back(sfumato::from_bfloat16(value));
  return wide;
}

/// Device bytes of `values` as `element`: what launchers take as const void*.
inline DeviceBuffer<unsigned char> device_elements(const std::vector<float>& values,
                                                   Element element) {
  const auto count = static_cast<std::int64_t>(values.size());
  DeviceBuffer<unsigned char> buffer(count * element_size(element));
  if (count == 0) return buffer;
  if (element == Element::kFloat32) {
    std::memcpy(buffer.data(), values.data(), values.size() * sizeof(float));
  } else {
    const std::vector<std::uint16_t> rounded = to_bfloat16(values);
    std::memcpy(buffer.data(), rounded.data(), rounded.size() * sizeof(std::uint16_t));
  }
  return buffer;
}

/// The elements of such bytes as floats.
inline std::vector<float> host_floats(const DeviceBuffer<unsigned char>& buffer, Element element) {
  const auto count = static_cast<std::size_t>(buffer.size() / element_size(element));
  if (element == Element::kFloat32) {
    std::vector<float> values(count);
    if (count > 0) std::memcpy(values.data(), buffer.data(), count * sizeof(float));
    return values;
  }
  std::vector<std::uint16_t> rounded(count);
  if (count > 0) std::memcpy(rounded.data(), buffer.data(), count * sizeof(std::uint16_t));
  return from_bfloat16(rounded);
}

/// |actual - expected| <= absolute + relative |expected| everywhere, and NaN where NaN is expected.
/// Names the first place where it is not so, and how many there are.
template <class A, class E>
testing::AssertionResult all_near(const A& actual, const E& expected, double relative,
                                  double absolute) {
  if (std::size(actual) != std::size(expected))
    return testing::AssertionFailure()
           << std::size(actual) << " elements, expected " << std::size(expected);
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = 0; i < std::size(actual); ++i) {
    const auto a = static_cast<double>(std::data(actual)[i]);
    const auto e = static_cast<double>(std::data(expected)[i]);
    const bool same = a == e || (std::isnan(a) && std::isnan(e)) ||
                      std::abs(a - e) <= absolute + relative * std::abs(e);
    if (!same && wrong++ == 0) first = i;
  }
  if (wrong == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << wrong << " of " << std::size(actual) << " differ, the first at " << first << ": "
         << +std::data(actual)[first] << ", expected " << +std::data(expected)[first];
}

/// The same bytes everywhere (so NaN equals NaN, and 0 is not -0).
template <class A, class E>
testing::AssertionResult all_same_bits(const A& actual, const E& expected) {
  static_assert(std::is_same_v<std::decay_t<decltype(*std::data(actual))>,
                               std::decay_t<decltype(*std::data(expected))>>);
  if (std::size(actual) != std::size(expected))
    return testing::AssertionFailure()
           << std::size(actual) << " elements, expected " << std::size(expected);
  for (std::size_t i = 0; i < std::size(actual); ++i) {
    const auto& a = std::data(actual)[i];
    const auto& e = std::data(expected)[i];
    if (std::memcmp(&a, &e, sizeof a) != 0)
      return testing::AssertionFailure()
             << "first difference at " << i << ": " << +a << ", expected " << +e;
  }
  return testing::AssertionSuccess();
}

}  // namespace sfumato::emulation
