#include "train/step_report.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <vector>

#include "sfumato/core/bound_text.h"

namespace sfumato {

StepReport::StepReport(const std::filesystem::path& metrics,
                       const std::filesystem::path& tensorboard, int64_t first_step)
    : metrics_(metrics, first_step),
      tensorboard_(tensorboard, first_step),
      progress_(std::cerr, ::isatty(STDERR_FILENO) != 0, 10) {}

void StepReport::took(double images, double seconds) {
  images_rate_.add(images, seconds);
  step_rate_.add(1, seconds);
}

BatchTotals totals_of(const std::vector<BatchStatistics>& batches, Communicator& ranks) {
  const at::Tensor sums = at::zeros({5}, at::kDouble);
  double* all = sums.mutable_data_ptr<double>();
  for (const BatchStatistics& batch : batches) {
    const BatchStatistics::Counts counts = batch.counts();
    // Padding comes last in a batch.
    all[0] += batch.loss.narrow(0, 0, counts.counted).sum().item<double>();
    all[1] += batch.norm.narrow(0, 0, counts.counted).sum().item<double>();
    all[2] += static_cast<double>(counts.counted);
    all[3] += static_cast<double>(counts.clipped);
    all[4] += static_cast<double>(counts.excluded);
  }
  ranks.all_reduce_sum({sums});
  return {all[0], all[1], all[2], all[3], all[4]};
}

void StepReport::report(const StepFacts& facts) {
  const BatchTotals& t = facts.totals;
  const double n = std::max(t.counted, 1.0);
  std::vector<Metric> metrics = {{"loss", t.loss / n},
                                 {"batch_size", t.counted},
                                 {"seconds", facts.seconds},
                                 {"learning_rate", facts.learning_rate}};
  if (facts.epsilon) {
    metrics.push_back({"gradient_norm_l2", t.norm / n});
    metrics.push_back({"clipped_fraction", t.clipped / n});
    metrics.push_back({"not_finite", t.excluded});
    metrics.push_back({"epsilon", *facts.epsilon});
  }
  metrics_.append(facts.step, metrics);
  for (const Metric& metric : metrics)
    // TensorBoard keeps floats, and an epsilon is not rounded down.
    tensorboard_.add_scalar(fmt::format("train/{}", metric.name), facts.step,
                            metric.name == "epsilon"
                                ? static_cast<double>(upper_bound_float(metric.value))
                                : metric.value);
  const auto left = static_cast<double>(facts.end - facts.step);
  // How many images a private step really had is secret.
  const bool nominal = facts.epsilon.has_value();
  progress_.update({facts.step, facts.end, images_rate_.items_per_s(), facts.epsilon,
                    left / std::max(step_rate_.items_per_s(), 1e-9), facts.warning, nominal});
}

}  // namespace sfumato
