#include "sfumato/privacy/mechanism.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "plan_fields.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/bounds.h"

namespace sfumato {
namespace {

constexpr auto kFields = [](auto&& plan, const auto& visit) { visit_plan_fields(plan, visit); };

std::string one_of(const std::string& name, const std::string& value,
                   const std::vector<std::string>& allowed) {
  std::string words;
  for (const std::string& word : allowed) {
    if (word == value) return {};
    words += words.empty() ? word : ", " + word;
  }
  return fmt::format("\n  {} '{}' is none of: {}{}", name, value, words,
                     did_you_mean(value, allowed));
}

std::string positive(const std::string& name, double value) {
  if (value > 0 && std::isfinite(value)) return {};
  return fmt::format("\n  {} {} is not a finite number above 0", name, value);
}

template <typename Check>
std::string message_of(const Check& check) {
  try {
    check();
  } catch (const UsageError& error) {
    return fmt::format("\n  {}", error.what());
  }
  return {};
}

/// A Gaussian release that a run makes may count no less than the least that any statistic moves
/// by.
std::string sensitivity_mistake(const StagePlan& stage, Adjacency adjacency,
                                std::int64_t records_per_unit) {
  const auto* release = std::get_if<GaussianRelease>(&stage.event);
  if (release == nullptr) return {};
  if (records_per_unit > 1)
    return fmt::format("\n  stage '{}': a release counted by its sensitivity is that of one record",
                       stage.name);
  const double least =
      stage.clip_norm_l2 * sensitivity_in_clip_norms(adjacency, Contributions::kNonNegative);
  if (release->sensitivity_l2 >= least) return {};
  return fmt::format("\n  stage '{}': sensitivity {} is below {}, by which one record moves it",
                     stage.name, release->sensitivity_l2, least);
}

std::string stage_errors(const std::vector<StagePlan>& stages, Adjacency adjacency,
                         std::int64_t records_per_unit) {
  std::string errors;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const StagePlan& stage = stages[i];
    if (stage.name.empty()) errors += "\n  a stage has no name";
    for (std::size_t j = 0; j < i; ++j)
      if (stages[j].name == stage.name)
        errors += fmt::format("\n  two stages are named '{}'", stage.name);
    errors += positive(fmt::format("stage '{}': clip_norm_l2", stage.name), stage.clip_norm_l2);
    errors += message_of([&] { check_event(stage.event, adjacency); });
    const std::optional<Phase> phase = stage.executed();
    if (!phase) continue;
    const std::string mistake = noise_range_mistake(stage.clip_norm_l2, phase->noise_multiplier);
    if (!mistake.empty()) errors += fmt::format("\n  stage '{}': {}", stage.name, mistake);
    errors += sensitivity_mistake(stage, adjacency, records_per_unit);
  }
  return errors;
}

}  // namespace

std::optional<Phase> StagePlan::executed() const {
  if (declared) return std::nullopt;
  if (const auto* phase = std::get_if<Phase>(&event)) return *phase;
  const auto* release = std::get_if<GaussianRelease>(&event);
  if (release == nullptr) return std::nullopt;
  return Phase{1, release->noise_stddev / clip_norm_l2, release->count};
}

