#include "kernels/scale_examples.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

using Scale = std::vector<float>(const std::vector<float>&, Element, const std::vector<float>&,
                                 bool, std::int64_t, bool, std::int64_t);

/// In place or from one buffer to another; elements start `first` elements behind an aligned place.
std::vector<float> kernel(const std::vector<float>& in, Element element,
                          const std::vector<float>& factors, bool only_zero, std::int64_t columns,
                          bool in_place, std::int64_t first) {
  ShiftedElements from(in, element, first);
  ShiftedElements to(std::vector<float>(in.size(), NAN), element, first);
  const DeviceBuffer<float> f(factors);
  ShiftedElements& out = in_place ? from : to;
  EXPECT_LAUNCHED(launch_scale_examples(from.data(), element, f.data(), only_zero, f.size(),
                                        columns, out.data(), nullptr));
  EXPECT_TRUE(out.margins_intact());
  return out.values();
}

std::vector<float> twin(const std::vector<float>& in, Element element,
                        const std::vector<float>& factors, bool only_zero, std::int64_t columns,
                        bool in_place, std::int64_t first) {
  ShiftedElements from(in, element, first);
  ShiftedElements to(std::vector<float>(in.size(), NAN), element, first);
  ShiftedElements& out = in_place ? from : to;
  scale_examples_cpu(from.data(), element, factors.data(), only_zero,
                     static_cast<std::int64_t>(factors.size()), columns, out.data());
  return out.values();
}

std::vector<float> some_factors(std::int64_t examples, std::uint64_t seed) {
  std::vector<float> factors = random_floats(examples, seed);
  for (std::size_t i = 0; i < factors.size(); ++i)
    factors[i] = i % 3 == 1 ? 0 : std::abs(factors[i]);
  return factors;
}

/// Both implementations are held to the formula.
void check_formula(Scale scale) {
  constexpr std::int64_t kExamples = 4, kColumns = 3;
  const std::vector<float> in = {1, 2, -3, NAN, INFINITY, 5, 0.5f, -0.0f, 1e-40f, NAN, 1, 2};
  const std::vector<float> factors = {0.5f, 0, 1, 2};
  const std::vector<float> scaled = {0.5f, 1, -1.5f, 0, 0, 0, 0.5f, -0.0f, 1e-40f, NAN, 2, 4};
  const std::vector<float> zeroed = {1, 2, -3, 0, 0, 0, 0.5f, -0.0f, 1e-40f, NAN, 1, 2};
  ASSERT_EQ(in.size(), static_cast<std::size_t>(kExamples * kColumns));
  for (const Element element : kElements)
    for (const bool in_place : {false, true}) {
      EXPECT_TRUE(all_same_bits(scale(in, element, factors, false, kColumns, in_place, 0),
                                as_stored(scaled, element)));
      EXPECT_TRUE(all_same_bits(scale(in, element, factors, true, kColumns, in_place, 0),
                                as_stored(zeroed, element)));
    }
}

TEST(ScaleExamples, TwinIsTheFormula) { check_formula(twin); }
TEST(ScaleExamples, KernelIsTheFormula) { check_formula(kernel); }

TEST(ScaleExamples, TwinRoundsTheProductOnce) {
  const std::vector<float> in = random_floats(600, 3);
  const std::vector<float> factors = {0.3f, 0.7f};
  const auto bits = as_stored(in, Element::kBfloat16);
  const auto out = twin(in, Element::kBfloat16, factors, false, 300, false, 0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double exact = double{bits[i]} * double{factors[i / 300]};
    EXPECT_LE(std::abs(double{out[i]} - exact), std::abs(exact) * (0x1p-8 + 0x1p-24));
  }
}

TEST(ScaleExamples, KernelIsTheTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    const Element element = any_element();
    const std::int64_t examples = any_of(0, 6);
    const std::int64_t columns =
        *rc::gen::element<std::int64_t>(0, 1, 7, 8, 33, 1024, 4095, 4096, 4104, 8192, 8200, 9001);
    const bool only_zero = any_bool(), in_place = any_bool();
    const std::int64_t first = any_of(0, 2);
    const auto in = random_floats(examples * columns, any_seed());
    const auto factors = some_factors(examples, any_seed());
    set_schedule(static_cast<std::uint64_t>(any_of(0, 4)));
    RC_ASSERT(static_cast<bool>(
        all_same_bits(kernel(in, element, factors, only_zero, columns, in_place, first),
                      twin(in, element, factors, only_zero, columns, in_place, first))));
  }));
  set_schedule(0);
}

}  // namespace
}  // namespace sfumato::emulation
