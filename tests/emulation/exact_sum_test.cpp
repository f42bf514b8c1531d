#include "kernels/exact_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

using Floats = std::vector<float>;
using Integers = std::vector<std::int64_t>;

Integers added_by_kernel(const Floats& values, ExactGrid grid, bool store, const Integers& sum) {
  const DeviceBuffer<float> from(values);
  DeviceBuffer<std::int64_t> to(sum);
  EXPECT_LAUNCHED(launch_exact_sum_add(from.data(), from.size(), grid, store, to.data(), nullptr));
  return to.to_vector();
}
Integers added_by_twin(const Floats& values, ExactGrid grid, bool store, Integers sum) {
  exact_sum_add_cpu(values.data(), static_cast<std::int64_t>(values.size()), grid, store,
                    sum.data());
  return sum;
}
Floats taken_by_kernel(const Integers& sum, double unit) {
  const DeviceBuffer<std::int64_t> from(sum);
  DeviceBuffer<float> to(Floats(sum.size(), NAN));
  EXPECT_LAUNCHED(launch_exact_sum_take(from.data(), from.size(), unit, to.data(), nullptr));
  return to.to_vector();
}
Floats taken_by_twin(const Integers& sum, double unit) {
  Floats out(sum.size(), NAN);
  exact_sum_take_cpu(sum.data(), static_cast<std::int64_t>(sum.size()), unit, out.data());
  return out;
}

/// By hand: units of 1/4 and at most 1000 of them.
template <class Add>
void check_formula(const Add& add) {
  const ExactGrid grid{4, 1000};
  const Floats values = {1,     -1.125f, 0.125f,   0.375f,   -0.25f, 249.9f,
                         250.f, 251.f,   -3.0e38f, INFINITY, NAN,    -INFINITY};
  // -4.5 and 0.5 are ties: to the even neighbour; 999.6 rounds to the limit.
  const Integers wanted = {4, -4, 0, 2, -1, 1000, 1000, 1000, -1000, 1000, 0, -1000};
  const Integers before(values.size(), 7);
  EXPECT_EQ(add(values, grid, true, before), wanted);
  Integers sums = wanted;
  for (std::int64_t& each : sums) each += 7;
  EXPECT_EQ(add(values, grid, false, before), sums);
}

template <class Take>
void check_taken(const Take& take) {
  const std::int64_t large = (std::int64_t{1} << 60) + 1;
  EXPECT_EQ(take({0, 1, -3, large, -large}, 0x1p-40),
            (Floats{0, 0x1p-40f, -0x1.8p-39f, 0x1p20f, -0x1p20f}));
  // Between two float32: 2^24 + 1 to the even one.
  EXPECT_EQ(take({16777217, 16777219}, 1), (Floats{16777216, 16777220}));
}

TEST(ExactSum, TwinIsTheFormula) {
  check_formula(added_by_twin);
  check_taken(taken_by_twin);
}
TEST(ExactSum, KernelIsTheFormula) {
  check_formula(added_by_kernel);
  check_taken(taken_by_kernel);
}

TEST(ExactSum, KernelIsTheTwinForAnySize) {
  EXPECT_TRUE(rc::check([] {
    const auto count =
        *rc::gen::element<std::int64_t>(0, 1, 31, 255, 256, 1023, 1024, 1025, 4096, 5001);
    const ExactGrid grid{std::ldexp(1.0, static_cast<int>(any_of(20, 60))), 0x1p45};
    Floats values = random_floats(count, any_seed());
    if (count > 7) values[7] = NAN;
    Integers sum(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) sum[i] = i * 1234567891011 - (count << 40);
    const bool store = any_bool();
    set_schedule(static_cast<std::uint64_t>(any_of(0, 4)));
    const Integers added = added_by_kernel(values, grid, store, sum);
    RC_ASSERT(added == added_by_twin(values, grid, store, sum));
    RC_ASSERT(static_cast<bool>(all_same_bits(taken_by_kernel(added, 1 / grid.units),
                                              taken_by_twin(added, 1 / grid.units))));
  }));
  set_schedule(0);
}

}  // namespace
}  // namespace sfumato::emulation
