#include "kernels/group_norm_forward.h"

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/device/group_norm.cuh"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

using device::GroupNormSlice;
using device::Packet;
constexpr int kThreads = GroupNormPlan::kThreads;
constexpr int kFinishThreads = 128;

/// Count, mean and sum of squared deviations of some values.
struct Moments {
  double mean = 0;
  float squares = 0, count = 0;
};

/// Chan, Golub and LeVeque (1983), formula (2.1).
__device__ __forceinline__ void merge(Moments& to, const Moments& from) {
  if (from.count == 0) return;
  const float count = to.count + from.count;
  const double difference = from.mean - to.mean;
  const float share = from.count / count, d = static_cast<float>(difference);
  to.mean += difference * static_cast<double>(share);
  to.squares += from.squares + d * d * to.count * share;
  to.count = count;
}

/// Those of the warp's lanes, in lane 0. All lanes take part.
__device__ __forceinline__ Moments merge_warp(Moments mine) {
  for (int lanes = device::kWarp / 2; lanes > 0; lanes /= 2) {
    Moments other;
    other.mean = __shfl_down_sync(device::kWholeWarp, mine.mean, lanes);
    other.squares = __shfl_down_sync(device::kWholeWarp, mine.squares, lanes);
    other.count = __shfl_down_sync(device::kWholeWarp, mine.count, lanes);
    merge(mine, other);
  }
  return mine;
}

/// Arrays of moments in shared memory.
struct MomentArrays {
  double* mean;
  float *squares, *count;

  __device__ __forceinline__ MomentArrays(void* shared, int size)
      : mean(static_cast<double*>(shared)),
        squares(reinterpret_cast<float*>(mean + size)),
        count(squares + size) {}
  __device__ __forceinline__ Moments get(int i) const {
    Moments m;
    m.mean = mean[i];
    m.squares = squares[i];
    m.count = count[i];
    return m;
  }
  __device__ __forceinline__ void set(int i, const Moments& m) const {
    mean[i] = m.mean;
    squares[i] = m.squares;
    count[i] = m.count;
  }
};
constexpr std::size_t kMomentBytes = 16;

/// Sums of differences from the first value of each element of a thread's packets.
template <class T, bool kAligned>
struct ShiftedSums {
  static constexpr int kSize = Packet<T>::kSize;
  float shift[kSize], sum[kSize], squares[kSize];

  __device__ __forceinline__ void start(const Packet<T>& packet) {
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      shift[v] = device::load_as_float(&packet.values[v]);
      sum[v] = squares[v] = 0;
    }
  }
  __device__ __forceinline__ void add(const Packet<T>& packet, std::int64_t left) {
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      if (!kAligned && v >= left) continue;
      const float d = device::load_as_float(&packet.values[v]) - shift[v];
      sum[v] += d;
      squares[v] += d * d;
    }
  }
  __device__ __forceinline__ Moments moments(int v, int count) const {
    Moments m;
    if (count == 0) return m;
    const float n = static_cast<float>(count), offset = sum[v] / n;
    m.count = n;
    m.mean = static_cast<double>(shift[v]) + static_cast<double>(offset);
    const float rest = squares[v] - sum[v] * offset;
    m.squares = rest < 0 ? 0 : rest;  // keeps NaN
    return m;
  }
  /// How many of the slice's packets have element v: only the last one may be short.
  __device__ __forceinline__ int count(const GroupNormSlice& slice, int v) const {
    return slice.count - (v < slice.left(slice.count - 1) ? 0 : 1);
  }
};

/// The moments of the thread's elements; visit(i, packet) sees every packet as it is read.
template <class T, bool kAligned, class Visit>
__device__ __forceinline__ ShiftedSums<T, kAligned> sum_slice(const T* x,
                                                              const GroupNormSlice& slice,
                                                              const Visit& visit) {
  constexpr int kBatch = 4;
  ShiftedSums<T, kAligned> sums;
  sums.start(Packet<T>{});
  const T* place = x + slice.start;
  int i = 0;
  for (; i + kBatch <= slice.count; i += kBatch) {
    Packet<T> packets[kBatch];
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j)
      packets[j] = device::load_packet<kAligned>(place + (i + j) * slice.step, slice.left(i + j));
    if (i == 0) sums.start(packets[0]);
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      visit(i + j, packets[j]);
      sums.add(packets[j], slice.left(i + j));
    }
  }
  for (; i < slice.count; ++i) {
    const Packet<T> packet = device::load_packet<kAligned>(place + i * slice.step, slice.left(i));
    if (i == 0) sums.start(packet);
    visit(i, packet);
    sums.add(packet, slice.left(i));
  }
  return sums;
}

