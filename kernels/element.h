#pragma once
#include <bit>
#include <cstdint>

namespace sfumato {

/// What the elements of a tensor are. bfloat16 travels as its 16 bits (std::uint16_t).
enum class Element : std::int32_t { kFloat32, kBfloat16 };

constexpr std::int64_t element_size(Element element) {
  return element == Element::kFloat32 ? 4 : 2;
}

/// The nearest bfloat16, ties to even; NaN stays NaN.
constexpr std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
constexpr float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace sfumato
