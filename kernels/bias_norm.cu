// Bias gradients: column sums of each example, then the norm of what is stored.
#include <cuda_runtime.h>

#include "kernels/bias_norm.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr int kInFlight = 4;  // rows that a thread asks for before it adds the first

/// How a block covers a run of tokens: `lanes` threads side by side, a packet each, and below each
/// other as many rows as there are threads for.
struct Cover {
  std::int64_t tokens, width, run, runs, tiles;
  int lanes;
};

/// Block (example, run, tile of lanes * kSize columns): the columns' sums over the run go to
/// sums[example, run, :].
template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads)
    sum_runs_kernel(const T* __restrict__ dy, Cover cover, double* __restrict__ sums) {
  constexpr int kSize = device::Packet<T>::kSize;
  double* shared = device::shared_memory<double>();  // [rows][lanes * kSize]
  const int lane = static_cast<int>(threadIdx.x) % cover.lanes;
  const int row = static_cast<int>(threadIdx.x) / cover.lanes;
  const int rows = kThreads / cover.lanes;
  const int columns = cover.lanes * kSize;
  const std::int64_t tile = blockIdx.x % cover.tiles;
  const std::int64_t run = blockIdx.x / cover.tiles;  // of all examples' runs
  const std::int64_t example = run / cover.runs;
  const std::int64_t begin = run % cover.runs * cover.run;
  const std::int64_t end = begin + cover.run < cover.tokens ? begin + cover.run : cover.tokens;
  const std::int64_t first = tile * columns + lane * kSize;
  const T* place = dy + example * cover.tokens * cover.width + first;
  double totals[kSize] = {};
  if (first < cover.width)
    for (std::int64_t t = begin + row; t < end; t += std::int64_t{kInFlight} * rows) {
      device::Packet<T> packets[kInFlight];
      SFUMATO_UNROLL
      for (int n = 0; n < kInFlight; ++n)
        packets[n] = t + n * rows < end
                         ? device::load_packet<kAligned>(place + (t + n * rows) * cover.width,
                                                         cover.width - first)
                         : device::Packet<T>{};
      SFUMATO_UNROLL
      for (int n = 0; n < kInFlight; ++n) {
        SFUMATO_UNROLL
        for (int i = 0; i < kSize; ++i)
          totals[i] += double{device::load_as_float(&packets[n].values[i])};
      }
    }
  SFUMATO_UNROLL
  for (int i = 0; i < kSize; ++i) shared[row * columns + lane * kSize + i] = totals[i];
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < columns; c += kThreads) {
    const std::int64_t p = tile * columns + c;
    if (p >= cover.width) break;
    double sum = 0;
    for (int r = 0; r < rows; ++r) sum += shared[r * columns + c];
    sums[run * cover.width + p] = sum;
  }
}

/// One block per example: the sums of its runs, rounded and stored, and the norm of them.
__global__ void __launch_bounds__(kThreads)
    add_runs_kernel(const double* __restrict__ sums, std::int64_t runs, std::int64_t width,
                    float* __restrict__ bias_grad, double* __restrict__ squared_norm) {
  double* shared = device::shared_memory<double>();
  const std::int64_t example = blockIdx.x;
  double squares = 0;
  for (std::int64_t p = threadIdx.x; p < width; p += kThreads) {
    const double* column = sums + example * runs * width + p;
    double sum = 0;
    for (std::int64_t run = 0; run < runs; ++run) sum += column[run * width];
    const float stored = static_cast<float>(sum);
    if (bias_grad != nullptr) bias_grad[example * width + p] = stored;
    squares += double{stored} * double{stored};
  }
  squares = device::block_sum(squares, shared);
  if (threadIdx.x == 0 && squared_norm != nullptr) squared_norm[example] = squares;
}

template <bool kAligned, class T>
int launch_sums(const T* dy, std::int64_t examples, std::int64_t tokens, std::int64_t width,
                double* sums, void* stream) {
  constexpr std::int64_t kSize = device::Packet<T>::kSize;
  const std::int64_t run = bias_norm_run(tokens);
  Cover cover = {tokens, width, run, (tokens + run - 1) / run, 0, 1};
  while (cover.lanes < device::kWarp && cover.lanes * kSize < width) cover.lanes *= 2;
  cover.tiles = (width + cover.lanes * kSize - 1) / (cover.lanes * kSize);
  return device::launch(sum_runs_kernel<kAligned, T>,
                        device::blocks(examples * cover.runs * cover.tiles), kThreads,
                        kThreads * kSize * sizeof(double), stream, dy, cover, sums);
}

}  // namespace

int launch_bias_norm(const void* dy, Element element, std::int64_t examples, std::int64_t tokens,
                     std::int64_t width, float* bias_grad, double* squared_norm, void* workspace,
                     void* stream) {
  if (examples == 0 || (bias_grad == nullptr && squared_norm == nullptr)) return cudaSuccess;
  auto* sums = static_cast<double*>(workspace);
  const int status = device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    const auto* data = static_cast<const T*>(dy);
    return device::rows_are_aligned<T>(dy, width)
               ? launch_sums<true>(data, examples, tokens, width, sums, stream)
               : launch_sums<false>(data, examples, tokens, width, sums, stream);
  });
  if (status != cudaSuccess) return status;
  const std::int64_t run = bias_norm_run(tokens);
  return device::launch(add_runs_kernel, device::blocks(examples), kThreads,
                        device::kWarp * sizeof(double), stream, sums, (tokens + run - 1) / run,
                        width, bias_grad, squared_norm);
}

}  // namespace sfumato
