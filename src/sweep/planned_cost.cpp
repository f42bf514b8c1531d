#include "sfumato/sweep/planned_cost.h"

#include <algorithm>
#include <map>

#include "run/configuration_comparison.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/calibrate.h"

namespace sfumato {
namespace {

bool has_stages(const Config& config) {
  return !config.mechanism.declared().empty() ||
         std::ranges::any_of(stage_settings(config), [](const auto* stage) { return stage->on(); });
}

}  // namespace

PlannedCost planned_cost(const Config& config, std::int64_t records_per_unit) {
  const MechanismSettings& m = config.mechanism;
  PlannedCost cost;
  cost.is_private = config.privacy.enabled();
  cost.delta = m.delta();
  cost.accountant = m.accountant();
  cost.adjacency = m.adjacency();
  if (!cost.is_private) {
    cost.epsilon = kInfinity;
    return cost;
  }
  if (has_stages(config)) {
    if (!m.target_epsilon())
      throw UsageError(
          "what runs with stages cost is planned by mechanism.target_epsilon; set it instead of "
          "mechanism.noise_multiplier");
    cost.epsilon = *m.target_epsilon();
    return cost;
  }
  const std::optional<Selection> selection = planned_selection(config);
  Phase phase{m.sample_rate(), 1, m.steps(), records_per_unit};
  if (m.target_epsilon()) {
    CalibrationTarget target{*m.target_epsilon(), m.delta(), m.adjacency(), records_per_unit};
    target.accountant = m.accountant();
    target.selection = selection;
    const Calibration found = calibrate_noise_multiplier(target, m.sample_rate(), m.steps());
    phase = found.phase;
    cost.epsilon = found.statement.epsilon;
  } else {
    phase.noise_multiplier = m.noise_multiplier().value();
    const PrivacyEvent event = phase;
    cost.epsilon =
        account_epsilon(cost.accountant, {&event, 1}, cost.delta, cost.adjacency, selection)
            .epsilon;
  }
  cost.noise_multiplier = phase.noise_multiplier;
  cost.events = {phase};
  return cost;
}

PlannedCost together(std::span<const PlannedCost> runs) {
  PlannedCost all;
  bool composes = true;
  for (const PlannedCost& run : runs) {
    all.is_private = all.is_private && run.is_private;
    composes = composes && !run.events.empty() && run.adjacency == runs.front().adjacency;
  }
  if (!all.is_private) {
    all.epsilon = kInfinity;
    return all;
  }
  for (const PlannedCost& run : runs) {
    all.epsilon += run.epsilon;
    all.delta = composes ? std::max(all.delta, run.delta) : all.delta + run.delta;
    if (composes) all.events.insert(all.events.end(), run.events.begin(), run.events.end());
  }
  if (!composes || runs.empty()) return all;
  all.adjacency = runs.front().adjacency;
  all.epsilon = account_epsilon(Accountant::kPld, all.events, all.delta, all.adjacency).epsilon;
  return all;
}

std::vector<PlannedCost> run_costs(const SweepPlan& plan) {
  // Runs that differ in nothing that the guarantee looks at have one cost.
  std::map<std::string, PlannedCost> known;
  std::vector<PlannedCost> costs;
  for (const SweepRun& run : plan.runs) {
    const auto config = run.config();
    std::string key;
    for (const auto& [name, value] : given_settings(*config))
      if (name.starts_with("mechanism.") || name.starts_with("privacy."))
        key += name + value + "\n";
    auto found = known.find(key);
    if (found == known.end())
      found = known.emplace(key, planned_cost(*config, plan.records_per_unit())).first;
    costs.push_back(found->second);
  }
  return costs;
}

PlannedCost whole_cost(const SweepPlan& plan, std::span<const PlannedCost> runs) {
  return plan.purpose() == SweepPurpose::kPrivateSelection ? runs.front() : together(runs);
}

std::optional<SweepTotal> sweep_total(const SweepPlan& plan) {
  const SweepPurpose purpose = plan.purpose();
  if (purpose == SweepPurpose::kPublicTuning || purpose == SweepPurpose::kPrivateSelection ||
      plan.runs.size() < 2)
    return std::nullopt;
  const std::vector<PlannedCost> runs = run_costs(plan);
  const PlannedCost all = whole_cost(plan, runs);
  if (!all.is_private) return std::nullopt;
  SweepTotal total{std::ssize(runs), all.epsilon, all.delta};
  // Another accountant may have found more for one run alone.
  for (const PlannedCost& run : runs) total.epsilon = std::max(total.epsilon, run.epsilon);
  return total;
}

}  // namespace sfumato
