// What only a GPU has: recorded steps, its memory, measured choices, a whole run.
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>

#include <cmath>
#include <list>
#include <optional>
#include <stdexcept>

#include "emulated/layer_cases.h"
#include "models/probe_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/generate/diffusion/objective.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/train/gradient_step.h"
#include "support/error_message.h"
#include "support/temp_folder.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;

class Gpu : public OnKernels {
 protected:
  void SetUp() override {
    OnKernels::SetUp();
    if (!IsSkipped()) {
      here_.emplace();
      find_gpu_backend()->select(0);  // as training does: nothing is recorded on the default stream
    }
    diffusion_.draws = 2;
    diffusion_.num_classes = 2;
  }

  std::unique_ptr<UNet2D> network(Precision precision) const {
    UNet2DConfig config = small_config();
    config.num_class_embeds = 3;
    config.block_out_channels = {32, 64};
    auto made = std::make_unique<UNet2D>(config);
    made->initialise(5);
    made->set_compute_type(type_of(precision));
    move_parameters(made->parameters(), here_->device());
    return made;
  }
  GradientStep step(UNet2D& network, bool record, double clip_norm = 0.02) const {
    objectives_.emplace_back(network, schedule_, diffusion_);
    return GradientStep(objectives_.back(), {Clipping::kFlat, clip_norm, 0.01},
                        {.policy = AlgorithmPolicy::kAuto, .tuner = tuner_, .record = record});
  }
  TrainingBatch batch(uint64_t first) const {
    const std::vector<uint64_t> keys = {first, first + 1, first + 2};
    return draw_diffusion(synthetic_examples({3, 8, 8}, keys), 0, 0, diffusion_);
  }

  std::optional<KernelsServe> here_;
  NoiseSchedule schedule_{{}};
  DiffusionOptions diffusion_;
  mutable std::list<DiffusionObjective> objectives_;
  /// One for all: measured choices are the same wherever steps are compared.
  std::shared_ptr<Tuner> tuner_ = std::make_shared<Tuner>(std::filesystem::path{});
};

Tensors host_copies(const Tensors& tensors) {
  Tensors copies;
  for (const at::Tensor& t : tensors) copies.push_back(host(t));
  return copies;
}

/// Recorded and not, the same kernels run; libraries may still choose others for other addresses.
double repeatable(Precision precision) { return precision == Precision::kFp32 ? 1e-5 : 2e-3; }

TEST_F(Gpu, FactsAndMemoryMakeSense) {
  const GpuBackend& gpu = *find_gpu_backend();
  const GpuFacts facts = gpu.facts(gpu.current_device());
  EXPECT_FALSE(facts.name.empty());
  EXPECT_GE(facts.major, 8);
  EXPECT_GT(facts.multiprocessors, 0);
  const int64_t before = gpu.memory().allocated;
  gpu.reset_peak();
  {
    const at::Tensor block =
        at::empty({64 << 20}, at::TensorOptions().dtype(at::kByte).device(here_->device()));
    EXPECT_GE(gpu.memory().allocated, before + (64 << 20));
  }
  EXPECT_LT(gpu.memory().allocated, before + (64 << 20));
  EXPECT_GE(gpu.memory().peak, before + (64 << 20));
  gpu.release_cached_memory();
  EXPECT_GT(gpu.memory().free, 0);
  EXPECT_LE(gpu.memory().free, facts.memory_bytes);
}

TEST_F(Gpu, RecordedStepsAreEagerSteps) {
  for (const Precision precision : kPrecisions) {
    const PrecisionScope scope(precision);
    const auto net = network(precision);
    GradientStep eager = step(*net, false), recorded = step(*net, true);
    for (int logical = 0; logical < 3; ++logical) {
      for (int physical = 0; physical < 3; ++physical) {
        TrainingBatch images = batch(static_cast<uint64_t>(10 * logical + 3 * physical));
        if (physical == 2) images.mask[1] = 0.0f;
        const BatchStatistics wanted = eager.accumulate_private(images);
        const BatchStatistics got = recorded.accumulate_private(images);
        EXPECT_FALSE(eager.recorded());
        EXPECT_EQ(recorded.recorded(), logical > 0 || physical >= 2);
        EXPECT_LE(distance_on_host({got.norm}, {wanted.norm}),
                  repeatable(precision) * norm_on_host({wanted.norm}));
        EXPECT_EQ(got.counts().counted, physical == 2 ? 2 : 3);
      }
      const Tensors wanted = host_copies(ClippedSumInspector::sums(eager.take_private()));
      const Tensors got = host_copies(ClippedSumInspector::sums(recorded.take_private()));
      ASSERT_GT(norm_on_host(wanted), 0);
      EXPECT_LE(distance_on_host(got, wanted), repeatable(precision) * norm_on_host(wanted))
          << to_string(precision) << ", step " << logical;
    }
  }
}

