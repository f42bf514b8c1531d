#include "sfumato/bench/step_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "bench/temporary_folder.h"
#include "sfumato/bench/bench_network.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/bench/step_projection.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/generate/families.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/setup.h"

namespace sfumato {
namespace {

constexpr double kEnoughSeconds = 1;
constexpr std::int64_t kLeastBatches = 3, kMostBatches = 20;
constexpr double kSmallRate = 1e-9;  ///< leaves weights as they are

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void wait_for(const c10::Device& device) {
  if (device.is_cuda()) find_gpu_backend()->synchronize();
}

/// A plan for steps that protect nobody.
MechanismPlan for_timing(const MechanismPlan& mechanism) {
  MechanismPlan plan = mechanism;
  plan.stages.clear();
  plan.target_epsilon.reset();
  plan.steps = 1'000;
  return plan;
}

/// One training of which a few steps are taken.
class TimedSteps {
 public:
  TimedSteps(const Config& config, Generator& generator, GradientStep& gradients,
             const MechanismPlan& mechanism)
      : config_(config),
        generator_(generator),
        gradients_(gradients),
        optimizer_(gradients.engine().trainable(), generator.rate_scales(config),
                   optimizer_options(config), gradients.engine().slices()),
        plan_(for_timing(mechanism)),
        session_(MechanismSession::create(
            plan_, {.ledger = folder_.path() / "ledger.jsonl", .run = folder_.path()},
            SecureKey::insecure_for_tests(1))) {}

  void add(const TrainingBatch& batch) { (void)gradients_.accumulate_private(batch); }
  void update() {
    optimizer_.step(session_.release(gradients_.take_private(), step_), kSmallRate,
                    generator_.average());
    ++step_;
  }
  /// Seconds of a GAN's public steps for one private step: they come once in several.
  double public_seconds() {
    const std::int64_t rounds =
        config_.model.family() == "gan" ? config_.gan.discriminator_steps() : 0;
    const double start = seconds_now();
    for (std::int64_t i = 0; i < rounds; ++i) generator_.after_release(i);
    wait_for(gradients_.device());
    return rounds == 0 ? 0 : (seconds_now() - start) / static_cast<double>(rounds);
  }

 private:
  const Config& config_;
  Generator& generator_;
  GradientStep& gradients_;
  Optimizer optimizer_;
  MechanismPlan plan_;
  TemporaryFolder folder_;
  MechanismSession session_;
  std::int64_t step_ = 0;
};

/// As training chooses it.
std::int64_t physical_batch_of(const Config& config, GradientStep& gradients, StepCost& cost) {
  const bool is_private = config.privacy.enabled();
  const auto one = static_cast<double>(gradients.peak_bytes(1, is_private)),
             two = static_cast<double>(gradients.peak_bytes(2, is_private));
  std::int64_t batch = config.performance.physical_batch();
  if (batch == 0)
    batch = physical_batch_for(
        logical_batch(config, gradients),
        memory_budget_bytes(config.performance.memory_budget_gib(), gradients.device()),
        gradients.device(),
        [&](std::int64_t b) { return static_cast<std::int64_t>(b == 1 ? one : two); });
  cost.bytes = one + static_cast<double>(batch - 1) * (two - one);
  return batch;
}

std::int64_t trainable_of(const GradientStep& gradients) {
  std::int64_t count = 0;
  for (const Parameter* parameter : gradients.engine().trainable())
    count += parameter->value.numel();
  return count;
}

void measure(const Config& config, Generator& generator, GradientStep& gradients,
             const MechanismPlan& mechanism, StepCost& cost) {
  const double begin = seconds_now();
  cost.physical_batch = physical_batch_of(config, gradients, cost);
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(cost.physical_batch));
  std::iota(keys.begin(), keys.end(), std::uint64_t{0});
  const TrainingBatch batch = synthetic_batch(generator.objective(), keys);
  TimedSteps steps(config, generator, gradients, mechanism);
  steps.add(batch);  // measures layers, fills caches
  steps.update();
  wait_for(gradients.device());
  const double start = seconds_now();
  double now = start;
  while (cost.batches < kLeastBatches ||
         (cost.batches < kMostBatches && now - start < kEnoughSeconds)) {
    steps.add(batch);
    wait_for(gradients.device());
    ++cost.batches;
    now = seconds_now();
  }
  cost.image_seconds = (now - start) / static_cast<double>(cost.batches * cost.physical_batch);
  steps.update();
  wait_for(gradients.device());
  cost.step_seconds = seconds_now() - now + steps.public_seconds();
  cost.measured_seconds = seconds_now() - begin;
}

}  // namespace

StepCost measure_step(const Config& config, const MechanismPlan& mechanism, CostBy by) {
  StepCost cost;
  const std::unique_ptr<Generator> generator =
      make_generator(config, open_placement(config.performance));
  GradientStep gradients(generator->objective(), clip_options(mechanism), step_options(config));
  cost.trainable = trainable_of(gradients);
  if (by == CostBy::kMeasuring) measure(config, *generator, gradients, mechanism, cost);
  return cost;
}

StepCost project_step_cost(const Config& config, const MechanismPlan& mechanism,
                           const GpuLimits& gpu) {
  if (!family_of(config).draws_in_steps)
    throw UsageError(
        fmt::format("--gpu: steps of a {} are not projected, its networks compute in float32; "
                    "measure them there: `sfumato plan --config FILE` on that machine",
                    config.model.family()));
  const std::string& network =
      config.model.init().empty() ? config.model.config() : config.model.init();
  const std::unique_ptr<Generator> generator =
      make_generator(config, open_placement(ComputeDevice::kCpu, Precision::kFp32));
  GradientStep gradients(generator->objective(), clip_options(mechanism), step_options(config));
  StepCost cost;
  cost.gpu = gpu;
  cost.trainable = trainable_of(gradients);
  const std::int64_t draws = generator->objective().draws();
  const LogicalBatch batch{mechanism.expected_batch_size, mechanism.sample_rate, draws};
  cost.physical_batch =
      std::max<std::int64_t>(1, std::min(most_useful_examples(batch, c10::Device(c10::kCUDA)),
                                         static_cast<std::int64_t>(mechanism.expected_batch_size)));
  const StepProjection step =
      project_step(layers_of(describe_networks(network), draws),
                   static_cast<double>(cost.trainable), cost.physical_batch, draws, gpu, {});
  cost.image_seconds = step.private_seconds / static_cast<double>(cost.physical_batch);
  cost.bytes = step.private_bytes;
  return cost;
}

}  // namespace sfumato
