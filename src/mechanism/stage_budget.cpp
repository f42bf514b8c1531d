#include "sfumato/mechanism/stage_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/privacy/calibrate.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

double noise_for(double epsilon, double sample_rate, int64_t steps, const MechanismPlan& plan) {
  CalibrationTarget target{.epsilon = epsilon, .delta = plan.delta};
  target.adjacency = plan.adjacency;
  target.records_per_unit = plan.records_per_unit;
  target.accountant = plan.accountant;
  return calibrate_noise_multiplier(target, sample_rate, steps).phase.noise_multiplier;
}

template <typename Settings>
double stage_noise(const Settings& settings, double sample_rate, int64_t releases,
                   const MechanismPlan& plan) {
  if (settings.noise_multiplier()) return *settings.noise_multiplier();
  if (settings.epsilon()) return noise_for(*settings.epsilon(), sample_rate, releases, plan);
  const double mu =
      std::sqrt(*settings.share()) * gaussian_mu(plan.target_epsilon.value(), plan.delta);
  const double epsilon = gaussian_epsilon(mu, plan.delta);
  if (!(epsilon > 0))
    throw UsageError(
        fmt::format("{}: a share of {} of ε = {} buys nothing; set a larger one or "
                    "leave the stage out",
                    settings.share.key(), *settings.share(), *plan.target_epsilon));
  const Phase once{sample_rate, 1, releases, plan.records_per_unit};
  const Phase all = std::get<Phase>(repeated(once, plan.candidates));
  return noise_for(epsilon, sample_rate, all.steps, plan);
}

}  // namespace

std::vector<StagePlan> plan_stages(const Config& config, const MechanismPlan& plan) {
  std::vector<StagePlan> stages;
  if (config.label_histogram.on())
    stages.push_back({.name = "label_histogram",
                      .event = Phase{1, stage_noise(config.label_histogram, 1, 1, plan), 1,
                                     plan.records_per_unit}});
  const CentralImagesSettings& central = config.central_images;
  if (central.on()) {
    const double norm = central.clip_norm_l2() > 0
                            ? central.clip_norm_l2()
                            : std::sqrt(static_cast<double>(config.data.channels())) *
                                  static_cast<double>(config.data.image_size());
    stages.push_back(
        {.name = "central_images",
         .event = Phase{central.sample_rate(),
                        stage_noise(central, central.sample_rate(), central.releases(), plan),
                        central.releases(), plan.records_per_unit},
         .clip_norm_l2 = norm});
  }
  int64_t number = 0;
  for (const std::string& text : config.mechanism.declared())
    stages.push_back({.name = fmt::format("declared_{}", ++number),
                      .event = parse_event(text, plan.records_per_unit),
                      .declared = true});
  return stages;
}

double central_images_divisor(const Config& config) {
  const CentralImagesSettings& central = config.central_images;
  if (central.expected_class_batch() > 0) return central.expected_class_batch();
  return central.sample_rate() / config.mechanism.sample_rate() *
         config.mechanism.expected_batch_size() /
         static_cast<double>(std::max<int64_t>(config.data.num_classes(), 1));
}

}  // namespace sfumato
