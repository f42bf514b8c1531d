#include "run/configuration_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sfumato {
namespace {

/// The stage of this name that a run makes itself; null if there is none.
const StagePlan* own_stage(const MechanismPlan& plan, const std::string& name) {
  for (const StagePlan& stage : plan.stages)
    if (!stage.declared && stage.name == name) return &stage;
  return nullptr;
}

template <typename Compare>
void compare_stage_settings(const Config& config, const MechanismPlan& plan,
                            const Compare& compare) {
  for (const StageSettings* settings : stage_settings(config)) {
    const std::string& key = settings->section_name();
    const StagePlan* stage = own_stage(plan, settings->stage.name);
    const std::optional<Phase> frozen = stage ? stage->executed() : std::nullopt;
    compare(key + " (on)", settings->on(), frozen.has_value());
    if (!settings->on() || !frozen) continue;
    if (settings->noise_multiplier())
      compare(key + ".noise_multiplier", *settings->noise_multiplier(), frozen->noise_multiplier);
    const auto [sample_rate, releases] = settings->sampling();
    compare(key + ".releases", releases, frozen->steps);
    compare(key + ".sample_rate", sample_rate, frozen->sample_rate);
    if (plan.version >= kMeasuresSince)
      compare(key + " (what is measured)", settings->measures(), stage->measures);
  }
  std::vector<std::string> here, frozen;
  for (const std::string& text : config.mechanism.declared())
    here.push_back(to_text(parse_event(text, plan.records_per_unit)));
  for (const StagePlan& declared : plan.stages)
    if (declared.declared) frozen.push_back(to_text(declared.event));
  compare("mechanism.declared", here, frozen);
}

}  // namespace

std::optional<Selection> planned_selection(const Config& config) {
  const SelectionSettings& s = config.selection;
  if (s.mean_runs() == 0) return std::nullopt;
  return make_selection(s.law(), s.eta(), s.mean_runs());
}

std::vector<std::string> configuration_differences(const Config& config,
                                                   const MechanismPlan& plan) {
  const MechanismSettings& m = config.mechanism;
  std::vector<std::string> differences;
  const auto compare = [&](const std::string& key, const auto& here, const auto& frozen) {
    if (here != frozen)
      differences.push_back(fmt::format("{} is {}, in the ledger {}", key,
                                        nlohmann::json(here).dump(),
                                        nlohmann::json(frozen).dump()));
  };
  compare("privacy.enabled", config.privacy.enabled(), plan.is_private);
  compare("mechanism.sample_rate", m.sample_rate(), plan.sample_rate);
  compare("mechanism.steps", m.steps(), plan.steps);
  compare("mechanism.clip_norm_l2", m.clip_norm_l2(), plan.clip_norm_l2);
  compare("mechanism.clipping", to_string(m.clipping()), to_string(plan.clipping));
  compare("mechanism.expected_batch_size", m.expected_batch_size(), plan.expected_batch_size);
  compare("mechanism.delta", m.delta(), plan.delta);
  compare("mechanism.adjacency", to_string(m.adjacency()), to_string(plan.adjacency));
  compare("mechanism.accountant", to_string(m.accountant()), to_string(plan.accountant));
  compare("mechanism.candidates", m.candidates(), plan.candidates);
  if (m.clipping() == Clipping::kAutomatic)
    compare("mechanism.automatic_gamma", m.automatic_gamma(), plan.automatic_gamma);
  if (plan.is_private) {
    const auto text = [](const std::optional<Selection>& selection) {
      return selection ? to_text(*selection) : std::string("none");
    };
    compare("mechanism.selection", text(planned_selection(config)), text(plan.selection));
  }
  if (plan.is_private) compare_stage_settings(config, plan, compare);
  if (m.noise_multiplier())
    compare("mechanism.noise_multiplier", *m.noise_multiplier(), plan.noise_multiplier);
  if (m.target_epsilon())
    compare("mechanism.target_epsilon", *m.target_epsilon(), plan.target_epsilon.value_or(0));
  return differences;
}

}  // namespace sfumato
