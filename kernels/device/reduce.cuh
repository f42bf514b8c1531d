#pragma once
// Sums over a warp and over a block in an order that depends on nothing but the number of threads:
// the same values give the same bits on every device. For float and double (and integers).
#include <cuda_runtime.h>

#include "kernels/device/launch.cuh"

namespace sfumato::device {

inline constexpr unsigned kWholeWarp = 0xffffffffu;

/// The sum over the warp's 32 lanes, in every lane the same bits: a butterfly, whose additions have
/// the same operands on both sides. All 32 lanes must take part.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  SFUMATO_UNROLL
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
    value += __shfl_xor_sync(kWholeWarp, value, lanes);
  return value;
}

/// A team: the first threads of a block, a whole number of warps (up to 32), that wait for each
/// other. This one is all of them.
struct WholeBlock {
  static __device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }
  static __device__ __forceinline__ void meet() { __syncthreads(); }
};

/// The sum over a team, in every thread of it the same bits. Every one takes part. `shared` is room
/// for 32 values of T in shared memory, free to be used again (by anything) once the call returns:
/// two barriers. Order: each warp's butterfly, then a butterfly over the warps' sums.
template <class Team, class T>
__device__ __forceinline__ T team_sum(T value, T* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  value = warp_sum(value);
  if (lane == 0) shared[warp] = value;
  Team::meet();
  value = warp_sum(lane < Team::threads() / kWarp ? shared[lane] : T{0});
  Team::meet();
  return value;
}

/// team_sum over the block.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  return team_sum<WholeBlock>(value, shared);
}

}  // namespace sfumato::device