/// Channels last: the moments of each of the block's channels j in shared[j]. Ends with a barrier.
template <class T, bool kAligned>
__device__ __forceinline__ void merge_block(const ShiftedSums<T, kAligned>& sums,
                                            const GroupNormSlice& slice, const GroupNormPlan& plan,
                                            const MomentArrays& shared) {
  constexpr int kSize = Packet<T>::kSize;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < plan.rows * plan.lanes) {
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v)
      shared.set(thread * kSize + v,
                 slice.count == 0 ? Moments{} : sums.moments(v, sums.count(slice, v)));
  }
  device::merge_rows(plan.rows, plan.lanes * kSize, [&](int to, int from) {
    Moments m = shared.get(to);
    merge(m, shared.get(from));
    shared.set(to, m);
  });
}

/// First stage: means and sums of squared deviations [N, splits, C] of each channel's splits.
template <class T, bool kAligned, bool kLast>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(const T* x, GroupNormShape shape, GroupNormPlan plan, float* means,
                   float* squares) {
  constexpr int kSize = Packet<T>::kSize;
  const GroupNormSlice slice = device::group_norm_slice<T, kLast>(shape, plan, blockIdx.x);
  const auto sums = sum_slice<T, kAligned>(x, slice, [](int, const Packet<T>&) {});
  const std::int64_t row = (slice.sample * plan.splits + slice.split) * shape.channels;
  if constexpr (kLast) {
    const MomentArrays shared(device::shared_memory<void>(), kThreads * kSize);
    merge_block<T, kAligned>(sums, slice, plan, shared);
    for (int j = static_cast<int>(threadIdx.x); j < slice.block_channels; j += kThreads) {
      means[row + slice.block_channel + j] = static_cast<float>(shared.mean[j]);
      squares[row + slice.block_channel + j] = shared.squares[j];
    }
  } else {
    Moments mine;
    if (slice.count > 0) {
      SFUMATO_UNROLL
      for (int v = 0; v < kSize; ++v) merge(mine, sums.moments(v, sums.count(slice, v)));
    }
    mine = merge_warp(mine);
    if (threadIdx.x % device::kWarp == 0 && slice.count > 0) {
      means[row + slice.channel] = static_cast<float>(mine.mean);
      squares[row + slice.channel] = mine.squares;
    }
  }
}

__device__ __forceinline__ void write_statistics(const Moments& m, double eps, float* mean,
                                                 float* rstd) {
  *mean = static_cast<float>(m.mean);
  *rstd = static_cast<float>(1.0 / sqrt(static_cast<double>(m.squares / m.count) + eps));
}

/// Second stage: a block per sample and group.
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const float* means, const float* squares, double eps, GroupNormShape shape,
                  GroupNormPlan plan, float* mean, float* rstd) {
  const std::int64_t sample = blockIdx.x / shape.groups, group = blockIdx.x % shape.groups;
  const std::int64_t per_group = device::group_width(shape);
  Moments mine;
  for (std::int64_t e = threadIdx.x; e < plan.splits * per_group; e += kFinishThreads) {
    const std::int64_t split = e / per_group, begin = split * plan.split_positions;
    const std::int64_t place =
        (sample * plan.splits + split) * shape.channels + group * per_group + e % per_group;
    const std::int64_t rest = shape.positions - begin;
    Moments m;
    m.count = static_cast<float>(rest < plan.split_positions ? rest : plan.split_positions);
    m.mean = static_cast<double>(means[place]);
    m.squares = squares[place];
    merge(mine, m);
  }
  mine = merge_warp(mine);
  const MomentArrays shared(device::shared_memory<void>(), kFinishThreads / device::kWarp);
  if (threadIdx.x % device::kWarp == 0)
    shared.set(static_cast<int>(threadIdx.x) / device::kWarp, mine);
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kFinishThreads / device::kWarp; ++warp) merge(mine, shared.get(warp));
  write_statistics(mine, eps, mean + blockIdx.x, rstd + blockIdx.x);
}

