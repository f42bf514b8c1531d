#include "kernels/group_norm_backward.h"

#include <cuda_runtime.h>

#include "kernels/device/fold_terms.cuh"
#include "kernels/device/group_norm.cuh"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

using device::GroupNormSlice;
using device::Packet;
constexpr int kThreads = GroupNormPlan::kThreads;
constexpr int kFinishThreads = 128;

/// What x and dy point at, and the forward's statistics.
template <class T>
struct Inputs {
  const T *x, *dy;
  const float *mean, *rstd, *gamma, *beta;
};

/// What a thread knows of the channels of its packets. Channels first: all one channel.
template <class T, bool kLast>
struct Channels {
  static constexpr int kSize = Packet<T>::kSize, kCount = kLast ? kSize : 1;
  float mean[kCount], weight[kCount], beta[kCount];
  bool silu = false;

  __device__ __forceinline__ Channels(const Inputs<T>& in, const GroupNormShape& shape,
                                      const GroupNormSlice& slice)
      : silu(shape.activation == FusedActivation::kSilu) {
    SFUMATO_UNROLL
    for (int v = 0; v < kCount; ++v) {
      const std::int64_t c = channel(slice, v);
      const std::int64_t group = slice.sample * shape.groups + c / device::group_width(shape);
      mean[v] = in.mean[group];
      weight[v] = in.rstd[group] * in.gamma[c];
      beta[v] = silu ? in.beta[c] : 0;
    }
  }
  /// That of element v; a channel of the slice also where element v is past its end.
  static __device__ __forceinline__ std::int64_t channel(const GroupNormSlice& slice, int v) {
    return kLast && v < slice.first_left ? slice.channel + v : slice.channel;
  }
  /// x - mean, and d = dy act'(z).
  __device__ __forceinline__ float2 element(const Packet<T>& x, const Packet<T>& dy, int v) const {
    const int c = kLast ? v : 0;
    float2 e;
    e.x = device::load_as_float(&x.values[v]) - mean[c];
    e.y = device::load_as_float(&dy.values[v]);
    if (silu) {
      const float z = e.x * weight[c] + beta[c], s = device::sigmoid(z);
      e.y *= s * (1.0f + z * (1.0f - s));
    }
    return e;
  }
};

/// Visits the thread's packets in order: visit(i, x packet, dy packet).
template <class T, bool kAligned, class Visit>
__device__ __forceinline__ void for_each_packet(const Inputs<T>& in, const GroupNormSlice& slice,
                                                const Visit& visit) {
  constexpr int kBatch = 2;
  const T *x = in.x + slice.start, *dy = in.dy + slice.start;
  int i = 0;
  for (; i + kBatch <= slice.count; i += kBatch) {
    Packet<T> xs[kBatch], dys[kBatch];
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      const std::int64_t offset = (i + j) * slice.step, left = slice.left(i + j);
      xs[j] = device::load_packet<kAligned>(x + offset, left);
      dys[j] = device::load_packet<kAligned>(dy + offset, left);
    }
    SFUMATO_UNROLL
    for (int j = 0; j < kBatch; ++j) visit(i + j, xs[j], dys[j]);
  }
  for (; i < slice.count; ++i) {
    const std::int64_t offset = i * slice.step, left = slice.left(i);
    visit(i, device::load_packet<kAligned>(x + offset, left),
          device::load_packet<kAligned>(dy + offset, left));
  }
}

/// Sums of d and of d (x - mean) of each element of a thread's packets.
template <class T, bool kAligned, bool kLast>
struct Sums {
  static constexpr int kSize = Packet<T>::kSize;
  float d[kSize] = {}, dx[kSize] = {};

  __device__ __forceinline__ void add(const Channels<T, kLast>& channels, const Packet<T>& x,
                                      const Packet<T>& dy, std::int64_t left) {
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      if (!kAligned && v >= left) continue;
      const float2 e = channels.element(x, dy, v);
      d[v] += e.y;
      dx[v] += e.y * e.x;
    }
  }
};

/// Channels last: the sums of each of the block's channels j in shared[j] (d) and
/// shared[kThreads * kSize + j] (d (x - mean)). Ends with a barrier.
template <class T, bool kAligned>
__device__ __forceinline__ void merge_block(const Sums<T, kAligned, true>& sums,
                                            const GroupNormPlan& plan, float* shared) {
  constexpr int kSize = Packet<T>::kSize;
  const int thread = static_cast<int>(threadIdx.x);
  float* second = shared + kThreads * kSize;
  if (thread < plan.rows * plan.lanes) {
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      shared[thread * kSize + v] = sums.d[v];
      second[thread * kSize + v] = sums.dx[v];
    }
  }
  device::merge_rows(plan.rows, plan.lanes * kSize, [&](int to, int from) {
    shared[to] += shared[from];
    second[to] += second[from];
  });
}

