#pragma once
// float32 and bfloat16 elements, read and written by one spelling. bfloat16 is its 16 bits; the
// rounding is that of kernels/element.h on every machine (nearest, ties to even).
#include <cstdint>
#include <cstring>

#include "kernels/device/macros.cuh"

namespace sfumato::device {

SFUMATO_DEVICE float float_of_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
SFUMATO_DEVICE std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

SFUMATO_DEVICE std::uint16_t bfloat16_of(float value) {
  const std::uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// Two neighbours in memory, the first in the low half.
SFUMATO_DEVICE std::uint32_t bfloat16_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  std::uint32_t pair;  // one instruction; a NaN stays one, without its payload
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return bfloat16_of(first) | static_cast<std::uint32_t>(bfloat16_of(second)) << 16;
#endif
}

SFUMATO_DEVICE float load_as_float(const float* place) { return *place; }
SFUMATO_DEVICE float load_as_float(const std::uint16_t* place) {
  return float_of_bits(static_cast<std::uint32_t>(*place) << 16);
}

/// Stores `value` and returns it as stored: norms are taken of what is added up later.
SFUMATO_DEVICE float store_rounded(float* place, float value) {
  *place = value;
  return value;
}
SFUMATO_DEVICE float store_rounded(std::uint16_t* place, float value) {
  *place = bfloat16_of(value);
  return load_as_float(place);
}

}  // namespace sfumato::device
