#pragma once
// Functions that the compiler vectorises inside loops of the CPU kernels (std::exp it does not):
// no branches, no tables, no library calls.
#include <bit>
#include <cstdint>
#include <cstring>

namespace sfumato {

/// 16 floats in as many registers as the machine needs for them; what multiplies them by a number
/// takes the width of a register (SFUMATO_X86_64_V3).
inline constexpr std::int64_t kLanes = 16;
using Lanes = float __attribute__((vector_size(64)));
using HalfLanes = float __attribute__((vector_size(32)));
using QuarterLanes = float __attribute__((vector_size(16)));

template <typename Vector>
inline __attribute__((always_inline)) void load_lanes(const float* from, Vector& lanes) {
  std::memcpy(&lanes, from, sizeof lanes);
}

template <typename Vector>
inline __attribute__((always_inline)) void store_lanes(const Vector& lanes, float* to) {
  std::memcpy(to, &lanes, sizeof lanes);
}

/// The sum of the lanes, as a tree.
inline __attribute__((always_inline)) double lane_sum(const Lanes& lanes) {
  HalfLanes eight[2];
  std::memcpy(eight, &lanes, sizeof eight);
  eight[0] += eight[1];
  QuarterLanes four[2];
  std::memcpy(four, &eight[0], sizeof four);
  four[0] += four[1];
  return (double{four[0][0]} + double{four[0][2]}) + (double{four[0][1]} + double{four[0][3]});
}

/// exp(x), within 1 ulp or so in the normal range; from about 88.3 on it stays at 2.3e38, below
/// about -87.3 at 1.2e-38 (never 0, never infinite). NaN gives NaN.
/// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2: polynomial of the Cephes library's
/// expf (S. Moshier).
inline __attribute__((always_inline)) float lane_exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x > 88.37f ? 88.37f : x;
  x = x < -87.33f ? -87.33f : x;
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const std::uint32_t exponent =
      std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127u) << 23);
}

/// 1 / (1 + exp(-x)).
inline __attribute__((always_inline)) float lane_sigmoid(float x) {
  return 1.0f / (1.0f + lane_exp(-x));
}

/// dy silu'(z), silu(z) = z lane_sigmoid(z).
inline __attribute__((always_inline)) float through_silu(float dy, float z) {
  const float sigmoid = lane_sigmoid(z);
  return dy * (sigmoid * (1.0f + z * (1.0f - sigmoid)));
}

}  // namespace sfumato