TEST_F(Gpu, RecordedPlainStepsAreEagerSteps) {
  const PrecisionScope scope(Precision::kTf32);
  const auto net = network(Precision::kTf32);
  std::vector<std::vector<Tensors>> sums(2);
  for (const bool record : {false, true}) {
    GradientStep gradients = step(*net, record);
    for (int logical = 0; logical < 3; ++logical) {
      for (int physical = 0; physical < 3; ++physical)
        gradients.accumulate_plain(batch(static_cast<uint64_t>(10 * logical + 3 * physical)));
      EXPECT_EQ(gradients.recorded(), record);
      sums[record ? 1 : 0].push_back(host_copies(gradients.take_plain()));
    }
    for (Parameter* p : net->parameters()) p->value.mutable_grad() = at::Tensor{};
  }
  for (int logical = 0; logical < 3; ++logical)
    EXPECT_LE(
        distance_on_host(sums[1][static_cast<std::size_t>(logical)],
                         sums[0][static_cast<std::size_t>(logical)]),
        repeatable(Precision::kTf32) * norm_on_host(sums[0][static_cast<std::size_t>(logical)]))
        << "step " << logical;
}

TEST_F(Gpu, RecordedStepsFollowTheWeights) {
  const PrecisionScope scope(Precision::kTf32);
  std::vector<Tensors> weights;
  for (const bool record : {false, true}) {
    const auto net = network(Precision::kTf32);
    GradientStep gradients = step(*net, record);
    Optimizer optimizer(gradients.engine().trainable(),
                        std::vector<double>(gradients.engine().trainable().size(), 1.0), {});
    Ema average(gradients.engine().trainable(), 0.9, true);
    TempFolder folder;
    SecureKey key = SecureKey::insecure_for_tests(7);
    Ledger ledger = Ledger::create(folder / "ledger.jsonl", {{"test", true}}, 1000, key);
    for (int64_t logical = 0; logical < 6; ++logical) {
      gradients.accumulate_private(batch(static_cast<uint64_t>(logical)));
      optimizer.step(NoisyGradient::release(gradients.take_private(), 0.5, 3, key,
                                            ledger.charge(logical, key)),
                     1e-3, &average);
    }
    weights.emplace_back();
    for (const Parameter* p : gradients.engine().trainable())
      weights.back().push_back(host(p->value));
    for (const at::Tensor& t : average.values()) weights.back().push_back(host(t));
  }
  EXPECT_LE(distance_on_host(weights[1], weights[0]), 1e-4 * norm_on_host(weights[0]));
}

TEST_F(Gpu, AStepThatDoesNotFitLeavesTheSumAndTheNextOneRuns) {
  const PrecisionScope scope(Precision::kTf32);
  const auto net = network(Precision::kTf32);
  GradientStep gradients = step(*net, true);
  gradients.accumulate_private(batch(1));
  const Tensors wanted = host_copies(ClippedSumInspector::sums(gradients.take_private()));
  gradients.accumulate_private(batch(1));
  const int64_t free = find_gpu_backend()->memory().free;
  EXPECT_THROW(at::empty({free + (int64_t{256} << 30)},
                         at::TensorOptions().dtype(at::kByte).device(here_->device())),
               c10::OutOfMemoryError);
  gradients.release_memory();
  const Tensors got = host_copies(ClippedSumInspector::sums(gradients.take_private()));
  EXPECT_LE(distance_on_host(got, wanted), repeatable(Precision::kTf32) * norm_on_host(wanted));
  gradients.accumulate_private(batch(1));
  EXPECT_LE(distance_on_host(ClippedSumInspector::sums(gradients.take_private()), wanted),
            repeatable(Precision::kTf32) * norm_on_host(wanted));
}

TEST_F(Gpu, MemoryGrowsWithThePhysicalBatch) {
  const PrecisionScope scope(Precision::kTf32);
  const auto net = network(Precision::kTf32);
  GradientStep gradients = step(*net, true);
  for (const bool is_private : {true, false}) {
    const int64_t four = gradients.peak_bytes(4, is_private);
    const int64_t eight = gradients.peak_bytes(8, is_private);
    EXPECT_GT(four, 0);
    EXPECT_GT(eight, four);
  }
}