/// First stage: each channel's sums of d and d xhat over a split's positions, [N, splits, C].
template <class T, bool kAligned, bool kLast>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(Inputs<T> in, GroupNormShape shape, GroupNormPlan plan, float* sum_d,
                float* sum_dx) {
  constexpr int kSize = Packet<T>::kSize;
  const GroupNormSlice slice = device::group_norm_slice<T, kLast>(shape, plan, blockIdx.x);
  Sums<T, kAligned, kLast> sums;
  if (slice.count > 0) {
    const Channels<T, kLast> channels(in, shape, slice);
    for_each_packet<T, kAligned>(in, slice, [&](int i, const Packet<T>& x, const Packet<T>& dy) {
      sums.add(channels, x, dy, slice.left(i));
    });
  }
  const std::int64_t row = (slice.sample * plan.splits + slice.split) * shape.channels;
  const std::int64_t per_group = device::group_width(shape);
  const float* rstd = in.rstd + slice.sample * shape.groups;
  if constexpr (kLast) {
    float* shared = device::shared_memory<float>();
    merge_block<T, kAligned>(sums, plan, shared);
    for (int j = static_cast<int>(threadIdx.x); j < slice.block_channels; j += kThreads) {
      const std::int64_t c = slice.block_channel + j;
      sum_d[row + c] = shared[j];
      sum_dx[row + c] = shared[kThreads * kSize + j] * rstd[c / per_group];
    }
  } else {
    float d = 0, dx = 0;
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      d += sums.d[v];
      dx += sums.dx[v];
    }
    d = device::warp_sum(d);
    dx = device::warp_sum(dx);
    if (threadIdx.x % device::kWarp == 0 && slice.count > 0) {
      sum_d[row + slice.channel] = d;
      sum_dx[row + slice.channel] = dx * rstd[slice.channel / per_group];
    }
  }
}

/// dx = weight d - (level + slope (x - mean)): a group's level and slope from its sums of d gamma
/// and d gamma xhat.
__device__ __forceinline__ void write_line(double sum, double sum_xhat, double rstd,
                                           const GroupNormShape& shape, float* level,
                                           float* slope) {
  const double count = static_cast<double>(device::group_width(shape) * shape.positions);
  *level = static_cast<float>(rstd * sum / count);
  *slope = static_cast<float>(rstd * rstd * sum_xhat / count);
}

/// Second stage: level and slope [N, G, 2], a block per sample and group.
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const float* sum_d, const float* sum_dx, const float* rstd, const float* gamma,
                  GroupNormShape shape, GroupNormPlan plan, float* lines) {
  const std::int64_t sample = blockIdx.x / shape.groups, group = blockIdx.x % shape.groups;
  const std::int64_t per_group = device::group_width(shape);
  double sum = 0, sum_xhat = 0;
  for (std::int64_t e = threadIdx.x; e < plan.splits * per_group; e += kFinishThreads) {
    const std::int64_t c = group * per_group + e % per_group;
    const std::int64_t place = (sample * plan.splits + e / per_group) * shape.channels + c;
    const double g = static_cast<double>(gamma[c]);
    sum += g * static_cast<double>(sum_d[place]);
    sum_xhat += g * static_cast<double>(sum_dx[place]);
  }
  double* shared = device::shared_memory<double>();
  sum = device::block_sum(sum, shared);
  sum_xhat = device::block_sum(sum_xhat, shared);
  if (threadIdx.x == 0)
    write_line(sum, sum_xhat, static_cast<double>(rstd[blockIdx.x]), shape,
               &lines[2 * std::int64_t{blockIdx.x}], &lines[2 * std::int64_t{blockIdx.x} + 1]);
}

/// dx of a packet.
template <class T, bool kLast>
__device__ __forceinline__ Packet<T> gradient(const Channels<T, kLast>& channels,
                                              const float* level, const float* slope,
                                              const Packet<T>& x, const Packet<T>& dy) {
  Packet<T> dx;
  SFUMATO_UNROLL
  for (int v = 0; v < Packet<T>::kSize; ++v) {
    const int c = kLast ? v : 0;
    const float2 e = channels.element(x, dy, v);
    device::store_rounded(&dx.values[v], channels.weight[c] * e.y - (level[c] + slope[c] * e.x));
  }
  return dx;
}

