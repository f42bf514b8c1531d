#include "sfumato/mechanism/stage_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <variant>

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

/// The mu of a run that may spend the whole target; one of a selection, which costs more than a
/// run.
double whole_mu(const MechanismPlan& plan) {
  const double target = plan.target_epsilon.value();
  const double alone = gaussian_mu(target, plan.delta);
  if (!plan.selection) return alone;
  double low = 0, high = alone;
  for (int i = 0; i < 40; ++i) {
    const double middle = 0.5 * (low + high);
    const PrivacyEvent run = GaussianRelease{middle, 1};
    const double cost =
        account_epsilon(plan.accountant, {&run, 1}, plan.delta, plan.adjacency, plan.selection)
            .epsilon;
    (cost <= target ? low : high) = middle;
  }
  return low;
}

/// By how much less a replaced record moves the releases of a stage than accountants take a sampled
/// Gaussian to be moved: 1, but where nothing is sampled and contributions are non-negative.
double share_of_the_shift(const Stage& stage, const StageSettings& settings,
                          const MechanismPlan& plan) {
  if (settings.sampling().sample_rate != 1 || plan.records_per_unit != 1) return 1;
  return sensitivity_in_clip_norms(plan.adjacency, stage.contributions) /
         sensitivity_in_clip_norms(plan.adjacency);
}

/// Whether a run that goes on counts this stage as a sampled Gaussian, as older versions did all.
bool is_frozen_as_phase(const MechanismPlan* frozen, const std::string& name) {
  if (frozen == nullptr) return false;
  return std::ranges::any_of(frozen->stages, [&](const StagePlan& stage) {
    return stage.name == name && std::holds_alternative<Phase>(stage.event);
  });
}

/// `share`: as of share_of_the_shift; noise that is calibrated shrinks with it.
double stage_noise(const StageSettings& settings, const MechanismPlan& plan, double share) {
  const auto [sample_rate, releases] = settings.sampling();
  if (settings.noise_multiplier()) return *settings.noise_multiplier();
  const double rounded_up = share == 1 ? 1 : share * (1 + 1e-12);
  if (settings.epsilon())
    return rounded_up * noise_for(*settings.epsilon(), sample_rate, releases, plan);
  const double mu = std::sqrt(*settings.share()) * whole_mu(plan);
  const double epsilon = gaussian_epsilon(mu, plan.delta);
  if (!(epsilon > 0))
    throw UsageError(
        fmt::format("{}: a share of {} of ε = {} buys nothing; set a larger one or "
                    "leave the stage out",
                    settings.share.key(), *settings.share(), *plan.target_epsilon));
  const Phase once{sample_rate, 1, releases, plan.records_per_unit};
  const Phase all = std::get<Phase>(repeated(once, plan.candidates));
  return rounded_up * noise_for(epsilon, sample_rate, all.steps, plan);
}

PrivacyEvent stage_event(const Stage& stage, const StageSettings& settings,
                         const MechanismPlan& plan, double clip_norm_l2,
                         const MechanismPlan* frozen) {
  const auto [sample_rate, releases] = settings.sampling();
  const double share = is_frozen_as_phase(frozen, settings.stage.name)
                           ? 1
                           : share_of_the_shift(stage, settings, plan);
  const double noise = stage_noise(settings, plan, share);
  if (share == 1) return Phase{sample_rate, noise, releases, plan.records_per_unit};
  return GaussianRelease{
      clip_norm_l2 * sensitivity_in_clip_norms(plan.adjacency, stage.contributions),
      clip_norm_l2 * noise, releases};
}

}  // namespace

std::vector<StagePlan> plan_stages(const Config& config, const MechanismPlan& plan,
                                   std::span<const Stage> table, const MechanismPlan* frozen) {
  const bool says_what_is_measured = frozen == nullptr || frozen->version >= kMeasuresSince;
  std::vector<StagePlan> planned;
  for (const StageSettings* settings : stage_settings(config)) {
    if (!settings->on()) continue;
    const Stage& stage = find_stage(table, settings->stage.name);
    const double clip_norm_l2 = stage.clip_norm_l2(config);
    planned.push_back({.name = settings->stage.name,
                       .event = stage_event(stage, *settings, plan, clip_norm_l2, frozen),
                       .clip_norm_l2 = clip_norm_l2,
                       .measures = says_what_is_measured ? settings->measures() : std::string()});
  }
  int64_t number = 0;
  for (const std::string& text : config.mechanism.declared())
    planned.push_back({.name = fmt::format("declared_{}", ++number),
                       .event = parse_event(text, plan.records_per_unit),
                       .declared = true});
  return planned;
}

}  // namespace sfumato
