// Squared norms of rows: a warp for a short row, else one block for every chunk of it.
#include <cuda_runtime.h>

#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/row_norm.h"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarp;
constexpr std::int64_t kShortRow = 1024;  // at most this: one warp
constexpr int kInFlight = 4;              // loads that a thread has under way

/// The sum of squares of elements [begin, end) of `row` that belong to thread `thread` of
/// `threads`: packet after packet, `threads` packets apart.
template <bool kAligned, class T>
__device__ __forceinline__ double squares(const T* __restrict__ row, std::int64_t begin,
                                          std::int64_t end, int thread, int threads) {
  constexpr int kSize = device::Packet<T>::kSize;
  const std::int64_t stride = std::int64_t{threads} * kSize;
  double sum = 0;
  for (std::int64_t first = begin + std::int64_t{thread} * kSize; first < end;
       first += kInFlight * stride) {
    device::Packet<T> packets[kInFlight];
    SFUMATO_UNROLL
    for (int n = 0; n < kInFlight; ++n) {
      const std::int64_t j = first + n * stride;
      packets[n] = j < end ? device::load_packet<kAligned>(row + j, end - j) : device::Packet<T>{};
    }
    SFUMATO_UNROLL
    for (int n = 0; n < kInFlight; ++n) {
      SFUMATO_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const double v = device::load_as_float(&packets[n].values[i]);
        sum += v * v;
      }
    }
  }
  return sum;
}

template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads)
    short_rows_kernel(const T* __restrict__ rows, std::int64_t count, std::int64_t columns,
                      double* __restrict__ out) {
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  const std::int64_t row =
      std::int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / device::kWarp;
  if (row >= count) return;
  const double sum =
      device::warp_sum(squares<kAligned>(rows + row * columns, 0, columns, lane, device::kWarp));
  if (lane == 0) out[row] = sum;
}

/// Block (row, chunk): out[row * chunks + chunk].
template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads)
    long_rows_kernel(const T* __restrict__ rows, std::int64_t columns, std::int64_t chunks,
                     double* __restrict__ out) {
  double* shared = device::shared_memory<double>();
  const std::int64_t row = blockIdx.x / chunks;
  const std::int64_t begin = (blockIdx.x % chunks) * kRowNormChunk;
  const std::int64_t rest = columns - begin;
  const std::int64_t end = begin + (rest < kRowNormChunk ? rest : kRowNormChunk);
  const double sum = device::block_sum(
      squares<kAligned>(rows + row * columns, begin, end, static_cast<int>(threadIdx.x), kThreads),
      shared);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

/// out[row] = the sum of its chunks: one warp each.
__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(const double* __restrict__ sums, std::int64_t count, std::int64_t chunks,
                      double* __restrict__ out) {
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  const std::int64_t row =
      std::int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / device::kWarp;
  if (row >= count) return;
  double sum = 0;
  for (std::int64_t chunk = lane; chunk < chunks; chunk += device::kWarp)
    sum += sums[row * chunks + chunk];
  sum = device::warp_sum(sum);
  if (lane == 0) out[row] = sum;
}

template <bool kAligned, class T>
int launch_rows(const T* rows, std::int64_t count, std::int64_t columns, double* out,
                double* workspace, void* stream) {
  const auto rows_grid = device::blocks((count + kWarps - 1) / kWarps);
  if (columns <= kShortRow)
    return device::launch(short_rows_kernel<kAligned, T>, rows_grid, kThreads, 0, stream, rows,
                          count, columns, out);
  const std::int64_t chunks = (columns + kRowNormChunk - 1) / kRowNormChunk;
  const int status = device::launch(long_rows_kernel<kAligned, T>, device::blocks(count * chunks),
                                    kThreads, device::kWarp * sizeof(double), stream, rows, columns,
                                    chunks, chunks > 1 ? workspace : out);
  if (status != cudaSuccess || chunks == 1) return status;
  return device::launch(add_chunks_kernel, rows_grid, kThreads, 0, stream, workspace, count, chunks,
                        out);
}

}  // namespace

int launch_row_squared_norms(const void* rows, Element element, std::int64_t count,
                             std::int64_t columns, double* out, void* workspace, void* stream) {
  if (count == 0) return cudaSuccess;
  return device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    const auto* data = static_cast<const T*>(rows);
    auto* sums = static_cast<double*>(workspace);
    return device::rows_are_aligned<T>(rows, columns)
               ? launch_rows<true>(data, count, columns, out, sums, stream)
               : launch_rows<false>(data, count, columns, out, sums, stream);
  });
}

}  // namespace sfumato
