#include "sfumato/mechanism/plan.h"

#include "run/configuration_comparison.h"
#include "sfumato/data/record_store.h"
#include "sfumato/mechanism/stage_budget.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/calibrate.h"

namespace sfumato {
namespace {

/// The noise of training at which everything together keeps the target: what the stages cost comes
/// off first.
double calibrated_noise(const MechanismPlan& plan) {
  CalibrationTarget target{.epsilon = plan.target_epsilon.value(), .delta = plan.delta};
  target.adjacency = plan.adjacency;
  target.records_per_unit = plan.records_per_unit;
  target.accountant = plan.accountant;
  target.spent = plan.events(0);
  target.selection = plan.selection;
  const Phase training{plan.sample_rate, 1, plan.steps, plan.records_per_unit};
  return calibrate_noise_multiplier(target, plan.sample_rate,
                                    std::get<Phase>(repeated(training, plan.candidates)).steps)
      .phase.noise_multiplier;
}

}  // namespace

MechanismPlan make_plan(const Config& config, const RecordStore& store,
                        const MechanismPlan* frozen) {
  MechanismPlan plan =
      make_plan(config, store.unit(), store.records_per_unit(), stage_table(), frozen);
  if (plan.is_private) check_batch_bound(store.count(), plan.sample_rate, plan.expected_batch_size);
  return plan;
}

MechanismPlan make_plan(const Config& config, const std::string& unit, int64_t records_per_unit,
                        std::span<const Stage> table, const MechanismPlan* frozen) {
  const MechanismSettings& m = config.mechanism;
  MechanismPlan plan;
  plan.is_private = config.privacy.enabled();
  plan.sample_rate = m.sample_rate();
  plan.steps = m.steps();
  plan.clip_norm_l2 = m.clip_norm_l2();
  plan.clipping = m.clipping();
  plan.automatic_gamma = m.automatic_gamma();
  plan.expected_batch_size = m.expected_batch_size();
  plan.delta = m.delta();
  plan.target_epsilon = m.target_epsilon();
  plan.adjacency = m.adjacency();
  plan.unit = unit;
  plan.records_per_unit = records_per_unit;
  plan.accountant = m.accountant();
  if (plan.is_private) {
    plan.candidates = m.candidates();
    plan.selection = planned_selection(config);
    plan.stages = plan_stages(config, plan, table, frozen);
    plan.noise_multiplier =
        m.target_epsilon() ? calibrated_noise(plan) : m.noise_multiplier().value();
  }
  plan.validate();
  return plan;
}

MechanismPlan make_plan(const Config& config) {
  const bool has_users = !config.data.users().empty();
  const int64_t records = has_users ? config.data.records_per_user() : 1;
  return make_plan(config, unit_of_privacy(has_users, records), records);
}

ClipOptions clip_options(const MechanismPlan& plan) {
  return {plan.clipping, plan.clip_norm_l2, plan.automatic_gamma};
}

}  // namespace sfumato