TEST_F(Gpu, TheTunerMeasuresOnceAndRemembers) {
  TempFolder folder;
  const std::filesystem::path memory = folder / "deeper/layers.json";
  const at::Tensor small =
      at::zeros({1 << 10}, at::TensorOptions().dtype(at::kFloat).device(here_->device()));
  const at::Tensor large =
      at::zeros({64 << 20}, at::TensorOptions().dtype(at::kFloat).device(here_->device()));
  int runs = 0;
  const std::vector<Tuner::Candidate> candidates = {
      {"much", [&] { ++runs, at::Tensor(large).add_(1); }},
      {"little", [&] { ++runs, at::Tensor(small).add_(1); }},
      {"does not fit", [&] { throw c10::OutOfMemoryError({}, "made up by a test"); }}};
  for (int process = 0; process < 2; ++process) {
    Tuner tuner(memory);
    const Tuner::Result result = tuner.fastest("work", candidates);
    EXPECT_EQ(result.fastest, 1u);
    ASSERT_EQ(result.seconds.size(), 3u);
    EXPECT_GT(result.seconds[0], result.seconds[1]);
    EXPECT_TRUE(std::isinf(result.seconds[2]));
    if (process == 0) {
      EXPECT_GT(runs, 2);
    } else {
      EXPECT_EQ(runs, 0) << "remembered from the file";
    }
    runs = 0;
  }
}

TEST_F(Gpu, LayersAreMeasuredAndChosen) {
  const PrecisionScope scope(Precision::kBf16);
  const auto net = network(Precision::kBf16);
  GradientStep gradients = step(*net, false);
  gradients.accumulate_private(batch(1));
  (void)gradients.take_private();
  std::size_t measured = 0;
  for (const LayerChoice& choice : gradients.engine().choices())
    measured += choice.measured.size() > 1 ? 1 : 0;
  EXPECT_GT(measured, 10u);
}

TEST_F(Gpu, LayersGiveTheSameBitsTwice) {
  for (const LayerRecipe& recipe : layer_recipes()) {
    for (const Precision precision : kPrecisions) {
      for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kDirect}) {
        // Measured choices may differ from engine to engine, in rounding: one engine for both.
        const LayerPass pass{
            .recipe = recipe, .precision = precision, .draws = 2, .policy = policy};
        const std::vector<LayerOutcome> runs = run_on_kernels(pass, {at::Tensor{}, at::Tensor{}});
        EXPECT_TRUE(same_bits(runs[0].sums, runs[1].sums))
            << recipe.name << ", " << to_string(precision) << ", " << to_string(policy);
        EXPECT_TRUE(same_bits({runs[0].norm}, {runs[1].norm})) << recipe.name;
      }
    }
  }
}

TEST_F(Gpu, WhatFailsInARecordingPassesThrough) {
  const GpuBackend& gpu = *find_gpu_backend();
  at::HostAllocator& pinned = *at::getHostAllocator(at::kCUDA);
  pinned.empty_cache();
  const int64_t before = pinned.get_stats().allocated_bytes.current;
  for (int i = 0; i < 3; ++i)
    EXPECT_THROW(gpu.record([&] {
      const at::Tensor on_host = at::empty({1 << 20}, at::TensorOptions().pinned_memory(true));
      throw c10::OutOfMemoryError({}, "made up by a test");
    }),
                 c10::OutOfMemoryError);
  pinned.empty_cache();
  EXPECT_EQ(pinned.get_stats().allocated_bytes.current, before);
}

