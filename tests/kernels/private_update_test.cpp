// The update against its formulas in double precision, its noise against chacha_gaussian_add_cpu
// followed by rounding as src/grad/noisy_gradient.cpp does it, and its splits against each other.
#include "kernels/private_update.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#if !defined(__clang__)
#pragma GCC optimize("fp-contract=off")  // as the kernel: rounding is compared bit by bit
#endif
#include "kernels/device/update_rule.cuh"

namespace sfumato {
namespace {

constexpr double kUnit = 0x1p-24;  // half a unit in the last place, relative

std::uint32_t bits(float x) {
  std::uint32_t b;
  std::memcpy(&b, &x, sizeof b);
  return b;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void set_key(ChaChaKey& key, unsigned seed) {
  std::mt19937 generator(seed);
  for (std::uint32_t& word : key.words) word = static_cast<std::uint32_t>(generator());
}

/// Tensors of uneven sizes with random contents, each array beside a sentinel.
struct Model {
  static constexpr float kSentinel = -77.5f;
  struct Arrays {
    std::vector<float> sum, value, first, second, average;
  };
  std::vector<Arrays> arrays;
  std::vector<PrivateUpdateTensor> table;
  std::int64_t groups = 0;

  explicit Model(const std::vector<std::int64_t>& counts, unsigned seed = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (const std::int64_t count : counts) {
      Arrays a;
      for (std::vector<float>* array : {&a.sum, &a.value, &a.first, &a.second, &a.average}) {
        for (std::int64_t i = 0; i < count; ++i) array->push_back(normal(generator));
        array->push_back(kSentinel);
      }
      for (std::size_t i = 0; i + 1 < a.second.size(); ++i) a.second[i] *= a.second[i];
      arrays.push_back(std::move(a));
    }
    for (std::size_t j = 0; j < counts.size(); ++j) {
      Arrays& a = arrays[j];
      table.push_back({.sum = a.sum.data(),
                       .value = a.value.data(),
                       .first = a.first.data(),
                       .second = a.second.data(),
                       .average = a.average.data(),
                       .count = counts[j],
                       .rate_scale = j % 2 == 0 ? 1.0f : 0.3f,
                       .nonce_tensor = static_cast<std::uint32_t>(3 * j + 1),
                       .first_group = -5});
    }
    groups = prepare_private_update(table.data(), static_cast<std::int64_t>(table.size()));
  }
  Model(const Model&) = delete;

  void update(const PrivateUpdateOptions& options, const ChaChaKey& key) {
    update(options, key, 0, groups);
  }
  void update(const PrivateUpdateOptions& options, const ChaChaKey& key, std::int64_t begin,
              std::int64_t end) {
    private_update_cpu(table.data(), static_cast<std::int64_t>(table.size()), begin, end, options,
                       key);
  }
  void forget(bool first, bool second, bool average) {
    for (PrivateUpdateTensor& tensor : table) {
      if (first) tensor.first = nullptr;
      if (second) tensor.second = nullptr;
      if (average) tensor.average = nullptr;
    }
  }
};

void expect_same_bits(const Model& a, const Model& b) {
  for (std::size_t j = 0; j < a.arrays.size(); ++j) {
    EXPECT_TRUE(same_bits(a.arrays[j].sum, b.arrays[j].sum)) << j;
    EXPECT_TRUE(same_bits(a.arrays[j].value, b.arrays[j].value)) << j;
    EXPECT_TRUE(same_bits(a.arrays[j].first, b.arrays[j].first)) << j;
    EXPECT_TRUE(same_bits(a.arrays[j].second, b.arrays[j].second)) << j;
    EXPECT_TRUE(same_bits(a.arrays[j].average, b.arrays[j].average)) << j;
  }
}

const std::vector<std::int64_t> kCounts{1, 319, 320, 0, 321, 32, 0, 3000, 1600, 0};

PrivateUpdateOptions noisy(UpdateRule rule) {
  PrivateUpdateOptions options;
  options.rule = rule;
  options.learning_rate = 0.05;
  options.stddev = 1.7;
  options.grid = 0x1p-10f;
  options.scale = 1.0f / 48;
  options.average_decay = 0.9;
  options.nonce_stream = 1;
  options.nonce_step = 12;
  return options;
}

/// As NoisyGradient::release rounds, written out.
float round_and_scale(float value, float grid, float scale) {
  constexpr float kShift = 12582912.0f, kWhole = 4194304.0f;
  const float x = value * (1 / grid);
  const float rounded = (x + kShift) - kShift;
  return (std::fabs(x) < kWhole ? rounded : std::nearbyint(x)) * grid * scale;
}

/// The gradients that an update takes, tensor by tensor.
std::vector<std::vector<float>> gradients_of(const Model& model, const PrivateUpdateOptions& o,
                                             const ChaChaKey& key) {
  std::vector<std::vector<float>> gradients;
  for (std::size_t j = 0; j < model.table.size(); ++j) {
    std::vector<float> g = model.arrays[j].sum;
    if (o.add_noise)
      chacha_gaussian_add_cpu(g.data(), 0, model.table[j].count, key,
                              {o.nonce_stream, o.nonce_step, model.table[j].nonce_tensor},
                              o.stddev);
    for (float& x : g) x = o.add_noise ? round_and_scale(x, o.grid, o.scale) : x * o.scale;
    gradients.push_back(std::move(g));
  }
  return gradients;
}

TEST(PrivateUpdate, GroupsAreCountedAndPlaced) {
  const Model model(kCounts);
  const std::vector<std::int64_t> starts{0, 1, 2, 3, 3, 5, 6, 6, 16, 21};
  for (std::size_t j = 0; j < starts.size(); ++j)
    EXPECT_EQ(model.table[j].first_group, starts[j]) << j;
  EXPECT_EQ(model.groups, 21);
  EXPECT_EQ(prepare_private_update(nullptr, 0), 0);
  PrivateUpdateTensor tensor = {};
  tensor.count = kMaxNormalsPerStream;
  EXPECT_EQ(prepare_private_update(&tensor, 1), std::int64_t{1} << 27);
  for (const std::int64_t bad : {std::int64_t{-1}, kMaxNormalsPerStream + 1}) {
    tensor.count = bad;
    EXPECT_EQ(prepare_private_update(&tensor, 1), -1);
  }
}

TEST(PrivateUpdate, PartsOfATensorHaveTheNoiseOfTheirPlaceInIt) {
  ChaChaKey key;
  set_key(key, 8);
  Model whole({3000}), parts({3000});
  const PrivateUpdateOptions options = noisy(UpdateRule::kAdam);
  whole.update(options, key);
  // As two processes would, each with a table of its own.
  for (const auto& [begin, end] : {std::pair{0, 1280}, std::pair{1280, 3000}}) {
    PrivateUpdateTensor part = parts.table[0];
    for (float** array : {&part.sum, &part.value, &part.first, &part.second, &part.average})
      *array += begin;
    part.count = end - begin;
    part.noise_group = begin / kNormalsPerGroup;
    const std::int64_t groups = prepare_private_update(&part, 1);
    private_update_cpu(&part, 1, 0, groups, options, key);
  }
  expect_same_bits(parts, whole);
}

TEST(PrivateUpdate, NoiseThatWouldWrapAroundIsRefused) {
  PrivateUpdateTensor tensor = {};
  tensor.count = 320;
  tensor.noise_group = kMaxNormalsPerStream / kNormalsPerGroup - 1;
  EXPECT_EQ(prepare_private_update(&tensor, 1), 1);
  tensor.count = 321;
  EXPECT_EQ(prepare_private_update(&tensor, 1), -1);
  for (const std::int64_t bad : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    tensor.noise_group = bad;
    EXPECT_EQ(prepare_private_update(&tensor, 1), -1);
  }
}

TEST(PrivateUpdate, EveryGroupFindsItsTensorAmongThousands) {
  std::vector<PrivateUpdateTensor> table(5000);
  for (std::size_t j = 0; j < table.size(); ++j)
    table[j].count = static_cast<std::int64_t>(j * 7919 % 5) * 200;
  const auto tensors = static_cast<int>(table.size());
  const std::int64_t groups = prepare_private_update(table.data(), tensors);
  std::int64_t group = 0;
  for (int j = 0; j < tensors; ++j)
    for (std::int64_t i = 0; i < table[static_cast<std::size_t>(j)].count; i += 320)
      ASSERT_EQ(device::tensor_of_group(table.data(), tensors, group++), j);
  EXPECT_EQ(group, groups);
}

TEST(PrivateUpdate, RoundingIsThatOfTheReleasedGradientForEveryKindOfFloat) {
  std::mt19937 generator(3);
  std::vector<float> values{0.0f,        -0.0f,      0.5f,  -0.5f,      1.5f,
                            -2.5f,       0.3f,       -0.3f, 4194303.5f, 4194304.5f,
                            -4194305.5f, 8388607.5f, 1e30f, -1e-42f,    INFINITY};
  for (int i = 0; i < 2'000'000; ++i) {
    const auto b = static_cast<std::uint32_t>(generator());
    float x;
    std::memcpy(&x, &b, sizeof x);
    if (!std::isnan(x)) values.push_back(x);
    values.push_back(static_cast<float>(static_cast<std::int32_t>(generator()) >> i % 32) * 0.25f);
  }
  for (const float grid : {1.0f, 0x1p-13f, 0x1p20f})
    for (const float scale : {1.0f, 1.0f / 48}) {
      device::UpdateCoefficients c = {};
      c.grid = grid;
      c.per_grid = 1 / grid;
      c.scale = scale;
      for (const float x : values)
        ASSERT_EQ(bits(device::released_gradient(x, c)), bits(round_and_scale(x, grid, scale)))
            << x << " on " << grid;
    }
  device::UpdateCoefficients c = {};
  c.grid = c.per_grid = c.scale = 1;
  EXPECT_TRUE(std::isnan(device::released_gradient(NAN, c)));
}

TEST(PrivateUpdate, NoiseAndRoundingAreThoseOfTheReleasedGradient) {
  ChaChaKey key;
  set_key(key, 4);
  PrivateUpdateOptions options = noisy(UpdateRule::kSgd);
  options.learning_rate = 1;
  Model model(kCounts);
  model.forget(true, true, true);
  for (PrivateUpdateTensor& tensor : model.table) tensor.rate_scale = 1;
  for (Model::Arrays& a : model.arrays) std::fill(a.value.begin(), a.value.end() - 1, 0.0f);
  const auto gradients = gradients_of(model, options, key);
  model.update(options, key);
  for (std::size_t j = 0; j < model.arrays.size(); ++j)
    for (std::size_t i = 0; i + 1 < gradients[j].size(); ++i)
      ASSERT_EQ(model.arrays[j].value[i], -gradients[j][i]) << j << " " << i;
}

TEST(PrivateUpdate, SumsAreZeroAfterwardsAndNothingElseIsTouched) {
  ChaChaKey key;
  set_key(key, 5);
  for (const bool add_noise : {true, false}) {
    Model model(kCounts), before(kCounts);
    model.forget(false, true, true);
    PrivateUpdateOptions options = noisy(UpdateRule::kSgd);
    options.add_noise = add_noise;
    options.momentum = 0.5;
    model.update(options, key);
    for (std::size_t j = 0; j < model.arrays.size(); ++j) {
      const Model::Arrays& a = model.arrays[j];
      for (std::size_t i = 0; i + 1 < a.sum.size(); ++i) ASSERT_EQ(bits(a.sum[i]), 0u);
      EXPECT_EQ(a.sum.back(), Model::kSentinel);
      EXPECT_EQ(a.value.back(), Model::kSentinel);
      EXPECT_EQ(a.first.back(), Model::kSentinel);
      EXPECT_TRUE(same_bits(a.second, before.arrays[j].second)) << "forgotten";
      EXPECT_TRUE(same_bits(a.average, before.arrays[j].average)) << "forgotten";
    }
  }
}

/// One element by the book; `size` bounds the rounding errors of float32.
struct Exact {
  double value, first, second, average, size;
};

Exact by_the_book(double g, float value, float first, float second, float average,
                  const PrivateUpdateOptions& o, double rate_scale) {
  Exact e{value, first, second, average, 0};
  const double rate = o.learning_rate * rate_scale;
  if (o.rule != UpdateRule::kAdamW) g += o.weight_decay * e.value;
  double step = 0, spread = std::abs(g) + std::abs(o.weight_decay * e.value);
  if (o.rule == UpdateRule::kSgd) {
    if (o.momentum > 0) spread += std::abs(o.momentum * e.first);
    e.first = o.momentum > 0 ? o.momentum * e.first + g : g;
    step = rate * e.first;
    spread *= rate;
  } else {
    if (o.rule == UpdateRule::kAdamW) e.value *= 1 - rate * o.weight_decay;
    spread = o.beta1 * std::abs(e.first) + (1 - o.beta1) * spread;
    e.first = o.beta1 * e.first + (1 - o.beta1) * g;
    e.second = o.beta2 * e.second + (1 - o.beta2) * g * g;
    const double factor = rate / o.correction1 / (std::sqrt(e.second / o.correction2) + o.eps);
    step = factor * e.first;
    spread *= factor;
  }
  e.value -= step;
  e.average = o.average_decay * e.average + (1 - o.average_decay) * e.value;
  e.size = 10 * spread + 2 * (std::abs(double{value}) + std::abs(step));
  return e;
}

void expect_by_the_book(const PrivateUpdateOptions& options, unsigned seed) {
  ChaChaKey key;
  set_key(key, seed);
  Model model(kCounts, seed);
  const Model before(kCounts, seed);
  const auto gradients = gradients_of(before, options, key);
  model.update(options, key);
  for (std::size_t j = 0; j < model.arrays.size(); ++j) {
    const Model::Arrays &got = model.arrays[j], &old = before.arrays[j];
    for (std::size_t i = 0; i + 1 < got.value.size(); ++i) {
      const Exact e =
          by_the_book(double{gradients[j][i]}, old.value[i], old.first[i], old.second[i],
                      old.average[i], options, double{model.table[j].rate_scale});
      ASSERT_NEAR(got.value[i], e.value, 3 * kUnit * e.size) << j << " " << i;
      ASSERT_NEAR(got.average[i], e.average,
                  3 * kUnit * (e.size + 2 * std::abs(double{old.average[i]})));
      const double g = std::abs(double{gradients[j][i]}) + std::abs(double{old.value[i]});
      if (options.rule != UpdateRule::kSgd || options.momentum > 0) {
        ASSERT_NEAR(got.first[i], e.first, 4 * kUnit * (g + std::abs(double{old.first[i]})));
      } else {
        ASSERT_EQ(got.first[i], old.first[i]);
      }
      if (options.rule == UpdateRule::kSgd) {
        ASSERT_EQ(got.second[i], old.second[i]);
      } else {
        ASSERT_NEAR(got.second[i], e.second, 4 * kUnit * (3 * g * g + double{old.second[i]}));
      }
    }
  }
}

TEST(PrivateUpdate, SgdIsItsFormula) {
  unsigned seed = 10;
  for (const double momentum : {0.0, 0.9})
    for (const double decay : {0.0, 0.1})
      for (const bool add_noise : {true, false}) {
        PrivateUpdateOptions options = noisy(UpdateRule::kSgd);
        options.momentum = momentum;
        options.weight_decay = decay;
        options.add_noise = add_noise;
        expect_by_the_book(options, ++seed);
      }
}

TEST(PrivateUpdate, AdamAndAdamWAreTheirFormulas) {
  unsigned seed = 30;
  for (const UpdateRule rule : {UpdateRule::kAdam, UpdateRule::kAdamW})
    for (const double decay : {0.0, 0.1})
      for (const int step : {1, 7, 100'000}) {
        PrivateUpdateOptions options = noisy(rule);
        options.beta1 = 0.8;
        options.beta2 = 0.95;
        options.eps = 1e-3;
        options.weight_decay = decay;
        options.correction1 = 1 - std::pow(options.beta1, step);
        options.correction2 = 1 - std::pow(options.beta2, step);
        options.add_noise = step != 7;
        expect_by_the_book(options, ++seed);
      }
}

TEST(PrivateUpdate, SplittingTheGroupsChangesNoBit) {
  ChaChaKey key;
  set_key(key, 6);
  for (const UpdateRule rule : {UpdateRule::kSgd, UpdateRule::kAdam, UpdateRule::kAdamW}) {
    PrivateUpdateOptions options = noisy(rule);
    options.momentum = 0.9;
    options.weight_decay = 0.01;
    Model whole(kCounts);
    whole.update(options, key);
    for (std::int64_t step = 1; step <= whole.groups; step += 3) {
      Model parts(kCounts);
      for (std::int64_t begin = 0; begin < parts.groups; begin += step)
        parts.update(options, key, begin, std::min(parts.groups, begin + step));
      parts.update(options, key, 4, 4);  // nothing
      expect_same_bits(parts, whole);
    }
  }
}

TEST(PrivateUpdate, WhatIsNotKeptChangesNothingElse) {
  ChaChaKey key;
  set_key(key, 7);
  const PrivateUpdateOptions options = noisy(UpdateRule::kAdam);
  Model with(kCounts), without(kCounts);
  without.forget(false, false, true);
  with.update(options, key);
  without.update(options, key);
  for (std::size_t j = 0; j < with.arrays.size(); ++j) {
    EXPECT_TRUE(same_bits(with.arrays[j].value, without.arrays[j].value));
    EXPECT_TRUE(same_bits(with.arrays[j].second, without.arrays[j].second));
  }
}

TEST(PrivateUpdate, OneBadSumStaysAlone) {
  ChaChaKey key;
  set_key(key, 8);
  Model good({700}), bad({700});
  bad.arrays[0].sum[333] = NAN;
  good.update(noisy(UpdateRule::kAdamW), key);
  bad.update(noisy(UpdateRule::kAdamW), key);
  EXPECT_TRUE(std::isnan(bad.arrays[0].value[333]));
  bad.arrays[0].value[333] = good.arrays[0].value[333];
  EXPECT_TRUE(same_bits(bad.arrays[0].value, good.arrays[0].value));
}

}  // namespace
}  // namespace sfumato
