#include "kernels/clip_accumulate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

/// The gradients of one parameter; `first` elements from an aligned place.
struct Parameter {
  std::int64_t count;
  std::int64_t factor_row = 0;
  Element element = Element::kFloat32;
  std::int64_t first = 0;
  std::vector<float> gradients = {};
  std::vector<float> start = {};
};

struct Batch {
  std::int64_t examples;
  std::vector<float> factors;  // [rows, examples]
  std::vector<Parameter> parameters;
};

/// Whole numbers, so that every order of the sum is exact: gradients of at most 7, factors of at
/// most 2, a third of them 0.
Batch exact_batch(std::int64_t examples, std::vector<Parameter> parameters, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto draw = [&](int most) {
    return static_cast<float>(static_cast<int>(generator() % static_cast<unsigned>(2 * most + 1)) -
                              most);
  };
  std::int64_t rows = 1;
  for (Parameter& parameter : parameters) {
    rows = std::max(rows, parameter.factor_row + 1);
    for (std::int64_t n = 0; n < examples * parameter.count; ++n)
      parameter.gradients.push_back(draw(7));
    for (std::int64_t n = 0; n < parameter.count; ++n) parameter.start.push_back(draw(100));
  }
  Batch batch = {examples, {}, std::move(parameters)};
  constexpr float kFactors[] = {0, 0, 0.5f, 1, 1.5f, 2};
  for (std::int64_t n = 0; n < rows * examples; ++n)
    batch.factors.push_back(kFactors[generator() % 6]);
  return batch;
}

using Sums = std::vector<std::vector<float>>;

Sums run(const Batch& batch, bool on_device, bool overwrite) {
  const DeviceBuffer<float> factors(batch.factors);
  std::vector<ShiftedElements> gradients;
  std::vector<DeviceBuffer<float>> sums;
  std::vector<KeptGradient> table;
  gradients.reserve(batch.parameters.size());
  sums.reserve(batch.parameters.size());
  for (const Parameter& p : batch.parameters) {
    gradients.emplace_back(p.gradients, p.element, p.first);
    sums.emplace_back(p.start);
    table.push_back(
        {gradients.back().data(), sums.back().data(), p.count, p.factor_row, p.element});
  }
  const auto entries = static_cast<std::int64_t>(table.size());
  if (on_device) {
    const std::int64_t blocks = prepare_clip_accumulate(table.data(), entries);
    const DeviceBuffer<KeptGradient> device_table(table);
    EXPECT_LAUNCHED(launch_clip_accumulate(device_table.data(), entries, blocks, factors.data(),
                                           batch.examples, overwrite, nullptr));
  } else {
    clip_accumulate_cpu(table.data(), entries, factors.data(), batch.examples, overwrite);
  }
  Sums result;
  for (DeviceBuffer<float>& sum : sums) {
    EXPECT_TRUE(sum.margins_intact());
    result.push_back(sum.to_vector());
  }
  return result;
}

/// The examples outermost, in extended precision.
Sums brute_force(const Batch& batch, bool overwrite) {
  Sums result;
  for (const Parameter& p : batch.parameters) {
    const auto gradients = as_stored(p.gradients, p.element);
    std::vector<long double> sums(static_cast<std::size_t>(p.count), 0);
    if (!overwrite) std::copy(p.start.begin(), p.start.end(), sums.begin());
    std::size_t place = 0;
    for (std::int64_t i = 0; i < batch.examples; ++i) {
      const float factor =
          batch.factors[static_cast<std::size_t>(p.factor_row * batch.examples + i)];
      for (long double& sum : sums) {
        const float gradient = gradients[place++];
        if (factor != 0) sum += static_cast<long double>(factor) * gradient;
      }
    }
    result.emplace_back(sums.begin(), sums.end());
  }
  return result;
}

testing::AssertionResult same_sums(const Sums& actual, const Sums& expected) {
  for (std::size_t e = 0; e < expected.size(); ++e) {
    // 0 and -0 are the same here.
    auto same = all_near(actual[e], expected[e], 0, 0);
    if (!same) return same << " in entry " << e;
  }
  return testing::AssertionSuccess();
}

/// Counts around what a thread and a block own, both elements, aligned and not, several factor
/// rows.
std::vector<Parameter> some_parameters() {
  return {{.count = 0},
          {.count = 1},
          {.count = 1024, .factor_row = 1},
          {.count = 1028},
          {.count = 1027, .factor_row = 2, .first = 1},
          {.count = 0, .factor_row = 1},
          {.count = 2048, .factor_row = 1, .element = Element::kBfloat16},
          {.count = 2056, .element = Element::kBfloat16},
          {.count = 2051, .element = Element::kBfloat16},
          {.count = 40, .factor_row = 2, .element = Element::kBfloat16, .first = 3},
          {.count = 12, .first = 1},
          {.count = 0, .element = Element::kBfloat16}};
}

TEST(ClipAccumulate, TwinIsTheWeightedSum) {
  for (const std::int64_t examples : {0, 1, 5, 40})
    for (const bool overwrite : {false, true}) {
      const Batch batch = exact_batch(examples, some_parameters(), 1);
      EXPECT_TRUE(same_sums(run(batch, false, overwrite), brute_force(batch, overwrite)));
    }
}

TEST(ClipAccumulate, KernelIsTheTwin) {
  for (const std::int64_t examples : {0, 1, 7, 8, 33, 64})
    for (const bool overwrite : {false, true}) {
      const Batch batch = exact_batch(examples, some_parameters(), 2);
      EXPECT_TRUE(same_sums(run(batch, true, overwrite), run(batch, false, overwrite)));
    }
}

