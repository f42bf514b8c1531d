// The emulator's twins of mma and ldmatrix against the plain definitions in the PTX ISA: fragments
// are filled and read here by their documented places, not through the code under test.
#include "kernels/device/tensor_core.cuh"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "emulation/kernel_test.h"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;
using emulation::for_each_schedule;
using emulation::random_floats;

/// One warp: D += A B, with fragments that the host has laid out, `repeats` times.
template <bool kTf32>
void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, float* d, int repeats) {
  const int lane = static_cast<int>(threadIdx.x);
  std::uint32_t fragment_a[4], fragment_b[2];
  float sums[4];
  for (int i = 0; i < 4; ++i) fragment_a[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) fragment_b[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) sums[i] = d[lane * 4 + i];
  for (int n = 0; n < repeats; ++n) {
    if (kTf32)
      device::mma_tf32(sums, fragment_a, fragment_b);
    else
      device::mma_bf16(sums, fragment_a, fragment_b);
  }
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sums[i];
}

/// A lane's place in D: register i.
int row_of(int lane, int i) { return lane / 4 + (i < 2 ? 0 : 8); }
int column_of(int lane, int i) { return lane % 4 * 2 + i % 2; }

template <bool kTf32>
void check_product(const DeviceBuffer<std::uint32_t>& a, const DeviceBuffer<std::uint32_t>& b,
                   const std::vector<float>& matrix_a, const std::vector<float>& matrix_b,
                   int depth) {
  const auto start = random_floats(16 * 8, 7);
  for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<float> d(128);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        d[lane * 4 + i] = start[static_cast<std::size_t>(row_of(lane, i) * 8 + column_of(lane, i))];
    ASSERT_LAUNCHED(device::launch(mma_kernel<kTf32>, dim3(1), 32, 0, nullptr, a.data(), b.data(),
                                   d.data(), 2));
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = row_of(lane, i), column = column_of(lane, i);
        double product = 0;
        for (int k = 0; k < depth; ++k)
          product += double{matrix_a[static_cast<std::size_t>(row * depth + k)]} *
                     double{matrix_b[static_cast<std::size_t>(k * 8 + column)]};
        EXPECT_NEAR(d[lane * 4 + i],
                    double{start[static_cast<std::size_t>(row * 8 + column)]} + 2 * product, 1e-4)
            << "D[" << row << ", " << column << "]";
      }
  });
}

TEST(TensorCore, Bfloat16ProductHasTheDocumentedFragments) {
  auto matrix_a = random_floats(16 * 16, 1), matrix_b = random_floats(16 * 8, 2);
  for (float& v : matrix_a) v = from_bfloat16(to_bfloat16(v));
  for (float& v : matrix_b) v = from_bfloat16(to_bfloat16(v));
  const auto pair = [](float low, float high) {
    return std::uint32_t{to_bfloat16(low)} | std::uint32_t{to_bfloat16(high)} << 16;
  };
  DeviceBuffer<std::uint32_t> a(128), b(64);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const auto at_a = [&](int row, int k) {
      return matrix_a[static_cast<std::size_t>(row * 16 + k)];
    };
    const auto at_b = [&](int k) { return matrix_b[static_cast<std::size_t>(k * 8 + g)]; };
    a[lane * 4 + 0] = pair(at_a(g, 2 * t), at_a(g, 2 * t + 1));
    a[lane * 4 + 1] = pair(at_a(g + 8, 2 * t), at_a(g + 8, 2 * t + 1));
    a[lane * 4 + 2] = pair(at_a(g, 2 * t + 8), at_a(g, 2 * t + 9));
    a[lane * 4 + 3] = pair(at_a(g + 8, 2 * t + 8), at_a(g + 8, 2 * t + 9));
    b[lane * 2 + 0] = pair(at_b(2 * t), at_b(2 * t + 1));
    b[lane * 2 + 1] = pair(at_b(2 * t + 8), at_b(2 * t + 9));
  }
  check_product<false>(a, b, matrix_a, matrix_b, 16);
}

/// The nearest float32 with 10 bits of mantissa, ties away from zero: by scaling, not by bits.
float nearest_tf32(float value) {
  if (value == 0) return value;
  int exponent;
  const double fraction = std::frexp(double{value}, &exponent);  // in [1/2, 1): 11 bits
  return static_cast<float>(std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11));
}

TEST(TensorCore, Tf32ProductHasTheDocumentedFragments) {
  auto matrix_a = random_floats(16 * 8, 3), matrix_b = random_floats(8 * 8, 4);
  for (float& v : matrix_a) v = nearest_tf32(v);
  for (float& v : matrix_b) v = nearest_tf32(v);
  DeviceBuffer<std::uint32_t> a(128), b(64);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i)
      a[lane * 4 + i] = std::bit_cast<std::uint32_t>(
          matrix_a[static_cast<std::size_t>((g + i % 2 * 8) * 8 + t + i / 2 * 4)]);
    for (int i = 0; i < 2; ++i)
      b[lane * 2 + i] =
          std::bit_cast<std::uint32_t>(matrix_b[static_cast<std::size_t>((t + i * 4) * 8 + g)]);
  }
  check_product<true>(a, b, matrix_a, matrix_b, 8);
}