/// (x - mean) * weight + offset of each element of a packet, and the activation.
template <class T, bool kLast>
struct Affine {
  static constexpr int kSize = Packet<T>::kSize, kCount = kLast ? kSize : 1;
  float mean[kCount], weight[kCount], offset[kCount];

  __device__ __forceinline__ void set(int v, float group_mean, float group_rstd, float gamma,
                                      float beta) {
    mean[v] = group_mean;
    weight[v] = group_rstd * gamma;
    offset[v] = beta;
  }
  __device__ __forceinline__ Packet<T> apply(const Packet<T>& x, bool silu) const {
    Packet<T> y;
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      const int c = kLast ? v : 0;
      const float z = (device::load_as_float(&x.values[v]) - mean[c]) * weight[c] + offset[c];
      device::store_rounded(&y.values[v], silu ? z * device::sigmoid(z) : z);
    }
    return y;
  }
};

/// Third stage: y.
template <class T, bool kAligned, bool kLast>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(const T* x, const float* gamma, const float* beta, const float* mean,
                 const float* rstd, GroupNormShape shape, GroupNormPlan plan, T* y) {
  // From the end: that is what the cache still holds of the first stage's reading.
  const std::int64_t block = std::int64_t{gridDim.x} - 1 - blockIdx.x;
  const GroupNormSlice slice = device::group_norm_slice<T, kLast>(shape, plan, block);
  if (slice.count == 0) return;
  Affine<T, kLast> affine;
  SFUMATO_UNROLL
  for (int v = 0; v < Affine<T, kLast>::kCount; ++v) {
    const std::int64_t c = !kLast || v < slice.first_left ? slice.channel + v : slice.channel;
    const std::int64_t group = slice.sample * shape.groups + c / device::group_width(shape);
    affine.set(v, mean[group], rstd[group], gamma[c], beta[c]);
  }
  const bool silu = shape.activation == FusedActivation::kSilu;
  constexpr int kBatch = 4;
  int i = 0;
  for (; i + kBatch <= slice.count; i += kBatch) {
    Packet<T> packets[kBatch];
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j)
      packets[j] =
          device::load_packet<kAligned>(x + slice.start + (i + j) * slice.step, slice.left(i + j));
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j)
      device::store_packet<kAligned>(y + slice.start + (i + j) * slice.step,
                                     affine.apply(packets[j], silu), slice.left(i + j));
  }
  for (; i < slice.count; ++i) {
    const std::int64_t place = slice.start + i * slice.step;
    const Packet<T> packet = device::load_packet<kAligned>(x + place, slice.left(i));
    device::store_packet<kAligned>(y + place, affine.apply(packet, silu), slice.left(i));
  }
}

/// All stages in one: a block has whole groups, and keeps them in shared memory. Each thread reads
/// back only what it wrote there itself.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    resident_kernel(const T* x, const float* gamma, const float* beta, double eps,
                    GroupNormShape shape, GroupNormPlan plan, T* y, float* mean, float* rstd) {
  constexpr int kSize = Packet<T>::kSize;
  unsigned char* memory = device::shared_memory<unsigned char>();
  auto* kept = reinterpret_cast<Packet<T>*>(memory);
  const MomentArrays shared(memory + plan.resident_bytes, kThreads * kSize);
  const GroupNormSlice slice = device::channels_last_slice<T>(shape, plan, blockIdx.x);
  const auto sums = sum_slice<T, kAligned>(x, slice, [&](int i, const Packet<T>& packet) {
    kept[i * kThreads + static_cast<int>(threadIdx.x)] = packet;
  });
  merge_block<T, kAligned>(sums, slice, plan, shared);

  const int per_group = static_cast<int>(device::group_width(shape));
  const int groups = static_cast<int>(slice.block_channels) / per_group;
  const std::int64_t first_group = slice.sample * shape.groups + slice.block_channel / per_group;
  auto* statistics =
      reinterpret_cast<float*>(memory + plan.resident_bytes + kMomentBytes * kThreads * kSize);
  for (int g = static_cast<int>(threadIdx.x) / device::kWarp; g < groups;
       g += kThreads / device::kWarp) {
    Moments mine;
    for (int c = static_cast<int>(threadIdx.x) % device::kWarp; c < per_group; c += device::kWarp)
      merge(mine, shared.get(g * per_group + c));
    mine = merge_warp(mine);
    if (threadIdx.x % device::kWarp == 0) {
      write_statistics(mine, eps, &statistics[2 * g], &statistics[2 * g + 1]);
      mean[first_group + g] = statistics[2 * g];
      rstd[first_group + g] = statistics[2 * g + 1];
    }
  }
  __syncthreads();
  if (slice.count == 0) return;
  Affine<T, true> affine;
  SFUMATO_UNROLL
  for (int v = 0; v < kSize; ++v) {
    const std::int64_t c = v < slice.first_left ? slice.channel + v : slice.channel;
    const int g = static_cast<int>(c - slice.block_channel) / per_group;
    affine.set(v, statistics[2 * g], statistics[2 * g + 1], gamma[c], beta[c]);
  }
  const bool silu = shape.activation == FusedActivation::kSilu;
  for (int i = 0; i < slice.count; ++i)
    device::store_packet<kAligned>(
        y + slice.start + i * slice.step,
        affine.apply(kept[i * kThreads + static_cast<int>(threadIdx.x)], silu), slice.left(i));
}

