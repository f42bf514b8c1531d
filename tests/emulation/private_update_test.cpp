// The kernel against its twin, bit by bit; tests/kernels/private_update_test.cpp holds the twin
// against the formulas.
#include "kernels/private_update.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "emulation/kernel_test.h"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;

void set_key(ChaChaKey& key) {
  for (std::uint32_t i = 0; i < 8; ++i) key.words[i] = 0x85ebca6bu * (i + 3);
}

/// Tensors in memory with guarded margins; equal seeds give equal contents.
struct Model {
  static constexpr int kArrays = 5;  // sum, value, first, second, average
  std::vector<DeviceBuffer<float>> arrays;
  std::vector<PrivateUpdateTensor> table;
  std::int64_t groups = 0;

  explicit Model(const std::vector<std::int64_t>& counts, std::uint64_t seed = 1) {
    std::mt19937_64 generator(seed);
    for (std::size_t j = 0; j < counts.size(); ++j) {
      for (int k = 0; k < kArrays; ++k) {
        std::vector<float> values = emulation::random_floats(counts[j], generator());
        if (k == 3)
          for (float& x : values) x *= x;
        arrays.emplace_back(values);
      }
      const auto array = [&](std::size_t k) { return arrays[j * kArrays + k].data(); };
      table.push_back({.sum = array(0),
                       .value = array(1),
                       .first = array(2),
                       .second = array(3),
                       .average = array(4),
                       .count = counts[j],
                       .rate_scale = 1.0f / static_cast<float>(1 + j % 3),
                       .nonce_tensor = static_cast<std::uint32_t>(j + 1),
                       .first_group = -1});
    }
    groups = prepare_private_update(table.data(), tensors());
  }
  Model(const Model&) = delete;

  std::int64_t tensors() const { return static_cast<std::int64_t>(table.size()); }
  void forget(bool first, bool second, bool average) {
    for (PrivateUpdateTensor& tensor : table) {
      if (first) tensor.first = nullptr;
      if (second) tensor.second = nullptr;
      if (average) tensor.average = nullptr;
    }
  }
  void launch(const PrivateUpdateOptions& options, const ChaChaKey& key) {
    const DeviceBuffer<PrivateUpdateTensor> device_table(table);
    EXPECT_LAUNCHED(
        launch_private_update(device_table.data(), tensors(), groups, options, key, nullptr));
  }
  void twin(const PrivateUpdateOptions& options, const ChaChaKey& key) {
    private_update_cpu(table.data(), tensors(), 0, groups, options, key);
  }
};

void expect_same_bits(const Model& kernel, const Model& twin) {
  for (std::size_t k = 0; k < kernel.arrays.size(); ++k)
    EXPECT_TRUE(emulation::all_same_bits(kernel.arrays[k].span(), twin.arrays[k].span()))
        << "tensor " << k / Model::kArrays << ", array " << k % Model::kArrays;
}

PrivateUpdateOptions options_for(UpdateRule rule, bool add_noise = true) {
  PrivateUpdateOptions options;
  options.rule = rule;
  options.learning_rate = 0.01;
  options.momentum = 0.9;
  options.weight_decay = 0.02;
  options.correction1 = 0.19;
  options.correction2 = 0.002;
  options.average_decay = 0.99;
  options.add_noise = add_noise;
  options.stddev = 0.83;
  options.grid = 0x1p-11f;
  options.scale = 1.0f / 96;
  options.nonce_stream = 1;
  options.nonce_step = 77;
  return options;
}

// Tails of one block of key stream, one group, and more groups than a block of threads takes.
const std::vector<std::int64_t> kCounts{1, 319, 320, 0, 321, 33, 31, 320 * 18, 0, 320 * 7 + 161, 2};

TEST(EmulatedPrivateUpdate, EveryRuleGivesTheTwinsBitsUnderEverySchedule) {
  ChaChaKey key;
  set_key(key);
  emulation::for_each_schedule([&](std::uint64_t) {
    for (const UpdateRule rule : {UpdateRule::kSgd, UpdateRule::kAdam, UpdateRule::kAdamW})
      for (const bool add_noise : {true, false}) {
        Model kernel(kCounts), twin(kCounts);
        const PrivateUpdateOptions options = options_for(rule, add_noise);
        kernel.launch(options, key);
        twin.twin(options, key);
        expect_same_bits(kernel, twin);
      }
  });
}

