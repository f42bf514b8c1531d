#include "sfumato/bench/network_report.h"

#include "sfumato/device/gpu.h"
#include "sfumato/generate/families.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/setup.h"

namespace sfumato {
namespace {

/// Numbers that the optimizer keeps for each one that it trains.
int64_t moments(const OptimizerOptions& optimizer) {
  if (optimizer.kind != OptimizerKind::kSgd) return 2;
  return optimizer.momentum > 0 ? 1 : 0;
}

void report_memory(const Config& config, GradientStep& step, NetworkReport& report) {
  const c10::Device device = step.device();
  const bool is_private = config.privacy.enabled();
  report.peak_bytes_one = step.peak_bytes(1, is_private);
  report.peak_bytes_two = step.peak_bytes(2, is_private);
  report.budget_bytes = memory_budget_bytes(config.performance.memory_budget_gib(), device);
  report.physical_batch = config.performance.physical_batch();
  if (report.physical_batch == 0)
    report.physical_batch = physical_batch_for(
        logical_batch(config, step), report.budget_bytes, device,
        [&](int64_t b) { return b == 1 ? report.peak_bytes_one : report.peak_bytes_two; });
  report.peak_bytes = report.peak_bytes_one +
                      (report.physical_batch - 1) * (report.peak_bytes_two - report.peak_bytes_one);
}

void report_plan(const Config& config, NetworkReport& report) {
  const MechanismSettings& m = config.mechanism;
  if (config.privacy.enabled() && !m.noise_multiplier() && !m.target_epsilon()) return;
  report.plan = make_plan(config);
  report.epsilon = report.plan->epsilon_after(report.plan->steps);
}

}  // namespace

double forward_flops(const LayerChoice& layer) {
  const LayerWork& w = layer.work;
  return 2.0 * static_cast<double>(w.tokens) * static_cast<double>(w.fan_in) *
         static_cast<double>(w.fan_out);
}

double held_bytes_per_example(const LayerChoice& layer, double element_bytes) {
  const double float32 = layer.algorithm == Algorithm::kKeep ? layer.keep_bytes : layer.gram_bytes;
  const auto examples = static_cast<double>(std::max<int64_t>(layer.work.examples, 1));
  return float32 * element_bytes / 4 / examples;
}

NetworkReport report_network(const Config& config) {
  NetworkReport report;
  const Placement placement = open_placement(config.performance);
  const std::unique_ptr<Generator> generator = make_generator(config, placement);
  report.device = chosen_device(config.performance.device());
  report.held_element_bytes = placement.compute_type == at::kBFloat16 ? 2 : 4;
  report_plan(config, report);
  // What a step takes does not depend on how it clips.
  const ClipOptions clip = report.plan ? clip_options(*report.plan) : ClipOptions{};
  GradientStep step(generator->objective(), clip, step_options(config));
  for (const Parameter* parameter : generator->objective().parameters())
    report.parameters += parameter->value.numel();
  for (const Parameter* parameter : step.engine().trainable())
    report.trainable += parameter->value.numel();
  report.tensors = static_cast<int64_t>(step.engine().trainable().size());
  step.verify();  // throws unless every one of them is covered
  report.tensors_covered = report.tensors;
  report.layers = step.engine().choices();
  report.layer_examples = report.layers.empty() ? 0 : report.layers.front().work.examples;
  report.network = generator->trained_network();
  report.state_bytes = bytes_of(generator->state()) + generator->public_step_bytes() +
                       4 * moments(optimizer_options(config)) * report.trainable;
  report_memory(config, step, report);
  return report;
}

}  // namespace sfumato
