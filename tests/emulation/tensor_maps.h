#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace sfumato::emulation {

/// What a CUtensorMap of bfloat16 says, decoded.
struct TensorMap {
  bool im2col = false, swizzled = false;
  int rank = 0;
  const std::uint16_t* address = nullptr;
  std::array<std::int64_t, 5> sizes{1, 1, 1, 1, 1};  // innermost first
  std::array<std::int64_t, 5> strides{2};            // bytes
  std::array<std::int64_t, 5> box{1, 1, 1, 1, 1};    // im2col: channels, pixels
  std::array<std::int64_t, 5> steps{1, 1, 1, 1, 1};  // of pixels, im2col
  std::array<std::int64_t, 3> lower{}, upper{};      // corners, W first

  /// Of 128 bytes that cuTensorMapEncode... wrote; false if it did not.
  static bool read(const void* map, TensorMap& to);
  std::int64_t box_elements() const;

  /// Elements of the box at these coordinates, innermost first; zero outside of the tensor. im2col
  /// (PTX ISA 5.5.4): pixels from (W, H, ...) through the bounding box, moved by the offsets, from
  /// image to image. `problem` says what the hardware does not allow.
  std::vector<std::uint16_t> elements(const std::array<std::int32_t, 5>& at,
                                      const std::array<std::uint16_t, 3>& offsets) const;
  std::string problem(int rank_of_copy, const std::array<std::int32_t, 5>& at, bool as_im2col,
                      const std::array<std::uint16_t, 3>& offsets) const;

 private:
  std::uint16_t element(const std::array<std::int64_t, 5>& at) const;
};

}  // namespace sfumato::emulation
