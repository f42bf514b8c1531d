// Squared norms of per-example weight gradients from Gram matrices: norms of the tokens, then a
// block for every pair of tiles of an example, then the pairs' sums.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/device/gram_tile.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/gram_norm.h"
#include "kernels/gram_norm_plan.h"
#include "kernels/row_norm.h"

namespace sfumato {
namespace {

/// ConvShape as device code can read it.
struct Shape {
  std::int64_t examples, draws, height, width, channels, out_height, out_width, out_channels;
  std::int64_t kernel[2], stride[2], padding[2], dilation[2];
};
Shape device_shape(const ConvShape& s) {
  return {s.examples,
          s.draws,
          s.height,
          s.width,
          s.channels,
          s.out_height,
          s.out_width,
          s.out_channels,
          {s.kernel[0], s.kernel[1]},
          {s.stride[0], s.stride[1]},
          {s.padding[0], s.padding[1]},
          {s.dilation[0], s.dilation[1]}};
}

struct Geometry {
  Shape shape;
  GramPlan plan;
  double x_error, x_underflow, dy_error, dy_underflow;
};

/// What a block writes: sum of D U, bound of its error, sum of the terms' magnitudes.
constexpr int kSums = 3;

/// A tile of an example: its place among the tiles along draws, height and width.
struct Tile {
  std::int64_t draw, y, x;
};
__device__ __forceinline__ Tile tile_at(std::int64_t index, const GramPlan& plan) {
  return {index / (plan.blocks_width * plan.blocks_height),
          index / plan.blocks_width % plan.blocks_height, index % plan.blocks_width};
}

/// Sum over the taps of the squared norms of the input that token (draw, y, x) reads; `squares` are
/// those of the example's positions.
__device__ __forceinline__ double unfolded_square(const double* __restrict__ squares,
                                                  const Shape& shape, std::int64_t draw,
                                                  std::int64_t y, std::int64_t x) {
  double sum = 0;
  for (std::int64_t ky = 0; ky < shape.kernel[0]; ++ky) {
    const std::int64_t row = y * shape.stride[0] - shape.padding[0] + ky * shape.dilation[0];
    if (row < 0 || row >= shape.height) continue;
    for (std::int64_t kx = 0; kx < shape.kernel[1]; ++kx) {
      const std::int64_t column = x * shape.stride[1] - shape.padding[1] + kx * shape.dilation[1];
      if (column < 0 || column >= shape.width) continue;
      sum += squares[(draw * shape.height + row) * shape.width + column];
    }
  }
  return sum;
}

/// The tokens of two tiles, in shared memory; tile s has entries s * kTile and on.
struct TokenTables {
  double* x_norms;
  double* dy_norms;
  std::int64_t* dy_places;  // negative: no token
  int* halo_places;         // of the token's first tap
};

/// Fills in entry `n` of tile `tile`.
__device__ __forceinline__ void set_token(const TokenTables& tables, int entry, int n,
                                          const Tile& tile, std::int64_t example,
                                          const Geometry& geometry, const double* x_squares,
                                          const double* dy_squares) {
  const auto& [shape, plan, x_error, x_underflow, dy_error, dy_underflow] = geometry;
  const int nx = n % plan.block_width, ny = n / plan.block_width % plan.block_height;
  const int nd = n / (plan.block_width * plan.block_height);
  const std::int64_t draw = tile.draw * plan.block_draws + nd;
  const std::int64_t y = tile.y * plan.block_height + ny, x = tile.x * plan.block_width + nx;
  const bool inside =
      n < plan.tokens() && draw < shape.draws && y < shape.out_height && x < shape.out_width;
  tables.dy_places[entry] = -1;
  tables.halo_places[entry] = 0;
  tables.x_norms[entry] = 0;
  tables.dy_norms[entry] = 0;
  if (!inside) return;
  const std::int64_t row =
      ((example * shape.draws + draw) * shape.out_height + y) * shape.out_width + x;
  tables.dy_places[entry] = row * shape.out_channels;
  tables.halo_places[entry] =
      (nd * plan.halo_height + static_cast<int>(ny * shape.stride[0] / plan.step_y)) *
          plan.halo_width +
      static_cast<int>(nx * shape.stride[1] / plan.step_x);
  const double* squares = x_squares + example * shape.draws * shape.height * shape.width;
  tables.x_norms[entry] = sqrt(unfolded_square(squares, shape, draw, y, x));
  tables.dy_norms[entry] = sqrt(dy_squares[row]);
}

/// Where the input at position `h` of a tile's halo starts, for the chunk of taps whose first is
/// (tap_y, tap_x); negative in the padding.
__device__ __forceinline__ std::int64_t halo_place(int h, const Tile& tile, std::int64_t example,
                                                   std::int64_t tap_y, std::int64_t tap_x,
                                                   const Geometry& geometry) {
  const auto& shape = geometry.shape;
  const auto& plan = geometry.plan;
  const int hx = h % plan.halo_width, hy = h / plan.halo_width % plan.halo_height;
  const std::int64_t draw = tile.draw * plan.block_draws + h / (plan.halo_width * plan.halo_height);
  const std::int64_t y = tile.y * plan.block_height * shape.stride[0] - shape.padding[0] +
                         tap_y * shape.dilation[0] + hy * plan.step_y;
  const std::int64_t x = tile.x * plan.block_width * shape.stride[1] - shape.padding[1] +
                         tap_x * shape.dilation[1] + hx * plan.step_x;
  if (draw >= shape.draws || y < 0 || y >= shape.height || x < 0 || x >= shape.width) return -1;
  return (((example * shape.draws + draw) * shape.height + y) * shape.width + x) * shape.channels;
}

/// gram[h, k] = <input at halo position h of the first tile, at k of the second>. Of a tile with
/// itself (first == second) half of the parts are the others' transposes.
template <bool kAligned, class T, int kTile>
__device__ __forceinline__ void halo_gram(float* gram, unsigned char* stages,
                                          const T* __restrict__ x, const std::int64_t* first,
                                          const std::int64_t* second, const Geometry& geometry) {
  const int halo = geometry.plan.halo(), stride = geometry.plan.gram_stride;
  const bool symmetric = first == second;
  for (int row = 0; row < halo; row += kTile) {
    for (int column = symmetric ? row : 0; column < halo; column += kTile) {
      const device::GramRows a = {first + row, halo - row < kTile ? halo - row : kTile};
      const device::GramRows b = {second + column, halo - column < kTile ? halo - column : kTile};
      device::GramTile<T, kTile> products;
      device::gram_products<kAligned>(products, stages, x, geometry.shape.channels, a, b);
      SFUMATO_UNROLL
      for (int i = 0; i < products.kRows; ++i) {
        if (products.row(i) >= a.count) continue;
        const int h = row + products.row(i);
        SFUMATO_UNROLL
        for (int j = 0; j < products.kColumns; ++j) {
          if (products.column(j) >= b.count) continue;
          const int k = column + products.column(j);
          gram[h * stride + k] = products.value(i, j);
          if (symmetric && column > row) gram[k * stride + h] = products.value(i, j);
        }
      }
    }
  }
}

/// This thread's share of sum and error over the pairs of tokens of two tiles, for taps_y x taps_x
/// taps; `products` are D. The part of the error that is for all taps comes with `first_chunk`.
template <class T, int kTile>
__device__ __forceinline__ void add_pairs(const device::GramTile<T, kTile>& products,
                                          const float* gram, const TokenTables& tables, int second,
                                          int taps_y, int taps_x, bool first_chunk,
                                          const Geometry& geometry, double& sum, double& error) {
  using Products = device::GramTile<T, kTile>;
  const auto& [shape, plan, x_error, x_underflow, dy_error, dy_underflow] = geometry;
  const int tap_x = static_cast<int>(shape.dilation[1] / plan.step_x);
  const int tap_y = static_cast<int>(shape.dilation[0] / plan.step_y) * plan.halo_width;
  int columns[Products::kColumns];
  SFUMATO_UNROLL
  for (int j = 0; j < Products::kColumns; ++j)
    columns[j] = tables.halo_places[second + Products::column(j)];
  SFUMATO_UNROLL
  for (int i = 0; i < Products::kRows; ++i) {
    const int t = Products::row(i);
    if (tables.dy_places[t] < 0) continue;
    float unfolded[Products::kColumns] = {};
    const float* row = gram + tables.halo_places[t] * plan.gram_stride;
    for (int ky = 0; ky < taps_y; ++ky) {
      for (int kx = 0; kx < taps_x; ++kx) {
        const float* tap = row + (ky * tap_y + kx * tap_x) * (plan.gram_stride + 1);
        SFUMATO_UNROLL
        for (int j = 0; j < Products::kColumns; ++j) unfolded[j] += tap[columns[j]];
      }
    }
    const double dy_scale = dy_error * tables.dy_norms[t], x_scale = x_error * tables.x_norms[t];
    SFUMATO_UNROLL
    for (int j = 0; j < Products::kColumns; ++j) {
      const int s = second + Products::column(j);
      if (tables.dy_places[s] < 0) continue;
      const double d = products.value(i, j), u = unfolded[j];
      const double d_error = dy_scale * tables.dy_norms[s] + dy_underflow;
      sum += d * u;
      error += d_error * fabs(u);
      if (first_chunk) error += (fabs(d) + d_error) * (x_scale * tables.x_norms[s] + x_underflow);
    }
  }
}

/// Block: one pair of tiles of one example, items first_item and on; sums [items, kSums].
template <bool kAligned, class T, int kTile>
__global__ void __launch_bounds__(2 * kTile)
    gram_pair_kernel(const T* __restrict__ x, const T* __restrict__ dy,
                     const double* __restrict__ x_squares, const double* __restrict__ dy_squares,
                     Geometry geometry, std::int64_t first_item, double* __restrict__ sums) {
  const auto& shape = geometry.shape;
  const auto& plan = geometry.plan;
  const int halo = plan.halo(), thread = static_cast<int>(threadIdx.x);
  constexpr int kStageBytes = gram_stage_bytes(device::kElementOf<T>, kTile);
  auto* const stages = device::shared_memory<unsigned char>();
  auto* const gram = reinterpret_cast<float*>(stages + kStageBytes);
  auto* const warp_sums = reinterpret_cast<double*>(gram + halo * plan.gram_stride);
  auto* const halo_places = reinterpret_cast<std::int64_t*>(warp_sums + device::kWarp);
  TokenTables tables;
  tables.x_norms = reinterpret_cast<double*>(halo_places + 2 * halo);
  tables.dy_norms = tables.x_norms + 2 * kTile;
  tables.dy_places = reinterpret_cast<std::int64_t*>(tables.dy_norms + 2 * kTile);
  tables.halo_places = reinterpret_cast<int*>(tables.dy_places + 2 * kTile);

  // Pair p of tiles (a, b), a <= b: p = b (b + 1) / 2 + a.
  const std::int64_t item = first_item + blockIdx.x;
  const std::int64_t example = item / plan.pairs(), pair = item % plan.pairs();
  auto b = static_cast<std::int64_t>((sqrt(8.0 * static_cast<double>(pair) + 1) - 1) / 2);
  while (b * (b + 1) / 2 > pair) --b;
  while ((b + 1) * (b + 2) / 2 <= pair) ++b;
  const std::int64_t a = pair - b * (b + 1) / 2;
  const bool diagonal = a == b;
  const Tile tile_a = tile_at(a, plan), tile_b = tile_at(b, plan);
  set_token(tables, thread, thread % kTile, thread < kTile ? tile_a : tile_b, example, geometry,
            x_squares, dy_squares);
  // A tile with itself: the second is the first.
  const int second = diagonal ? 0 : kTile;
  const std::int64_t* second_halo = diagonal ? halo_places : halo_places + halo;

  double sum = 0, error = 0;
  for (std::int64_t tap_y = 0; tap_y < shape.kernel[0]; tap_y += plan.chunk_height) {
    for (std::int64_t tap_x = 0; tap_x < shape.kernel[1]; tap_x += plan.chunk_width) {
      for (int h = thread; h < 2 * halo; h += 2 * kTile)
        halo_places[h] =
            halo_place(h % halo, h < halo ? tile_a : tile_b, example, tap_y, tap_x, geometry);
      halo_gram<kAligned, T, kTile>(gram, stages, x, halo_places, second_halo, geometry);
      device::GramTile<T, kTile> products;
      const device::GramRows rows = {tables.dy_places, plan.tokens()};
      device::gram_products<kAligned>(products, stages, dy, shape.out_channels, rows,
                                      {tables.dy_places + second, plan.tokens()});
      const std::int64_t rest_y = shape.kernel[0] - tap_y, rest_x = shape.kernel[1] - tap_x;
      add_pairs(products, gram, tables, second,
                static_cast<int>(rest_y < plan.chunk_height ? rest_y : plan.chunk_height),
                static_cast<int>(rest_x < plan.chunk_width ? rest_x : plan.chunk_width),
                tap_y == 0 && tap_x == 0, geometry, sum, error);
    }
  }
  const double magnitude =
      diagonal && thread < kTile ? tables.x_norms[thread] * tables.dy_norms[thread] : 0.0;
  const double weight = diagonal ? 1 : 2;
  sum = device::block_sum(weight * sum, warp_sums);
  error = device::block_sum(weight * error, warp_sums);
  const double total = device::block_sum(magnitude, warp_sums);
  if (thread == 0) {
    sums[item * kSums] = sum;
    sums[item * kSums + 1] = error;
    sums[item * kSums + 2] = total;
  }
}

constexpr int kFinishThreads = 256;

/// Block: one example; adds up its pairs in order.
__global__ void __launch_bounds__(kFinishThreads)
    gram_finish_kernel(const double* __restrict__ sums, std::int64_t pairs, std::int64_t tokens,
                       double* __restrict__ squared_norm) {
  double* shared = device::shared_memory<double>();
  double totals[kSums] = {};
  for (std::int64_t pair = threadIdx.x; pair < pairs; pair += kFinishThreads) {
    SFUMATO_UNROLL
    for (int n = 0; n < kSums; ++n) totals[n] += sums[(blockIdx.x * pairs + pair) * kSums + n];
  }
  SFUMATO_UNROLL
  for (int n = 0; n < kSums; ++n) totals[n] = device::block_sum(totals[n], shared);
  if (threadIdx.x == 0)
    squared_norm[blockIdx.x] = gram_norm_with_floors(totals[0], totals[1], totals[2], tokens);
}

/// Thread: one example of a single token, whose gradient is an outer product.
__global__ void __launch_bounds__(kFinishThreads)
    gram_single_token_kernel(const double* __restrict__ x_squares,
                             const double* __restrict__ dy_squares, Shape shape,
                             double* __restrict__ squared_norm) {
  const std::int64_t example = std::int64_t{blockIdx.x} * kFinishThreads + threadIdx.x;
  if (example >= shape.examples) return;
  squared_norm[example] =
      dy_squares[example] *
      unfolded_square(x_squares + example * shape.height * shape.width, shape, 0, 0, 0);
}

template <bool kAligned, class T, int kTile>
int launch_pairs(const T* x, const T* dy, const double* x_squares, const double* dy_squares,
                 const Geometry& geometry, double* sums, void* stream) {
  constexpr std::int64_t kMostBlocks = 1 << 30;
  const std::int64_t items = geometry.shape.examples * geometry.plan.pairs();
  int status = cudaSuccess;
  for (std::int64_t first = 0; first < items && status == cudaSuccess; first += kMostBlocks)
    status = device::launch(gram_pair_kernel<kAligned, T, kTile>,
                            device::blocks(std::min(items - first, kMostBlocks)), 2 * kTile,
                            static_cast<std::size_t>(geometry.plan.shared_bytes), stream, x, dy,
                            x_squares, dy_squares, geometry, first, sums);
  return status;
}

}  // namespace

int launch_gram_norm_conv(const void* x, const void* dy, Element in, const ConvShape& shape,
                          double* squared_norm, void* workspace, void* stream) {
  if (shape.examples == 0) return cudaSuccess;
  const std::int64_t x_rows = shape.examples * shape.draws * shape.height * shape.width;
  const std::int64_t dy_rows = shape.examples * shape.tokens();
  const Geometry geometry = {device_shape(shape),
                             plan_gram_norm(shape, in, device::most_shared_bytes()),
                             gram_entry_error(in, shape.channels, shape.taps()),
                             gram_entry_underflow(shape.channels, shape.taps()),
                             gram_entry_error(in, shape.out_channels, 1),
                             gram_entry_underflow(shape.out_channels, 1)};
  auto* const x_squares = static_cast<double*>(workspace);
  double* const dy_squares = x_squares + x_rows;
  double* const sums = dy_squares + dy_rows;
  double* const scratch = sums + kSums * shape.examples * geometry.plan.pairs();
  int status = launch_row_squared_norms(x, in, x_rows, shape.channels, x_squares, scratch, stream);
  if (status == cudaSuccess)
    status =
        launch_row_squared_norms(dy, in, dy_rows, shape.out_channels, dy_squares, scratch, stream);
  if (status != cudaSuccess) return status;
  if (shape.tokens() == 1)
    return device::launch(gram_single_token_kernel,
                          device::blocks((shape.examples + kFinishThreads - 1) / kFinishThreads),
                          kFinishThreads, 0, stream, x_squares, dy_squares, geometry.shape,
                          squared_norm);
  status = device::with_element(in, [&](auto type) {
    using T = typename decltype(type)::Type;
    const auto* xs = static_cast<const T*>(x);
    const auto* dys = static_cast<const T*>(dy);
    const bool aligned = device::rows_are_aligned<T>(x, shape.channels) &&
                         device::rows_are_aligned<T>(dy, shape.out_channels);
    const auto run = [&](auto launcher) {
      return launcher(xs, dys, x_squares, dy_squares, geometry, sums, stream);
    };
    if (geometry.plan.tile == 64)
      return aligned ? run(launch_pairs<true, T, 64>) : run(launch_pairs<false, T, 64>);
    return aligned ? run(launch_pairs<true, T, 128>) : run(launch_pairs<false, T, 128>);
  });
  if (status != cudaSuccess) return status;
  return device::launch(gram_finish_kernel, device::blocks(shape.examples), kFinishThreads,
                        device::kWarp * sizeof(double), stream, sums, geometry.plan.pairs(),
                        shape.tokens(), squared_norm);
}

int launch_gram_norm_linear(const void* x, const void* dy, Element in, const LinearShape& shape,
                            double* squared_norm, void* workspace, void* stream) {
  return launch_gram_norm_conv(x, dy, in, as_conv_shape(shape), squared_norm, workspace, stream);
}

}  // namespace sfumato
