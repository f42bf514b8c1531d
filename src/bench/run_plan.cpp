#include "sfumato/bench/run_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/privacy/calibrate.h"

namespace sfumato {
namespace {

constexpr double kMostOfNoise = 10, kLeastOfPictures = 30;

/// The noise of a row by RDP; empty where the stages alone cost more.
std::optional<double> noise_by_rdp(const MechanismPlan& plan, const PlanRow& row) {
  CalibrationTarget target{.epsilon = row.epsilon, .delta = plan.delta};
  target.adjacency = plan.adjacency;
  target.records_per_unit = plan.records_per_unit;
  target.accountant = Accountant::kRdp;
  target.spent = plan.events(0);
  const Phase once{row.sample_rate, 1, row.steps, plan.records_per_unit};
  const std::int64_t steps = std::get<Phase>(repeated(once, plan.candidates)).steps;
  try {
    return calibrate_noise_multiplier(target, row.sample_rate, steps).phase.noise_multiplier;
  } catch (const PrivacyError&) {
    return std::nullopt;
  }
}

std::vector<double> default_epsilons(double epsilon) { return {epsilon / 2, epsilon, 2 * epsilon}; }

void add_signal(PlanRow& row, std::int64_t trainable) {
  if (!row.noise_multiplier) return;
  row.signal = signal_per_step(row.batch, *row.noise_multiplier, trainable);
  row.total_signal = signal_of_all(row.signal, row.steps);
}

}  // namespace

void apply(const PublicSize& size, Config& config) {
  if (!size.records && !size.epochs) return;
  if (!size.records)
    throw UsageError("--epochs needs --dataset-size, a public estimate of the number of images");
  MechanismSettings& m = config.mechanism;
  const auto records = static_cast<double>(*size.records);
  const bool by_rate = m.expected_batch_size.is_default() && !m.sample_rate.is_default();
  const double batch = by_rate ? m.sample_rate() * records : m.expected_batch_size();
  if (!(records >= batch))
    throw UsageError(fmt::format(
        "a batch of {} out of {} images: every image joins a step with a probability, which cannot "
        "be above 1; set mechanism.expected_batch_size to a smaller one",
        batch, *size.records));
  m.expected_batch_size.set(batch, "--dataset-size");
  m.sample_rate.set(batch / records, "--dataset-size");
  if (size.epochs)
    m.steps.set(std::max<std::int64_t>(1, std::llround(*size.epochs * records / batch)),
                "--epochs");
}

const std::vector<PublicResult>& public_results() {
  static const std::vector<PublicResult> kResults = {
      {"smoke.yaml", 40, 32, 0.447, "noise"},
      {"gan-smoke.yaml", 40, 32, 1.33, "noise"},
      {"quickstart.yaml", 100, 1024, 3.15, "79.4 % (Fashion-MNIST, 640 images, pretrained)"},
      {"fashion-gan.yaml", 300, 512, 3.12, "66.0 % (Fashion-MNIST, pretrained)"},
      {"fashion-gan.yaml", 1000, 512, 2.75, "71 % (Fashion-MNIST, pretrained)"},
      {"mnist-gan.yaml", 1000, 512, 2.75, "94.5 % (MNIST, pretrained)"},
  };
  return kResults;
}

double signal_per_step(double batch, double noise_multiplier, std::int64_t trainable) {
  return batch / (noise_multiplier * std::sqrt(static_cast<double>(trainable)));
}

double signal_of_all(double signal_per_step, std::int64_t steps) {
  return signal_per_step * std::sqrt(static_cast<double>(steps));
}

Outlook outlook_of(double signal_of_all) {
  if (signal_of_all < kMostOfNoise) return Outlook::kNoise;
  return signal_of_all < kLeastOfPictures ? Outlook::kUnknown : Outlook::kPictures;
}

RunPlan plan_run(const MechanismPlan& mechanism, std::int64_t trainable,
                 std::vector<double> epsilons) {
  RunPlan plan{mechanism, mechanism.epsilon_after(mechanism.steps), trainable, {}};
  const double configured = mechanism.target_epsilon.value_or(plan.epsilon);
  PlanRow own{.steps = mechanism.steps,
              .batch = mechanism.expected_batch_size,
              .sample_rate = mechanism.sample_rate,
              .epsilon = configured,
              .noise_multiplier = mechanism.noise_multiplier,
              .is_configured = true};
  add_signal(own, trainable);
  const double exact_over_rdp = mechanism.noise_multiplier /
                                noise_by_rdp(mechanism, own).value_or(mechanism.noise_multiplier);
  if (epsilons.empty()) epsilons = default_epsilons(configured);
  if (std::ranges::find(epsilons, configured) == epsilons.end()) epsilons.push_back(configured);
  std::ranges::sort(epsilons);
  for (const std::int64_t steps :
       {std::max<std::int64_t>(1, mechanism.steps / 2), mechanism.steps, 2 * mechanism.steps})
    for (const double times : {0.5, 1.0, 2.0})
      for (const double epsilon : epsilons) {
        PlanRow row{.steps = steps,
                    .batch = times * own.batch,
                    .sample_rate = times * own.sample_rate,
                    .epsilon = epsilon,
                    .noise_multiplier = std::nullopt};
        if (row.sample_rate > 1) continue;
        if (steps == own.steps && times == 1 && epsilon == configured) {
          plan.rows.push_back(own);
          continue;
        }
        row.noise_multiplier = noise_by_rdp(mechanism, row);
        if (row.noise_multiplier) *row.noise_multiplier *= exact_over_rdp;
        add_signal(row, trainable);
        plan.rows.push_back(row);
      }
  return plan;
}

}  // namespace sfumato
