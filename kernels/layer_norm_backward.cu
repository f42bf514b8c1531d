#include "kernels/layer_norm_backward.h"

#include <cuda_runtime.h>

#include "kernels/device/fold_terms.cuh"
#include "kernels/device/group_norm.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"

namespace sfumato {
namespace {

using device::Packet;
constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 0x7fffffff;

template <class T>
struct Arguments {
  const T *x, *dy;
  const float *mean, *rstd, *gamma;
  std::int64_t tokens, channels, tiles, tile_rows;
  T* dx;
  float *sum_d, *sum_dx;  // [B, tiles, C] or null
  int lanes, rows;        // packets side by side, rows at once
};

/// What every element of a row needs: dx = rstd gamma dy - (level + slope (x - mean)).
struct Row {
  float mean, rstd, level, slope;
};

/// A packet's worth of gamma.
template <class T, bool kAligned>
struct Gammas {
  static constexpr int kSize = Packet<T>::kSize, kParts = kSize / 4;
  Packet<float> parts[kParts];

  __device__ __forceinline__ Gammas(const float* gamma, std::int64_t left) {
    SFUMATO_UNROLL
    for (int p = 0; p < kParts; ++p)
      parts[p] = device::load_packet<kAligned>(gamma + 4 * p, left - 4 * p);
  }
  __device__ __forceinline__ float operator[](int v) const { return parts[v / 4].values[v % 4]; }
};

/// A row's level and slope, in every lane of the warp that calls it.
template <class T, bool kAligned>
__device__ __forceinline__ Row row_sums(const Arguments<T>& a, std::int64_t row) {
  constexpr int kSize = Packet<T>::kSize;
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  Row out;
  out.mean = a.mean[row];
  out.rstd = a.rstd[row];
  float sum = 0, sum_x = 0;
  for (std::int64_t c = lane * kSize; c < a.channels; c += device::kWarp * kSize) {
    const std::int64_t left = a.channels - c;
    const Packet<T> x = device::load_packet<kAligned>(a.x + row * a.channels + c, left);
    const Packet<T> dy = device::load_packet<kAligned>(a.dy + row * a.channels + c, left);
    const Gammas<T, kAligned> gamma(a.gamma + c, left);
    SFUMATO_UNROLL
    for (int v = 0; v < kSize; ++v) {
      // Past the row's end dy and gamma are zero.
      const float d = device::load_as_float(&dy.values[v]) * gamma[v];
      sum += d;
      sum_x += d * (device::load_as_float(&x.values[v]) - out.mean);
    }
  }
  const float count = static_cast<float>(a.channels);
  out.level = out.rstd * (device::warp_sum(sum) / count);
  out.slope = out.rstd * out.rstd * (out.rstd * (device::warp_sum(sum_x) / count));
  return out;
}

/// dx of a thread's packets of one column of packets, and its sums of dy and dy xhat over their
/// rows: shared[thread * kSize + v] and shared[(kThreads + thread) * kSize + v].
template <class T, bool kAligned>
__device__ __forceinline__ void column(const Arguments<T>& a, const Row* rows,
                                       std::int64_t first_row, int row_count, std::int64_t c,
                                       float* shared) {
  constexpr int kSize = Packet<T>::kSize;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t left = a.channels - c;
  float sum[kSize] = {}, sum_x[kSize] = {};
  if (thread < a.rows * a.lanes && left > 0) {
    const Gammas<T, kAligned> gamma(a.gamma + c, left);
    for (int r = thread / a.lanes; r < row_count; r += a.rows) {
      const std::int64_t place = (first_row + r) * a.channels + c;
      const Packet<T> x = device::load_packet<kAligned>(a.x + place, left);
      const Packet<T> dy = device::load_packet<kAligned>(a.dy + place, left);
      const Row row = rows[r];
      Packet<T> dx;
      SFUMATO_UNROLL
      for (int v = 0; v < kSize; ++v) {
        const float d = device::load_as_float(&dy.values[v]);
        const float offset = device::load_as_float(&x.values[v]) - row.mean;
        sum[v] += d;
        sum_x[v] += d * (offset * row.rstd);
        device::store_rounded(&dx.values[v],
                              row.rstd * gamma[v] * d - (row.level + row.slope * offset));
      }
      if (a.dx != nullptr) device::store_packet<kAligned>(a.dx + place, dx, left);
    }
  }
  if (thread >= a.rows * a.lanes) return;
  SFUMATO_UNROLL
  for (int v = 0; v < kSize; ++v) {
    shared[thread * kSize + v] = sum[v];
    shared[(kThreads + thread) * kSize + v] = sum_x[v];
  }
}

/// A block has a tile of one example's rows: first every row's sums, then column by column dx and
/// the sums over the tile's rows.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) tile_kernel(Arguments<T> a) {
  constexpr int kSize = Packet<T>::kSize;
  const int thread = static_cast<int>(threadIdx.x);
  auto* rows = device::shared_memory<Row>();
  auto* shared = reinterpret_cast<float*>(rows + a.tile_rows);
  const std::int64_t example = blockIdx.x / a.tiles, tile = blockIdx.x % a.tiles;
  const std::int64_t rest = a.tokens - tile * a.tile_rows;
  const int row_count = static_cast<int>(rest < a.tile_rows ? rest : a.tile_rows);
  const std::int64_t first_row = example * a.tokens + tile * a.tile_rows;
  for (int r = thread / device::kWarp; r < row_count; r += kThreads / device::kWarp) {
    const Row row = row_sums<T, kAligned>(a, first_row + r);
    if (thread % device::kWarp == 0) rows[r] = row;
  }
  __syncthreads();
  const int width = a.lanes * kSize;
  for (std::int64_t first = 0; first < a.channels; first += width) {
    column<T, kAligned>(a, rows, first_row, row_count, first + thread % a.lanes * kSize, shared);
    if (a.sum_d == nullptr) continue;
    float* second = shared + kThreads * kSize;
    device::merge_rows(a.rows, width, [&](int to, int from) {
      shared[to] += shared[from];
      second[to] += second[from];
    });
    for (int j = thread; j < width && first + j < a.channels; j += kThreads) {
      a.sum_d[std::int64_t{blockIdx.x} * a.channels + first + j] = shared[j];
      a.sum_dx[std::int64_t{blockIdx.x} * a.channels + first + j] = second[j];
    }
    __syncthreads();
  }
}

}  // namespace

