#include "train/step_report.h"

#include <ATen/core/Tensor.h>
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

void StepReport::report(const StepFacts& facts) {
  double loss = 0, norm = 0;
  int64_t counted = 0, clipped = 0, excluded = 0;
  for (const BatchStatistics& batch : facts.batches) {
    const BatchStatistics::Counts counts = batch.counts();
    // Padding comes last in a batch.
    loss += batch.loss.narrow(0, 0, counts.counted).sum().item<double>();
    norm += batch.norm.narrow(0, 0, counts.counted).sum().item<double>();
    counted += counts.counted;
    clipped += counts.clipped;
    excluded += counts.excluded;
  }
  const double n = static_cast<double>(std::max<int64_t>(counted, 1));
  std::vector<Metric> metrics = {{"loss", loss / n},
                                 {"batch_size", static_cast<double>(counted)},
                                 {"seconds", facts.seconds},
                                 {"learning_rate", facts.learning_rate}};
  if (facts.epsilon) {
    metrics.push_back({"gradient_norm_l2", norm / n});
    metrics.push_back({"clipped_fraction", static_cast<double>(clipped) / n});
    metrics.push_back({"not_finite", static_cast<double>(excluded)});
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
  progress_.update({facts.step, facts.end, images_rate_.items_per_s(), facts.epsilon,
                    left / std::max(step_rate_.items_per_s(), 1e-9), facts.warning});
}

}  // namespace sfumato
