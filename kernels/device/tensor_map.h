#pragma once
// Tensor maps for device/tensor_copy.cuh, of bfloat16, swizzled by 128 bytes. Host code: the
// driver encodes them, found through the runtime, so that nothing links libcuda.
#include <cuda.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>

namespace sfumato::device {

/// A function of the driver since CUDA 12.0; null where it has none.
template <class Function>
Function* driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result) !=
          cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return reinterpret_cast<Function*>(found);
}

/// Boxes of `box` elements, of a dense tensor of `sizes`, innermost first. False where the driver
/// refuses.
inline bool encode_tiled(CUtensorMap& map, const void* tensor,
                         const std::array<std::int64_t, 3>& sizes,
                         const std::array<std::uint32_t, 3>& box) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return false;
  const cuuint64_t extents[] = {static_cast<cuuint64_t>(sizes[0]),
                                static_cast<cuuint64_t>(sizes[1]),
                                static_cast<cuuint64_t>(sizes[2])};
  const cuuint64_t strides[] = {extents[0] * 2, extents[0] * extents[1] * 2};
  const cuuint32_t steps[] = {1, 1, 1};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(tensor), extents,
                strides, box.data(), steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/// Columns of `pixels` positions of a filter over images [N, H, W, C] (`sizes`: C, W, H, N), and
/// `channels` of each. Positions lie `steps` (W, H) pixels apart, in the box from `lower` to the
/// last pixel plus `upper`, in both directions alike: in which order the two are to be given, the
/// driver's documentation and its users say differently. False where the driver refuses.
inline bool encode_im2col(CUtensorMap& map, const void* images,
                          const std::array<std::int64_t, 4>& sizes, int lower, int upper,
                          const std::array<std::int64_t, 2>& steps, std::uint32_t channels,
                          std::uint32_t pixels) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  if (encode == nullptr) return false;
  cuuint64_t extents[4], strides[3];
  for (std::size_t i = 0; i < 4; ++i) extents[i] = static_cast<cuuint64_t>(sizes[i]);
  strides[0] = extents[0] * 2;
  strides[1] = strides[0] * extents[1];
  strides[2] = strides[1] * extents[2];
  const int lower_corner[] = {lower, lower}, upper_corner[] = {upper, upper};
  const cuuint32_t traversal[] = {1, static_cast<cuuint32_t>(steps[0]),
                                  static_cast<cuuint32_t>(steps[1]), 1};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(images), extents,
                strides, lower_corner, upper_corner, channels, pixels, traversal,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace sfumato::device