int launch_layer_norm_backward(const void* x, const void* dy, const float* mean, const float* rstd,
                               const float* gamma, Element element, std::int64_t examples,
                               std::int64_t tokens, std::int64_t channels, void* dx, float* dgamma,
                               float* dbeta, void* workspace, void* stream) {
  if (examples < 0 || tokens < 1 || channels < 1 || (dgamma == nullptr) != (dbeta == nullptr))
    return cudaErrorInvalidValue;
  if (examples == 0 || (dx == nullptr && dgamma == nullptr)) return cudaSuccess;
  const std::int64_t tile_rows = layer_norm_tile_rows(element, channels);
  const std::int64_t tiles = (tokens + tile_rows - 1) / tile_rows;
  if (examples * tiles > kMaxBlocks || device::fold_terms_blocks(examples, channels) > kMaxBlocks)
    return cudaErrorInvalidValue;
  auto* sums = static_cast<float*>(workspace);
  const bool direct = tiles == 1;
  const int status = device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    const std::int64_t packets = (channels + Packet<T>::kSize - 1) / Packet<T>::kSize;
    const int lanes = static_cast<int>(packets < kThreads ? packets : kThreads);
    const Arguments<T> a{static_cast<const T*>(x),
                         static_cast<const T*>(dy),
                         mean,
                         rstd,
                         gamma,
                         tokens,
                         channels,
                         tiles,
                         tile_rows,
                         static_cast<T*>(dx),
                         direct || dgamma == nullptr ? dbeta : sums,
                         direct || dgamma == nullptr ? dgamma : sums + examples * tiles * channels,
                         lanes,
                         kThreads / lanes};
    const std::size_t shared = static_cast<std::size_t>(tile_rows) * sizeof(Row) +
                               2 * sizeof(float) * kThreads * Packet<T>::kSize;
    const bool aligned =
        device::rows_are_aligned<T>(x, channels) && device::rows_are_aligned<T>(dy, channels) &&
        device::rows_are_aligned<T>(dx, channels) && device::rows_are_aligned<T>(gamma, channels);
    const auto kernel = aligned ? tile_kernel<T, true> : tile_kernel<T, false>;
    return device::launch(kernel, device::blocks(examples * tiles), kThreads, shared, stream, a);
  });
  if (status != 0 || dgamma == nullptr || direct) return status;
  return device::fold_terms(sums, sums + examples * tiles * channels, examples, tiles, channels,
                            dbeta, dgamma, stream);
}

}  // namespace sfumato