TEST_F(Gpu, AFailedRecordingGivesItsMemoryBack) {
  const GpuBackend& gpu = *find_gpu_backend();
  at::HostAllocator& pinned = *at::getHostAllocator(at::kCUDA);
  const auto on_device = at::TensorOptions().dtype(at::kByte).device(here_->device());
  gpu.release_cached_memory();
  pinned.empty_cache();
  const int64_t device_before = gpu.memory().allocated + gpu.memory().cached;
  const int64_t pinned_before = pinned.get_stats().allocated_bytes.current;
  const auto fail = [&] {
    const at::Tensor on_host = at::empty({1 << 20}, at::TensorOptions().pinned_memory(true));
    const at::Tensor scratch = at::empty({1 << 20}, on_device);
    throw std::runtime_error("made up by a test");
  };
  const auto wait_inside = [&] {
    const at::Tensor on_host = at::empty({1 << 20}, at::TensorOptions().pinned_memory(true));
    const at::Tensor scratch = at::empty({1 << 20}, on_device);
    gpu.synchronize();  // not allowed: the recording cannot be ended
  };
  EXPECT_THAT(test::error_message<std::runtime_error>([&] { gpu.record(fail); }),
              ::testing::HasSubstr("made up by a test"));
  EXPECT_THROW(gpu.record(wait_inside), std::exception);
  gpu.release_cached_memory();
  pinned.empty_cache();
  EXPECT_EQ(gpu.memory().allocated + gpu.memory().cached, device_before);
  EXPECT_EQ(pinned.get_stats().allocated_bytes.current, pinned_before);
  at::Tensor counted = at::zeros({1}, on_device);
  const auto work = gpu.record([&] { counted.add_(1); });
  work->replay();
  gpu.synchronize();
}

TEST_F(Gpu, AWayThatThisGpuDoesNotHaveIsLeftOut) {
  Tuner tuner(std::filesystem::path{});
  const auto refuse = [] { throw DeviceError("a kernel could not be started"); };
  const auto work = [&] { at::zeros({1 << 20}, at::TensorOptions().device(here_->device())); };
  const Tuner::Result result = tuner.fastest("refused", {{"kernel", refuse}, {"library", work}});
  EXPECT_EQ(result.fastest, 1u);
  EXPECT_TRUE(std::isinf(result.seconds.at(0)));
  EXPECT_THAT(error_message<DeviceError>([&] {
                tuner.fastest("refused by all", {{"kernel", refuse}, {"other", refuse}});
              }),
              ::testing::AllOf(::testing::HasSubstr("refused by all"),
                               ::testing::HasSubstr("could not be started")));
  // Fewer examples may do for the second.
  const auto lack = [] { throw c10::OutOfMemoryError({}, "made up by a test"); };
  EXPECT_THROW(tuner.fastest("refused or too large", {{"kernel", refuse}, {"library", lack}}),
               c10::OutOfMemoryError);
}

/// Training from a configuration, as `sfumato train` does it.
class RunsOnGpu : public TinyRun {
 protected:
  void SetUp() override {
    if (const std::string why = why_no_kernels(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_F(RunsOnGpu, TrainsInEveryPrecision) {
  for (const std::string precision : {"fp32", "tf32", "bf16"}) {
    start(precision, {"performance.device=cuda", "performance.precision=" + precision});
    EXPECT_EQ(ledger(precision).charged_steps, 6);
    for (const auto& [name, tensor] : checkpoint(precision, 6).model)
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
    EXPECT_GT(differing(checkpoint(precision, 2).model, checkpoint(precision, 6).model), 0);
  }
}

TEST_F(RunsOnGpu, AResumedRunEqualsTheUninterruptedOne) {
  const std::vector<std::string> changes = {"privacy.enabled=false", "performance.device=cuda"};
  start("whole", changes);
  copy_run("whole", "again", 2);
  resume("again", changes);
  const SavedTensors whole = checkpoint("whole", 6), again = checkpoint("again", 6);
  for (const auto& [a, b] :
       {std::pair{&whole.model, &again.model}, std::pair{&whole.ema, &again.ema},
        std::pair{&whole.optimizer, &again.optimizer}}) {
    ASSERT_EQ(a->size(), b->size());
    for (std::size_t j = 0; j < a->size(); ++j)
      EXPECT_EQ(distance_on_host({(*a)[j].second}, {(*b)[j].second}), 0) << (*a)[j].first;
  }
}

TEST_F(RunsOnGpu, WithoutPrivacyAllIsAsOnTheCpu) {
  start("on_cpu", {"privacy.enabled=false"});
  start("on_gpu", {"privacy.enabled=false", "performance.device=cuda"});
  const NamedTensors cpu = checkpoint("on_cpu", 6).model, cuda = checkpoint("on_gpu", 6).model;
  ASSERT_EQ(cpu.size(), cuda.size());
  for (std::size_t j = 0; j < cpu.size(); ++j)
    EXPECT_LE(distance_on_host({cuda[j].second}, {cpu[j].second}),
              0.02 * norm_on_host({cpu[j].second}) + 1e-3)
        << cpu[j].first;
}

}  // namespace
}  // namespace sfumato
