#include "kernels/embedding_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

struct Case {
  std::int64_t examples, tokens, width, rows;
  Element element;
  std::vector<std::int64_t> indices;
  std::vector<float> dy;
};

Case some_case(std::int64_t examples, std::int64_t tokens, std::int64_t width, std::int64_t rows,
               Element element, std::uint64_t seed) {
  Case c = {examples, tokens, width, rows, element, {}, {}};
  std::mt19937_64 generator(seed);
  for (std::int64_t n = 0; n < examples * tokens; ++n)
    c.indices.push_back(static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(rows)));
  c.dy = random_floats(examples * tokens * width, seed + 1);
  return c;
}

std::vector<double> norms(const Case& c, bool on_device, std::int64_t first = 0) {
  const DeviceBuffer<std::int64_t> indices(c.indices);
  ShiftedElements dy(c.dy, c.element, first);
  DeviceBuffer<double> out(c.examples);
  if (on_device)
    EXPECT_LAUNCHED(launch_embedding_norm(indices.data(), dy.data(), c.element, c.examples,
                                          c.tokens, c.width, out.data(), nullptr));
  else
    embedding_norm_cpu(indices.data(), dy.data(), c.element, c.examples, c.tokens, c.width,
                       out.data());
  return out.to_vector();
}

std::vector<float> accumulated(const Case& c, const std::vector<float>& factors,
                               const std::vector<float>& start, bool on_device) {
  const DeviceBuffer<std::int64_t> indices(c.indices);
  ShiftedElements dy(c.dy, c.element, 0);
  const DeviceBuffer<float> f(factors);
  DeviceBuffer<float> out(start);
  if (on_device)
    EXPECT_LAUNCHED(launch_embedding_accumulate(indices.data(), dy.data(), c.element, c.examples,
                                                c.tokens, c.width, c.rows, f.data(), out.data(),
                                                nullptr));
  else
    embedding_accumulate_cpu(indices.data(), dy.data(), c.element, c.examples, c.tokens, c.width,
                             c.rows, f.data(), out.data());
  return out.to_vector();
}

/// <dy_t, dy_s> over all pairs of equal indices, and the floor of nn/per_example.h.
std::vector<double> pairs(const Case& c) {
  const auto dy = as_stored(c.dy, c.element);
  const auto dot = [&](std::int64_t t, std::int64_t s) {
    long double sum = 0;
    for (std::int64_t d = 0; d < c.width; ++d)
      sum += static_cast<long double>(dy[static_cast<std::size_t>(t * c.width + d)]) *
             dy[static_cast<std::size_t>(s * c.width + d)];
    return sum;
  };
  std::vector<double> result;
  for (std::int64_t i = 0; i < c.examples; ++i) {
    long double squared = 0, magnitude = 0;
    for (std::int64_t t = i * c.tokens; t < (i + 1) * c.tokens; ++t) {
      magnitude += std::sqrt(dot(t, t));
      for (std::int64_t s = i * c.tokens; s < (i + 1) * c.tokens; ++s)
        if (c.indices[static_cast<std::size_t>(t)] == c.indices[static_cast<std::size_t>(s)])
          squared += dot(t, s);
    }
    result.push_back(static_cast<double>(
        squared + std::ldexp(static_cast<long double>(c.tokens), -42) * magnitude * magnitude));
  }
  return result;
}

/// The table as one-hot(indices)^T (factors dy): every row from all look-ups.
std::vector<float> one_hot(const Case& c, const std::vector<float>& factors,
                           const std::vector<float>& start) {
  const auto dy = as_stored(c.dy, c.element);
  std::vector<float> out = start;
  for (std::int64_t r = 0; r < c.rows; ++r)
    for (std::int64_t d = 0; d < c.width; ++d) {
      long double sum = out[static_cast<std::size_t>(r * c.width + d)];
      for (std::int64_t n = 0; n < c.examples * c.tokens; ++n) {
        const float factor = factors[static_cast<std::size_t>(n / c.tokens)];
        if (c.indices[static_cast<std::size_t>(n)] == r && factor != 0)
          sum += static_cast<long double>(factor) * dy[static_cast<std::size_t>(n * c.width + d)];
      }
      out[static_cast<std::size_t>(r * c.width + d)] = static_cast<float>(sum);
    }
  return out;
}

std::vector<float> some_factors(std::int64_t examples, std::uint64_t seed) {
  std::vector<float> factors = random_floats(examples, seed);
  for (std::size_t i = 0; i < factors.size(); ++i)
    factors[i] = i % 4 == 2 ? 0 : std::abs(factors[i]);
  return factors;
}

std::vector<Case> some_cases() {
  std::vector<Case> cases;
  std::uint64_t seed = 1;
  for (const Element element : kElements) {
    cases.push_back(some_case(0, 2, 4, 3, element, ++seed));
    cases.push_back(some_case(5, 1, 130, 4, element, ++seed));    // classes
    cases.push_back(some_case(3, 7, 128, 100, element, ++seed));  // hardly a repetition
    cases.push_back(some_case(2, 9, 129, 2, element, ++seed));    // many
    cases.push_back(some_case(2, 33, 31, 3, element, ++seed));
    cases.push_back(some_case(1, 300, 5, 40, element, ++seed));
    cases.push_back(some_case(40, 8, 3, 1, element, ++seed));  // one row
  }
  return cases;
}