TEST(ClipAccumulate, KernelIsTheTwinForAnyTable) {
  EXPECT_TRUE(rc::check([] {
    std::vector<Parameter> parameters;
    for (std::int64_t left = any_of(0, 5); left > 0; --left)
      parameters.push_back({any_of(0, 70), any_of(0, 2), any_element(), any_of(0, 2)});
    const Batch batch = exact_batch(any_of(0, 70), std::move(parameters), any_seed());
    const bool overwrite = any_bool();
    set_schedule(static_cast<std::uint64_t>(any_of(0, 4)));
    RC_ASSERT(
        static_cast<bool>(same_sums(run(batch, true, overwrite), run(batch, false, overwrite))));
  }));
  set_schedule(0);
}

TEST(ClipAccumulate, FactorsPassThroughSharedMemoryInTiles) {
  for (const std::int64_t examples : {1023, 1024, 1025, 2100}) {
    const Batch batch =
        exact_batch(examples, {{.count = 3}, {.count = 20, .element = Element::kBfloat16}}, 3);
    for_each_schedule(
        [&](std::uint64_t) {
          EXPECT_TRUE(same_sums(run(batch, true, false), run(batch, false, false)));
        },
        5);
  }
}

TEST(ClipAccumulate, EveryBlockFindsItsEntry) {
  for (const std::size_t entries : {31u, 32u, 33u, 1023u, 1025u, 1100u}) {
    std::vector<Parameter> parameters(entries, {.count = 1});
    for (std::size_t e = 0; e < entries; ++e) {
      parameters[e].count = e % 7 == 3 ? 0 : static_cast<std::int64_t>(1 + e % 3);
      parameters[e].factor_row = static_cast<std::int64_t>(e % 4);
    }
    const Batch batch = exact_batch(2, std::move(parameters), 4);
    EXPECT_TRUE(same_sums(run(batch, true, false), run(batch, false, false)));
  }
}

TEST(ClipAccumulate, PrepareCountsBlocks) {
  KeptGradient table[] = {{nullptr, nullptr, 1025, 0, Element::kFloat32},
                          {nullptr, nullptr, 0, 0, Element::kFloat32},
                          {nullptr, nullptr, 2048, 0, Element::kBfloat16},
                          {nullptr, nullptr, 1, 0, Element::kFloat32}};
  EXPECT_EQ(prepare_clip_accumulate(table, 4), 4);
  EXPECT_EQ(table[0].first_block, 0);
  EXPECT_EQ(table[1].first_block, 2);
  EXPECT_EQ(table[2].first_block, 2);
  EXPECT_EQ(table[3].first_block, 3);
  EXPECT_EQ(prepare_clip_accumulate(table, 0), 0);
}

TEST(ClipAccumulate, ExcludedExamplesGoNowhere) {
  Batch batch = exact_batch(20, {{.count = 9}, {.count = 16, .element = Element::kBfloat16}}, 5);
  batch.factors[3] = batch.factors[19] = 0;
  Batch clean = batch;
  for (Parameter& p : batch.parameters)
    for (std::int64_t j = 0; j < p.count; ++j) {
      p.gradients[static_cast<std::size_t>(3 * p.count + j)] = NAN;
      p.gradients[static_cast<std::size_t>(19 * p.count + j)] = -INFINITY;
    }
  for (const bool on_device : {false, true})
    EXPECT_TRUE(same_sums(run(batch, on_device, false), brute_force(clean, false)));
}

/// Float32 within 32 examples and float64 beyond: an error of at most 33 roundings, however many
/// examples there are.
TEST(ClipAccumulate, ErrorDoesNotGrowWithTheBatch) {
  constexpr std::int64_t kExamples = 3000, kCount = 6;
  Batch batch = exact_batch(kExamples, {{.count = kCount}}, 6);
  batch.parameters[0].gradients = random_floats(kExamples * kCount, 7);
  for (float& g : batch.parameters[0].gradients) g = std::abs(g);
  for (float& f : batch.factors) f = 0.1f;
  EXPECT_TRUE(all_near(run(batch, false, true)[0], brute_force(batch, true)[0], 0x1p-23, 0));
  EXPECT_TRUE(all_near(run(batch, true, true)[0], run(batch, false, true)[0], 33 * 0x1p-24, 0));
}

TEST(ClipAccumulate, BitsDependOnTheParameterAlone) {
  constexpr std::int64_t kExamples = 45, kCount = 24;
  for (const Element element : kElements) {
    Parameter inexact = {.count = kCount, .element = element};
    inexact.gradients = random_floats(kExamples * kCount, 8);
    inexact.start = random_floats(kCount, 9);
    Batch alone = {kExamples, random_floats(kExamples, 10), {inexact}};
    const auto expected = run(alone, true, false)[0];
    Batch among = exact_batch(kExamples, {{.count = 3}, {.count = 2000}}, 11);
    among.factors = alone.factors;
    among.parameters.push_back(inexact);
    among.parameters.push_back(inexact);
    among.parameters.back().first = 1;
    for_each_schedule([&](std::uint64_t) {
      const Sums sums = run(among, true, false);
      EXPECT_TRUE(all_same_bits(sums[2], expected));
      EXPECT_TRUE(all_same_bits(sums[3], expected));
    });
  }
}

TEST(ClipAccumulate, NothingToDoLaunchesNothing) {
  reset_statistics();
  EXPECT_EQ(launch_clip_accumulate(nullptr, 0, 0, nullptr, 3, true, nullptr), 0);
  EXPECT_EQ(launch_clip_accumulate(nullptr, 1, 1, nullptr, 0, false, nullptr), 0);
  EXPECT_EQ(statistics().launches, 0);
}

}  // namespace
}  // namespace sfumato::emulation
