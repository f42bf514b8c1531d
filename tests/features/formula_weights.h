#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "features/networks/network_weights.h"

namespace sfumato::test {

/// Numbers in [0, 1) by the name of their tensor and their place: weights that a program in another
/// language has too (tests/compare/feature_networks.py).
inline std::vector<double> hashed_numbers(std::string_view name, std::int64_t count) {
  std::uint32_t seed = 2166136261U;
  for (const char byte : name) seed = (seed ^ static_cast<unsigned char>(byte)) * 16777619U;
  std::vector<double> numbers;
  numbers.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t x = static_cast<std::uint32_t>(i) + seed;
    for (int round = 0; round < 2; ++round) x = (x ^ (x >> 16)) * 0x45d9f3bU;
    numbers.push_back(((x ^ (x >> 16)) >> 8) / 16777216.0);
  }
  return numbers;
}

inline at::Tensor formula_tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const std::int64_t count = tensor.numel();
  const double bound = std::sqrt(6.0 * static_cast<double>(shape[0]) / static_cast<double>(count));
  const bool scale = name.ends_with(".running_var") || name.ends_with(".weight");
  auto* out = tensor.mutable_data_ptr<float>();
  for (const double u : hashed_numbers(name, count))
    *out++ = static_cast<float>(shape.size() > 1 ? (u - 0.5) * 2 * bound
                                : scale          ? 0.75 + 0.5 * u
                                                 : (u - 0.5) * 0.2);
  return tensor;
}

inline NetworkWeights formula_weights() { return {formula_tensor, "formula", "of a formula"}; }

/// uint8 [2, 20, 24, channels]
inline at::Tensor formula_images(std::int64_t channels) {
  at::Tensor images = at::empty({2, 20, 24, channels}, at::kByte);
  auto* out = images.mutable_data_ptr<std::uint8_t>();
  for (const double u : hashed_numbers("images", images.numel()))
    *out++ = static_cast<std::uint8_t>(u * 256);
  return images;
}

}  // namespace sfumato::test
