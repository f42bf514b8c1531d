#include "kernels/row_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

/// From the last element to the first, in extended precision.
std::vector<double> brute_force(const std::vector<float>& rows, std::int64_t count,
                                std::int64_t columns) {
  std::vector<double> norms;
  for (std::int64_t r = 0; r < count; ++r) {
    long double sum = 0;
    for (std::int64_t j = columns; j-- > 0;) {
      const long double v = rows[static_cast<std::size_t>(r * columns + j)];
      sum += v * v;
    }
    norms.push_back(static_cast<double>(sum));
  }
  return norms;
}

std::vector<double> twin(const std::vector<float>& rows, Element element, std::int64_t count,
                         std::int64_t columns) {
  const auto data = device_elements(rows, element);
  DeviceBuffer<double> out(count);
  row_squared_norms_cpu(data.data(), element, count, columns, out.data());
  return out.to_vector();
}

std::vector<double> kernel(const std::vector<float>& rows, Element element, std::int64_t count,
                           std::int64_t columns, std::int64_t first = 0) {
  ShiftedElements data(rows, element, first);
  DeviceBuffer<double> out(count);
  DeviceBuffer<unsigned char> workspace(row_squared_norms_workspace_bytes(count, columns));
  EXPECT_LAUNCHED(launch_row_squared_norms(data.data(), element, count, columns, out.data(),
                                           workspace.data(), nullptr));
  return out.to_vector();
}

struct Shape {
  std::int64_t count, columns;
};
// Short rows, one chunk, several chunks; one element beside every border.
constexpr Shape kShapes[] = {{0, 5},    {1, 1},    {3, 0},    {9, 3},    {2, 8},    {17, 31},
                             {5, 129},  {3, 1023}, {8, 1024}, {2, 1025}, {3, 4100}, {2, 8191},
                             {2, 8192}, {3, 8193}, {1, 8200}, {2, 24580}};

TEST(RowNorm, TwinIsTheSumOfSquares) {
  for (const Element element : kElements)
    for (const auto& [count, columns] : kShapes) {
      const auto rows = random_floats(count * columns, 7);
      EXPECT_TRUE(all_near(twin(rows, element, count, columns),
                           brute_force(as_stored(rows, element), count, columns), 1e-13, 0));
    }
}

TEST(RowNorm, KernelIsTheTwin) {
  for (const Element element : kElements)
    for (const auto& [count, columns] : kShapes)
      for (const std::int64_t first : {0, 1}) {
        SCOPED_TRACE(testing::Message() << count << " x " << columns << " from " << first);
        const auto rows = random_floats(count * columns, 8);
        EXPECT_TRUE(all_near(kernel(rows, element, count, columns, first),
                             twin(rows, element, count, columns), 1e-13, 0));
      }
}

TEST(RowNorm, KernelIsTheTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    const Element element = any_element();
    const std::int64_t count = any_of(0, 20), columns = any_of(0, 1500);
    const auto rows = random_floats(count * columns, any_seed(), 1e3f);
    RC_ASSERT(static_cast<bool>(all_near(kernel(rows, element, count, columns, any_of(0, 3)),
                                         twin(rows, element, count, columns), 1e-13, 0)));
  }));
}

TEST(RowNorm, BitsDependOnTheRowAlone) {
  for (const Element element : kElements)
    for (const std::int64_t columns : {100, 3000, 20000}) {
      constexpr std::int64_t kCount = 5;
      const auto rows = random_floats(kCount * columns, 9);
      const auto all = kernel(rows, element, kCount, columns);
      for_each_schedule([&](std::uint64_t) {
        EXPECT_TRUE(all_same_bits(kernel(rows, element, kCount, columns), all));
        EXPECT_TRUE(all_same_bits(kernel(rows, element, kCount, columns, 1), all));
      });
      const std::vector<float> third(rows.begin() + 3 * columns, rows.begin() + 4 * columns);
      EXPECT_EQ(kernel(third, element, 1, columns)[0], all[3]);
    }
}

TEST(RowNorm, NotANumberStaysInItsRow) {
  for (const Element element : kElements)
    for (const std::int64_t columns : {40, 2000, 9000}) {
      auto rows = random_floats(4 * columns, 10);
      const auto clean = kernel(rows, element, 4, columns);
      rows[static_cast<std::size_t>(columns - 1)] = NAN;
      rows[static_cast<std::size_t>(2 * columns)] = -std::numeric_limits<float>::infinity();
      const auto norms = kernel(rows, element, 4, columns);
      EXPECT_TRUE(std::isnan(norms[0]));
      EXPECT_EQ(norms[1], clean[1]);
      EXPECT_EQ(norms[2], std::numeric_limits<double>::infinity());
      EXPECT_EQ(norms[3], clean[3]);
    }
}

}  // namespace
}  // namespace sfumato::emulation