/// Third stage: dx.
template <class T, bool kAligned, bool kLast>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(Inputs<T> in, const float* lines, GroupNormShape shape, GroupNormPlan plan,
                 T* dx) {
  // From the end: that is what the cache still holds of the first stage's reading.
  const std::int64_t block = std::int64_t{gridDim.x} - 1 - blockIdx.x;
  const GroupNormSlice slice = device::group_norm_slice<T, kLast>(shape, plan, block);
  if (slice.count == 0) return;
  using Known = Channels<T, kLast>;
  const Known channels(in, shape, slice);
  float level[Known::kCount], slope[Known::kCount];
  SFUMATO_UNROLL
  for (int v = 0; v < Known::kCount; ++v) {
    const std::int64_t group =
        slice.sample * shape.groups + Known::channel(slice, v) / device::group_width(shape);
    level[v] = lines[2 * group];
    slope[v] = lines[2 * group + 1];
  }
  for_each_packet<T, kAligned>(in, slice, [&](int i, const Packet<T>& x, const Packet<T>& dy) {
    device::store_packet<kAligned>(dx + slice.start + i * slice.step,
                                   gradient<T, kLast>(channels, level, slope, x, dy),
                                   slice.left(i));
  });
}

/// First to third stage in one: a block has whole groups, and keeps x and dy in shared memory. Each
/// thread reads back only what it wrote there itself. sum_d, sum_dx [N, C] (or null).
template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    resident_kernel(Inputs<T> in, GroupNormShape shape, GroupNormPlan plan, T* dx, float* sum_d,
                    float* sum_dx) {
  constexpr int kSize = Packet<T>::kSize;
  const int thread = static_cast<int>(threadIdx.x);
  unsigned char* memory = device::shared_memory<unsigned char>();
  auto* kept = reinterpret_cast<Packet<T>*>(memory) + thread;
  auto* shared = reinterpret_cast<float*>(memory + plan.resident_bytes);
  float *second = shared + kThreads * kSize, *lines = second + kThreads * kSize;
  const GroupNormSlice slice = device::channels_last_slice<T>(shape, plan, blockIdx.x);
  // A thread without elements takes those of its block's first channel; it uses none of them.
  GroupNormSlice known = slice;
  if (slice.count == 0) known.channel = slice.block_channel;
  const Channels<T, true> channels(in, shape, known);
  Sums<T, kAligned, true> sums;
  for_each_packet<T, kAligned>(in, slice, [&](int i, const Packet<T>& x, const Packet<T>& dy) {
    kept[2 * i * kThreads] = x;
    kept[(2 * i + 1) * kThreads] = dy;
    sums.add(channels, x, dy, slice.left(i));
  });
  merge_block<T, kAligned>(sums, plan, shared);

  const int per_group = static_cast<int>(device::group_width(shape));
  const int groups = static_cast<int>(slice.block_channels) / per_group;
  const float* rstd = in.rstd + slice.sample * shape.groups + slice.block_channel / per_group;
  if (sum_d != nullptr) {
    const std::int64_t row = slice.sample * shape.channels + slice.block_channel;
    for (int j = thread; j < slice.block_channels; j += kThreads) {
      sum_d[row + j] = shared[j];
      sum_dx[row + j] = second[j] * rstd[j / per_group];
    }
  }
  if (dx == nullptr) return;
  for (int g = thread / device::kWarp; g < groups; g += kThreads / device::kWarp) {
    double sum = 0, sum_xhat = 0;
    for (int c = thread % device::kWarp; c < per_group; c += device::kWarp) {
      const int j = g * per_group + c;
      const double gamma = static_cast<double>(in.gamma[slice.block_channel + j]);
      sum += gamma * static_cast<double>(shared[j]);
      sum_xhat += gamma * static_cast<double>(second[j]);
    }
    sum = device::warp_sum(sum);
    sum_xhat = device::warp_sum(sum_xhat);
    const double r = static_cast<double>(rstd[g]);
    if (thread % device::kWarp == 0)
      write_line(sum, sum_xhat * r, r, shape, &lines[2 * g], &lines[2 * g + 1]);
  }
  __syncthreads();
  if (slice.count == 0) return;
  float level[kSize], slope[kSize];
  SFUMATO_UNROLL
  for (int v = 0; v < kSize; ++v) {
    const std::int64_t c = Channels<T, true>::channel(slice, v) - slice.block_channel;
    level[v] = lines[2 * (static_cast<int>(c) / per_group)];
    slope[v] = lines[2 * (static_cast<int>(c) / per_group) + 1];
  }
  for (int i = 0; i < slice.count; ++i)
    device::store_packet<kAligned>(dx + slice.start + i * slice.step,
                                   gradient<T, true>(channels, level, slope, kept[2 * i * kThreads],
                                                     kept[(2 * i + 1) * kThreads]),
                                   slice.left(i));
}