TEST(EmulatedPrivateUpdate, NoiseBeginsWhereTheTableSays) {
  ChaChaKey key;
  set_key(key);
  Model kernel(kCounts), twin(kCounts);
  for (Model* model : {&kernel, &twin})
    for (std::size_t j = 0; j < model->table.size(); ++j)
      model->table[j].noise_group = static_cast<std::int64_t>(3 * j);
  const PrivateUpdateOptions options = options_for(UpdateRule::kAdam);
  kernel.launch(options, key);
  twin.twin(options, key);
  expect_same_bits(kernel, twin);
}

TEST(EmulatedPrivateUpdate, StepsInARowStartFromZeroSums) {
  ChaChaKey key;
  set_key(key);
  Model kernel(kCounts), twin(kCounts);
  PrivateUpdateOptions options = options_for(UpdateRule::kAdam);
  for (std::uint32_t step = 0; step < 3; ++step) {
    options.nonce_step = step;
    kernel.launch(options, key);
    for (std::size_t k = 0; k < kernel.arrays.size(); k += Model::kArrays)
      for (const float sum : kernel.arrays[k].span()) ASSERT_EQ(sum, 0.0f);
    twin.twin(options, key);
  }
  expect_same_bits(kernel, twin);
}

TEST(EmulatedPrivateUpdate, NothingIsReadThroughNullPointers) {
  ChaChaKey key;
  set_key(key);
  for (const UpdateRule rule : {UpdateRule::kSgd, UpdateRule::kAdamW})
    for (const bool add_noise : {true, false}) {
      PrivateUpdateOptions options = options_for(rule, add_noise);
      options.momentum = 0;
      options.weight_decay = 0;
      const bool sgd = rule == UpdateRule::kSgd;
      Model kernel(kCounts), twin(kCounts);
      kernel.forget(sgd, sgd, true);
      twin.forget(sgd, sgd, true);
      kernel.launch(options, key);
      twin.twin(options, key);
      expect_same_bits(kernel, twin);
    }
}

TEST(EmulatedPrivateUpdate, SomeTensorsMayKeepAnAverageAndOthersNone) {
  ChaChaKey key;
  set_key(key);
  Model kernel(kCounts), twin(kCounts);
  for (std::size_t j = 0; j < kernel.table.size(); j += 2)
    kernel.table[j].average = twin.table[j].average = nullptr;
  kernel.launch(options_for(UpdateRule::kSgd), key);
  twin.twin(options_for(UpdateRule::kSgd), key);
  expect_same_bits(kernel, twin);
}

TEST(EmulatedPrivateUpdate, AnySetOfTensorsGivesTheTwinsBits) {
  ChaChaKey key;
  set_key(key);
  std::mt19937_64 generator(9);
  for (int repeat = 0; repeat < 12; ++repeat) {
    std::vector<std::int64_t> counts;
    const int tensors = 1 + static_cast<int>(generator() % 12);
    for (int j = 0; j < tensors; ++j) {
      const auto most = std::int64_t{1} << generator() % 13;
      counts.push_back(static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(most)));
    }
    SCOPED_TRACE("tensors " + testing::PrintToString(counts));
    const auto rule = static_cast<UpdateRule>(generator() % 3);
    Model kernel(counts, generator.max() - static_cast<std::uint64_t>(repeat));
    Model twin(counts, generator.max() - static_cast<std::uint64_t>(repeat));
    kernel.launch(options_for(rule), key);
    twin.twin(options_for(rule), key);
    expect_same_bits(kernel, twin);
  }
}

TEST(EmulatedPrivateUpdate, AThousandTensorsAreOneLaunch) {
  std::vector<std::int64_t> counts;
  for (std::int64_t j = 0; j < 1000; ++j) counts.push_back(j * 37 % 5 * 90);  // every fifth empty
  ChaChaKey key;
  set_key(key);
  Model kernel(counts), twin(counts);
  emulation::reset_statistics();
  kernel.launch(options_for(UpdateRule::kAdamW), key);
  EXPECT_EQ(emulation::statistics().launches, 1);
  twin.twin(options_for(UpdateRule::kAdamW), key);
  expect_same_bits(kernel, twin);
}

TEST(EmulatedPrivateUpdate, NoParametersAreNoLaunch) {
  ChaChaKey key;
  set_key(key);
  Model empty({0, 0});
  EXPECT_EQ(empty.groups, 0);
  emulation::reset_statistics();
  empty.launch(options_for(UpdateRule::kAdam), key);
  EXPECT_LAUNCHED(
      launch_private_update(nullptr, 0, 0, options_for(UpdateRule::kSgd), key, nullptr));
  EXPECT_EQ(emulation::statistics().launches, 0);
}

}  // namespace
}  // namespace sfumato