void MechanismPlan::validate() const {
  std::string errors = positive("expected_batch_size", expected_batch_size);
  if (steps < 0) errors += fmt::format("\n  steps {} is negative", steps);
  if (is_private) {
    errors += positive("sample_rate", sample_rate) +
              positive("noise_multiplier", noise_multiplier) +
              positive("clip_norm_l2", clip_norm_l2);
    if (sample_rate > 1) errors += fmt::format("\n  sample_rate {} is above 1", sample_rate);
    if (errors.empty()) {
      const std::string mistake = noise_range_mistake(clip_norm_l2, noise_multiplier);
      if (!mistake.empty()) errors += "\n  " + mistake;
    }
    if (clipping == Clipping::kAutomatic &&
        !(automatic_gamma >= kLeastAutomaticGamma && std::isfinite(automatic_gamma)))
      errors += fmt::format(
          "\n  automatic_gamma {} is not in {:g} ...: a smaller one lifts gradients above the clip "
          "norm whose norms float32 cannot tell from 0",
          automatic_gamma, kLeastAutomaticGamma);
    errors += message_of([&] { check_delta(delta); });
    if (target_epsilon) errors += positive("target_epsilon", *target_epsilon);
    errors += one_of("sampler", sampler, {"poisson"});
    if (unit.empty()) errors += "\n  unit is empty; say whom the statement protects";
    if (candidates < 1) errors += fmt::format("\n  candidates {} is below 1", candidates);
    if (selection) errors += message_of([&] { check_selection(*selection); });
    if (selection && candidates > 1)
      errors += fmt::format(
          "\n  candidates {} together with a selection: its law counts the runs already; set "
          "mechanism.candidates=1, or mechanism.selection.mean_runs=0 to charge every run in full",
          candidates);
    if (errors.empty()) errors += message_of([&] { check_phase(phase(steps), adjacency); });
    errors += stage_errors(stages, adjacency, records_per_unit);
  }
  if (!errors.empty()) throw UsageError("mechanism plan:" + errors);
}

nlohmann::ordered_json MechanismPlan::to_json() const { return write_plan(*this, kFields); }

MechanismPlan MechanismPlan::from_json(const nlohmann::json& json) {
  try {
    auto plan = read_plan<MechanismPlan>(json, kPlanVersion, kFields);
    plan.validate();
    return plan;
  } catch (const UsageError& error) {
    throw DataError(error.what());
  }
}

std::string MechanismPlan::hash() const {
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;  // of bad UTF-8
  return sha256_hex(to_json().dump(-1, ' ', false, kReplace));
}

std::string MechanismPlan::describe_difference(const MechanismPlan& configuration) const {
  MechanismPlan same_version = configuration;
  same_version.version = version;
  const nlohmann::ordered_json run = to_json(), other = same_version.to_json();
  const auto text = [](const nlohmann::ordered_json& value) {
    if (value.is_null()) return std::string("none");
    return value.is_string() ? fmt::format("'{}'", value.get<std::string>()) : value.dump();
  };
  std::string lines;
  for (const auto& item : run.items()) {
    const nlohmann::ordered_json& theirs = other.at(item.key());
    if (item.value() == theirs) continue;
    lines += fmt::format("{}{}: {} in the run, {} in the configuration", lines.empty() ? "" : "\n",
                         item.key(), text(item.value()), text(theirs));
  }
  return lines;
}

Phase MechanismPlan::phase(std::int64_t executed) const {
  return {sample_rate, noise_multiplier, executed, records_per_unit};
}

std::vector<PrivacyEvent> MechanismPlan::events(std::int64_t executed) const {
  std::vector<PrivacyEvent> all;
  for (const StagePlan& stage : stages)
    all.push_back(stage.declared ? stage.event : repeated(stage.event, candidates));
  all.push_back(repeated(phase(executed), candidates));
  return all;
}

std::vector<PrivacyEvent> MechanismPlan::cost(std::int64_t executed) const {
  if (!selection) return events(executed);
  return {ApproximateRelease{epsilon_after(executed), delta}};
}

PrivacyStatement MechanismPlan::statement_after(std::int64_t executed) const {
  if (!is_private)
    return {.epsilon = std::numeric_limits<double>::infinity(),
            .epsilon_lower = std::nullopt,
            .delta = delta,
            .accountant = accountant,
            .adjacency = adjacency,
            .order = std::nullopt,
            .delta_lower = std::nullopt,
            .grid = std::nullopt};
  return account_epsilon(accountant, events(executed), delta, adjacency, selection);
}

double MechanismPlan::epsilon_after(std::int64_t executed) const {
  return statement_after(executed).epsilon;
}

double EpsilonMeter::epsilon_after(std::int64_t executed) {
  if (executed > known_steps_) {
    const std::int64_t stride = std::max<std::int64_t>(1, plan_.steps / 100);
    // Rounded up, but not beyond the plan: the last value is the plan's own.
    known_steps_ =
        std::max(executed, std::min(plan_.steps, (executed + stride - 1) / stride * stride));
    known_epsilon_ = plan_.epsilon_after(known_steps_);
  }
  return known_epsilon_;
}

}  // namespace sfumato