/// Where a launch's sums are: [N, splits, C] each, then the lines [N, G, 2].
struct Workspace {
  float *sum_d, *sum_dx, *lines;

  Workspace(void* memory, const GroupNormShape& shape, const GroupNormPlan& plan)
      : sum_d(static_cast<float*>(memory)) {
    const std::int64_t count = shape.samples * plan.splits * shape.channels;
    sum_dx = sum_d + count;
    lines = sum_dx + count;
  }
};

template <class T, bool kAligned, bool kLast>
int launch_stages(const Inputs<T>& in, const GroupNormShape& shape, const GroupNormPlan& plan,
                  T* dx, const Workspace& space, void* stream) {
  const dim3 grid = device::blocks(device::group_norm_blocks(shape, plan));
  const std::size_t shared = kLast ? 2 * sizeof(float) * kThreads * Packet<T>::kSize : 0;
  int status = device::launch(sums_kernel<T, kAligned, kLast>, grid, kThreads, shared, stream, in,
                              shape, plan, space.sum_d, space.sum_dx);
  if (status != 0 || dx == nullptr) return status;
  status = device::launch(finish_kernel, device::blocks(shape.samples * shape.groups),
                          kFinishThreads, sizeof(double) * device::kWarp, stream, space.sum_d,
                          space.sum_dx, in.rstd, in.gamma, shape, plan, space.lines);
  if (status != 0) return status;
  return device::launch(apply_kernel<T, kAligned, kLast>, grid, kThreads, 0, stream, in,
                        space.lines, shape, plan, dx);
}

template <class T, bool kAligned>
int launch_resident(const Inputs<T>& in, const GroupNormShape& shape, const GroupNormPlan& plan,
                    T* dx, float* sum_d, float* sum_dx, void* stream) {
  const std::size_t shared =
      static_cast<std::size_t>(plan.resident_bytes) +
      2 * sizeof(float) * kThreads * Packet<T>::kSize +
      2 * sizeof(float) * static_cast<std::size_t>(plan.width / shape.per_group());
  const std::int64_t blocks = device::group_norm_blocks(shape, plan);
  return device::launch(resident_kernel<T, kAligned>, device::blocks(blocks), kThreads, shared,
                        stream, in, shape, plan, dx, sum_d, sum_dx);
}

}  // namespace

int launch_group_norm_backward(const void* x, const void* dy, const float* mean, const float* rstd,
                               const float* gamma, const float* beta, const GroupNormShape& shape,
                               void* dx, float* dgamma, float* dbeta, void* workspace,
                               void* stream) {
  if (!device::group_norm_valid(shape) || (dgamma == nullptr) != (dbeta == nullptr))
    return cudaErrorInvalidValue;
  if (shape.samples == 0 || (dx == nullptr && dgamma == nullptr)) return cudaSuccess;
  const GroupNormPlan plan = group_norm_plan(shape, 2);
  if (device::group_norm_blocks(shape, plan) > device::kMaxBlocks ||
      shape.samples * shape.channels > device::kMaxBlocks)
    return cudaErrorInvalidValue;
  const Workspace space(workspace, shape, plan);
  // One draw and one split: the sums are the result.
  const bool direct = plan.resident && shape.draws == 1;
  float* sum_d = direct ? dbeta : dgamma != nullptr ? space.sum_d : nullptr;
  float* sum_dx = direct ? dgamma : space.sum_dx;
  const bool all_aligned =
      device::group_norm_aligned(shape, x, dy) && device::group_norm_aligned(shape, x, dx);
  const int status =
      device::with_group_norm_case(shape, all_aligned, [&](auto element, auto aligned, auto last) {
        using T = typename decltype(element)::Type;
        constexpr bool kAligned = decltype(aligned)::value, kLast = decltype(last)::value;
        const Inputs<T> in{
            static_cast<const T*>(x), static_cast<const T*>(dy), mean, rstd, gamma, beta};
        if constexpr (kLast)
          if (plan.resident)
            return launch_resident<T, kAligned>(in, shape, plan, static_cast<T*>(dx), sum_d, sum_dx,
                                                stream);
        return launch_stages<T, kAligned, kLast>(in, shape, plan, static_cast<T*>(dx), space,
                                                 stream);
      });
  if (status != 0 || dgamma == nullptr || direct) return status;
  return device::fold_terms(space.sum_d, space.sum_dx, shape.examples(), shape.draws * plan.splits,
                            shape.channels, dbeta, dgamma, stream);
}

}  // namespace sfumato