TEST(EmbeddingNorm, TwinIsTheSumOverPairs) {
  for (const Case& c : some_cases()) EXPECT_TRUE(all_near(norms(c, false), pairs(c), 1e-13, 0));
}

TEST(EmbeddingNorm, KernelIsTheTwin) {
  for (const Case& c : some_cases())
    EXPECT_TRUE(all_near(norms(c, true), norms(c, false), 1e-13, 0));
}

TEST(EmbeddingNorm, KernelIsTheTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    const Case c = some_case(any_of(0, 4), any_of(1, 70), any_of(1, 40), any_of(1, 30),
                             any_element(), any_seed());
    RC_ASSERT(static_cast<bool>(all_near(norms(c, true, any_of(0, 1)), norms(c, false), 1e-13, 0)));
  }));
}

TEST(EmbeddingNorm, SameBitsInEverySchedule) {
  const Case c = some_case(2, 40, 33, 9, Element::kFloat32, 3);
  const auto expected = norms(c, true);
  for_each_schedule([&](std::uint64_t) { EXPECT_TRUE(all_same_bits(norms(c, true), expected)); },
                    5);
}

TEST(EmbeddingNorm, CancellingLookUpsKeepTheRoundingFloor) {
  // Two look-ups of one row whose sum is zero: 2 (2^-21 * 2 |dy|)^2, |dy|^2 = 4 is left.
  const Case c = {1, 2, 4, 5, Element::kFloat32, {3, 3}, {1, 1, 1, 1, -1, -1, -1, -1}};
  const double floor = 2 * std::pow(0x1p-21 * 4, 2);
  EXPECT_DOUBLE_EQ(norms(c, false)[0], floor);
  EXPECT_DOUBLE_EQ(norms(c, true)[0], floor);
}

TEST(EmbeddingNorm, NotANumberStaysInItsExample) {
  Case c = some_case(3, 5, 6, 2, Element::kFloat32, 4);
  const auto clean = norms(c, true);
  c.dy[5 * 6] = NAN;               // the first of example 1
  c.dy[3 * 5 * 6 - 1] = INFINITY;  // the last of example 2
  const auto result = norms(c, true);
  EXPECT_EQ(result[0], clean[0]);
  EXPECT_TRUE(std::isnan(result[1]));
  EXPECT_FALSE(std::isfinite(result[2]));
}

TEST(EmbeddingAccumulate, TwinIsOneHotTimesGradients) {
  for (const Case& c : some_cases()) {
    const auto factors = some_factors(c.examples, 5);
    const auto start = random_floats(c.rows * c.width, 6);
    EXPECT_TRUE(all_near(accumulated(c, factors, start, false), one_hot(c, factors, start), 0x1p-23,
                         1e-13));
  }
}

TEST(EmbeddingAccumulate, KernelIsTheTwin) {
  for (const Case& c : some_cases()) {
    const auto factors = some_factors(c.examples, 5);
    const auto start = random_floats(c.rows * c.width, 6);
    EXPECT_TRUE(all_near(accumulated(c, factors, start, true),
                         accumulated(c, factors, start, false), 0x1p-23, 1e-13));
  }
}

TEST(EmbeddingAccumulate, KernelIsTheTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    const Case c = some_case(any_of(0, 30), any_of(1, 12), any_of(1, 20), any_of(1, 6),
                             any_element(), any_seed());
    const auto factors = some_factors(c.examples, any_seed());
    const auto start = random_floats(c.rows * c.width, any_seed());
    set_schedule(static_cast<std::uint64_t>(any_of(0, 4)));
    RC_ASSERT(static_cast<bool>(all_near(accumulated(c, factors, start, true),
                                         accumulated(c, factors, start, false), 0x1p-23, 1e-13)));
  }));
  set_schedule(0);
}

TEST(EmbeddingAccumulate, ExcludedExamplesAndUnusedRowsAreLeftAlone) {
  Case c = some_case(4, 3, 5, 6, Element::kFloat32, 8);
  for (std::size_t n = 0; n < c.indices.size(); ++n) c.indices[n] = n % 2 == 0 ? 1 : 4;
  for (std::size_t n = 0; n < 15; ++n) c.dy[n] = NAN;        // example 0
  for (std::size_t n = 30; n < 45; ++n) c.dy[n] = INFINITY;  // example 2
  const std::vector<float> factors = {0, 0.5f, 0, 1};
  const std::vector<float> start(30, -0.0f);
  for (const bool on_device : {false, true}) {
    const auto out = accumulated(c, factors, start, on_device);
    for (std::size_t n = 0; n < out.size(); ++n) {
      EXPECT_TRUE(std::isfinite(out[n]));
      const bool used = n / 5 == 1 || n / 5 == 4;
      EXPECT_EQ(out[n] == 0 && std::signbit(out[n]), !used) << n;
    }
  }
}

TEST(EmbeddingAccumulate, IndicesOutsideOfTheTableArePassedOver) {
  Case c = some_case(2, 2, 3, 4, Element::kFloat32, 9);
  c.indices = {-1, 4, 2, 1000000000000};
  const std::vector<float> start(12, 1.0f);
  for (const bool on_device : {false, true}) {
    const auto out = accumulated(c, {1, 1}, start, on_device);
    for (std::size_t n = 0; n < out.size(); ++n)
      EXPECT_EQ(out[n], n / 3 == 2 ? 1 + c.dy[6 + n % 3] : 1.0f);
  }
}

}  // namespace
}  // namespace sfumato::emulation