template <class T, bool kAligned, bool kLast>
int launch_stages(const T* x, const float* gamma, const float* beta, double eps,
                  const GroupNormShape& shape, const GroupNormPlan& plan, T* y, float* mean,
                  float* rstd, float* means, void* stream) {
  const std::int64_t blocks = device::group_norm_blocks(shape, plan);
  const dim3 grid = device::blocks(blocks);
  float* squares = means + shape.samples * plan.splits * shape.channels;
  const std::size_t shared = kLast ? kMomentBytes * kThreads * Packet<T>::kSize : 0;
  int status = device::launch(moments_kernel<T, kAligned, kLast>, grid, kThreads, shared, stream, x,
                              shape, plan, means, squares);
  if (status != 0) return status;
  status = device::launch(finish_kernel, device::blocks(shape.samples * shape.groups),
                          kFinishThreads, kMomentBytes * (kFinishThreads / device::kWarp), stream,
                          means, squares, eps, shape, plan, mean, rstd);
  if (status != 0) return status;
  return device::launch(apply_kernel<T, kAligned, kLast>, grid, kThreads, 0, stream, x, gamma, beta,
                        mean, rstd, shape, plan, y);
}

template <class T, bool kAligned>
int launch_resident(const T* x, const float* gamma, const float* beta, double eps,
                    const GroupNormShape& shape, const GroupNormPlan& plan, T* y, float* mean,
                    float* rstd, void* stream) {
  const std::size_t shared = static_cast<std::size_t>(plan.resident_bytes) +
                             kMomentBytes * kThreads * Packet<T>::kSize +
                             8 * static_cast<std::size_t>(plan.width / shape.per_group());
  const std::int64_t blocks = device::group_norm_blocks(shape, plan);
  return device::launch(resident_kernel<T, kAligned>, device::blocks(blocks), kThreads, shared,
                        stream, x, gamma, beta, eps, shape, plan, y, mean, rstd);
}

}  // namespace

int launch_group_norm_forward(const void* x, const float* gamma, const float* beta, double eps,
                              const GroupNormShape& shape, void* y, float* mean, float* rstd,
                              void* workspace, void* stream) {
  if (!device::group_norm_valid(shape)) return cudaErrorInvalidValue;
  if (shape.samples == 0) return cudaSuccess;
  const GroupNormPlan plan = group_norm_plan(shape, 1);
  if (device::group_norm_blocks(shape, plan) > device::kMaxBlocks ||
      shape.samples * shape.groups > device::kMaxBlocks)
    return cudaErrorInvalidValue;
  const bool all_aligned = device::group_norm_aligned(shape, x, y);
  return device::with_group_norm_case(
      shape, all_aligned, [&](auto element, auto aligned, auto last) {
        using T = typename decltype(element)::Type;
        constexpr bool kAligned = decltype(aligned)::value, kLast = decltype(last)::value;
        const T* input = static_cast<const T*>(x);
        T* output = static_cast<T*>(y);
        if constexpr (kLast)
          if (plan.resident)
            return launch_resident<T, kAligned>(input, gamma, beta, eps, shape, plan, output, mean,
                                                rstd, stream);
        return launch_stages<T, kAligned, kLast>(input, gamma, beta, eps, shape, plan, output, mean,
                                                 rstd, static_cast<float*>(workspace), stream);
      });
}

}  // namespace sfumato
