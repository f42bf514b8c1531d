#pragma once
// What the group normalisation kernels share: which elements a thread has, sums over the rows of a
// block, and SiLU.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/group_norm_shape.h"

namespace sfumato::device {

/// One thread's packets: packet i starts at element start + i * step, and left(i) of its elements
/// are valid. Channels last: element v of every packet is of channel `channel` + v (of the tensor);
/// channels first: all are of `channel`.
struct GroupNormSlice {
  std::int64_t sample = 0, split = 0, channel = 0;
  std::int64_t block_channel = 0, block_channels = 0;  // channels last: those of the whole block
  std::int64_t start = 0, step = 0;
  std::int64_t first_left = 0, left_step = 0;
  int count = 0;

  __device__ __forceinline__ std::int64_t left(int i) const { return first_left - i * left_step; }
};

template <class T>
__device__ __forceinline__ GroupNormSlice channels_last_slice(const GroupNormShape& shape,
                                                              const GroupNormPlan& plan,
                                                              std::int64_t block) {
  constexpr int kSize = Packet<T>::kSize;
  const int lane = static_cast<int>(threadIdx.x) % plan.lanes;
  const int row = static_cast<int>(threadIdx.x) / plan.lanes;
  GroupNormSlice slice;
  slice.block_channel = block % plan.chunks * plan.width;
  slice.split = block / plan.chunks % plan.splits;
  slice.sample = block / plan.chunks / plan.splits;
  const std::int64_t rest = shape.channels - slice.block_channel;
  slice.block_channels = rest < plan.width ? rest : plan.width;
  slice.channel = slice.block_channel + lane * kSize;
  slice.first_left = slice.block_channels - lane * kSize;
  slice.step = plan.rows * shape.channels;
  const std::int64_t first = slice.split * plan.split_positions + row;
  std::int64_t end = (slice.split + 1) * plan.split_positions;
  if (end > shape.positions) end = shape.positions;
  slice.start = (slice.sample * shape.positions + first) * shape.channels + slice.channel;
  if (row < plan.rows && slice.first_left > 0 && first < end)
    slice.count = static_cast<int>((end - first + plan.rows - 1) / plan.rows);
  return slice;
}

/// Channels of a group.
__device__ __forceinline__ std::int64_t group_width(const GroupNormShape& shape) {
  return shape.channels / shape.groups;
}

/// Number of warps' worth of work, channels first.
__device__ __forceinline__ std::int64_t channels_first_units(const GroupNormShape& shape,
                                                             const GroupNormPlan& plan) {
  return shape.samples * shape.channels * plan.splits;
}

template <class T>
__device__ __forceinline__ GroupNormSlice channels_first_slice(const GroupNormShape& shape,
                                                               const GroupNormPlan& plan,
                                                               std::int64_t block) {
  constexpr int kSize = Packet<T>::kSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t unit =
      block * (GroupNormPlan::kThreads / kWarp) + static_cast<int>(threadIdx.x) / kWarp;
  GroupNormSlice slice;
  if (unit >= channels_first_units(shape, plan)) return slice;
  slice.split = unit % plan.splits;
  slice.channel = unit / plan.splits % shape.channels;
  slice.sample = unit / plan.splits / shape.channels;
  const std::int64_t first = slice.split * plan.split_positions + lane * kSize;
  std::int64_t end = (slice.split + 1) * plan.split_positions;
  if (end > shape.positions) end = shape.positions;
  slice.start = (slice.sample * shape.channels + slice.channel) * shape.positions + first;
  slice.step = slice.left_step = kWarp * kSize;
  slice.first_left = end - first;
  if (first < end) slice.count = static_cast<int>((end - first + slice.step - 1) / slice.step);
  return slice;
}

template <class T, bool kLast>
__device__ __forceinline__ GroupNormSlice group_norm_slice(const GroupNormShape& shape,
                                                           const GroupNormPlan& plan,
                                                           std::int64_t block) {
  if constexpr (kLast)
    return channels_last_slice<T>(shape, plan, block);
  else
    return channels_first_slice<T>(shape, plan, block);
}

/// Merges, for every column j < width, the values [r * width + j] of all rows r into [j], as a tree
/// over the rows: merge(to, from) by index. Every thread of the block calls it; a barrier at the
/// start and one at the end.
template <class Merge>
__device__ __forceinline__ void merge_rows(int rows, int width, const Merge& merge) {
  int half = 1;
  while (2 * half < rows) half *= 2;
  for (; half >= 1; half /= 2) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < half * width; i += static_cast<int>(blockDim.x))
      if (i + half * width < rows * width) merge(i, i + half * width);
  }
  __syncthreads();
}

/// 1 / (1 + exp(-x)); 0 where exp(-x) overflows.
__device__ __forceinline__ float sigmoid(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, 1.0f + __expf(-x));
#else
  return 1.0f / (1.0f + __expf(-x));
#endif
}

/// Blocks of a launch over a whole tensor.
inline std::int64_t group_norm_blocks(const GroupNormShape& shape, const GroupNormPlan& plan) {
  if (shape.layout == Layout::kChannelsLast) return shape.samples * plan.splits * plan.chunks;
  return group_norm_ceil(shape.samples * shape.channels * plan.splits,
                         GroupNormPlan::kThreads / kWarp);
}

/// Whether every row of packets of these two tensors starts at a multiple of 16 bytes.
inline bool group_norm_aligned(const GroupNormShape& shape, const void* a, const void* b) {
  const std::int64_t row = shape.layout == Layout::kChannelsLast ? shape.channels : shape.positions;
  const auto places = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b);
  return row * element_size(shape.element) % 16 == 0 && places % 16 == 0;
}

inline bool group_norm_valid(const GroupNormShape& shape) {
  return shape.samples >= 0 && shape.draws >= 1 && shape.samples % shape.draws == 0 &&
         shape.channels >= 1 && shape.groups >= 1 && shape.channels % shape.groups == 0 &&
         shape.positions >= 1;
}

/// Host: run(element, aligned, last) with a type and two integral constants.
template <class Run>
int with_group_norm_case(const GroupNormShape& shape, bool is_aligned, const Run& run) {
  return with_element(shape.element, [&](auto element) {
    const auto with_layout = [&](auto aligned) {
      return shape.layout == Layout::kChannelsLast ? run(element, aligned, std::true_type{})
                                                   : run(element, aligned, std::false_type{});
    };
    return is_aligned ? with_layout(std::true_type{}) : with_layout(std::false_type{});
  });
}

inline constexpr std::int64_t kMaxBlocks = 0x7fffffff;

}  // namespace sfumato::device
