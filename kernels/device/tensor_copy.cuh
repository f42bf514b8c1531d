#pragma once
// Copies of boxes of a tensor from device to shared memory by the tensor memory accelerator (PTX
// ISA 9.7.9.25.5, 5.5), sm_90. One thread starts a copy of a whole box; outside of the tensor it
// reads zeros. Its bytes, those zeros included, count at an mbarrier. The target is 128-byte
// aligned; the map (device/tensor_map.h) is a __grid_constant__ argument of the kernel.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/mbarrier.cuh"

namespace sfumato::device {

/// The box of a tiled map of rank 3 whose first element is at (c0, c1, c2), innermost first.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, std::uint64_t* barrier,
                                         int c0, int c1, int c2) {
#if defined(SFUMATO_EMULATION)
  emulation::tensor_copy({to, &map, barrier, 3, {c0, c1, c2}, false, {}});
#else
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
#endif
}

/// A column of an im2col map of rank 4: channels from `channel` on of consecutive positions of the
/// filter, the first of them with its base at pixel (x, y) of `image`, each read (tap_x, tap_y)
/// pixels further on.
__device__ __forceinline__ void copy_im2col(void* to, const CUtensorMap& map,
                                            std::uint64_t* barrier, int channel, int x, int y,
                                            int image, int tap_x, int tap_y) {
  const auto offset_x = static_cast<std::uint16_t>(tap_x);
  const auto offset_y = static_cast<std::uint16_t>(tap_y);
#if defined(SFUMATO_EMULATION)
  emulation::tensor_copy(
      {to, &map, barrier, 4, {channel, x, y, image}, true, {offset_x, offset_y}});
#else
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};\n" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(channel), "r"(x), "r"(y), "r"(image),
      "h"(offset_x), "h"(offset_y)
      : "memory");
#endif
}

/// The map is wanted soon.
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
#if !defined(SFUMATO_EMULATION)
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
#else
  (void)map;
#endif
}

}  // namespace sfumato::device