TEST(TensorCore, Tf32IsTheNearestWithTiesAwayFromZero) {
  auto values = random_floats(2000, 5);
  values.insert(values.end(), {0.0f, -0.0f, 1.0f, 1.0f + 0x1p-11f, -1.0f - 0x1p-11f,
                               1.0f + 0x1p-11f - 0x1p-23f, 1.0f + 0x3p-11f, 3e38f, -1e-30f});
  for (const float value : values)
    EXPECT_EQ(std::bit_cast<float>(device::to_tf32(value)), nearest_tf32(value)) << value;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(std::bit_cast<float>(device::to_tf32(-kInfinity)), -kInfinity);
  EXPECT_TRUE(
      std::isnan(std::bit_cast<float>(device::to_tf32(std::numeric_limits<float>::quiet_NaN()))));
}

/// Rows of 8 elements lie kRowStride apart, matrix after matrix.
constexpr int kRowStride = 24;

template <int kMatrices, bool kTransposed>
void load_kernel(const std::uint16_t* elements, std::uint32_t* out) {
  std::uint16_t* shared = device::shared_memory<std::uint16_t>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < kMatrices * 8 * kRowStride; i += 32) shared[i] = elements[i];
  __syncwarp(0xffffffffu);
  const std::uint16_t* row = shared + lane % (kMatrices * 8) * kRowStride;
  std::uint32_t registers[kMatrices];
  if constexpr (kMatrices == 4)
    device::load_matrix_x4<kTransposed>(registers, row);
  else
    device::load_matrix_x2<kTransposed>(registers, row);
  for (int m = 0; m < kMatrices; ++m) out[lane * kMatrices + m] = registers[m];
}

template <int kMatrices, bool kTransposed>
void check_load() {
  constexpr int kElements = kMatrices * 8 * kRowStride;
  DeviceBuffer<std::uint16_t> elements(kElements);
  for (int i = 0; i < kElements; ++i) elements[i] = static_cast<std::uint16_t>(i);
  for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<std::uint32_t> out(32 * kMatrices);
    ASSERT_LAUNCHED(device::launch(load_kernel<kMatrices, kTransposed>, dim3(1), 32,
                                   kElements * sizeof(std::uint16_t), nullptr, elements.data(),
                                   out.data()));
    for (int lane = 0; lane < 32; ++lane)
      for (int m = 0; m < kMatrices; ++m)
        for (int i = 0; i < 2; ++i) {
          const int first = lane / 4, second = lane % 4 * 2 + i;
          const int row = kTransposed ? second : first, column = kTransposed ? first : second;
          EXPECT_EQ(out[lane * kMatrices + m] >> (16 * i) & 0xffffu,
                    static_cast<unsigned>((m * 8 + row) * kRowStride + column))
              << "lane " << lane << " matrix " << m;
        }
  });
}

TEST(TensorCore, LoadMatrixIsItsDefinition) {
  check_load<4, false>();
  check_load<4, true>();
  check_load<2, false>();
  check_load<2, true>();
}

void misaligned_kernel() {
  std::uint32_t registers[4];
  device::load_matrix_x4<false>(registers, device::shared_memory<unsigned char>() + 8);
}

TEST(TensorCore, LoadMatrixRefusesAMisalignedRow) {
  EXPECT_NE(device::launch(misaligned_kernel, dim3(1), 32, 1024, nullptr), 0);
  EXPECT_NE(emulation::last_error().find("16 bytes"), std::string::npos);
  emulation::clear_error();
}

template <int kBytes>
void copy_kernel(const unsigned char* from, unsigned char* out, int source_bytes) {
  unsigned char* shared = device::shared_memory<unsigned char>();
  device::async_copy<kBytes>(shared, from, source_bytes);
  device::async_commit();
  device::async_copy<kBytes>(shared + 16, from, 0);
  device::async_commit();
  device::async_wait<1>();
  for (int i = 0; i < kBytes; ++i) out[i] = shared[i];
  for (int i = 0; i < kBytes; ++i) out[16 + i] = shared[16 + i];  // still under way
  device::async_wait<0>();
  for (int i = 0; i < kBytes; ++i) out[32 + i] = shared[16 + i];
}

template <int kBytes>
void check_copy(int source_bytes) {
  DeviceBuffer<unsigned char> from(16), out(48);
  for (int i = 0; i < 16; ++i) from[i] = static_cast<unsigned char>(i + 1);
  ASSERT_LAUNCHED(device::launch(copy_kernel<kBytes>, dim3(1), 1, 32, nullptr, from.data(),
                                 out.data(), source_bytes));
  for (int i = 0; i < kBytes; ++i) {
    EXPECT_EQ(out[i], i < source_bytes ? i + 1 : 0);
    EXPECT_EQ(out[16 + i], 0xff);
    EXPECT_EQ(out[32 + i], 0);
  }
}

TEST(AsyncCopy, FillsWithZerosAndArrivesWithItsGroup) {
  for (const int bytes : {0, 4, 16}) check_copy<16>(bytes);
  for (const int bytes : {0, 2, 8}) check_copy<8>(bytes);
  for (const int bytes : {0, 4}) check_copy<4>(bytes);
}

}  // namespace
}  // namespace sfumato
