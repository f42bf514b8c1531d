#include "sfumato/mechanism/declared_uses.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/card_events.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

/// Whether whoever sees what `declared` reveals could make what `needed` reveals from it.
bool covers(const PrivacyEvent& declared, const PrivacyEvent& needed) {
  if (const auto* a = std::get_if<Phase>(&declared)) {
    const auto* b = std::get_if<Phase>(&needed);
    return b != nullptr && a->sample_rate >= b->sample_rate &&
           a->noise_multiplier <= b->noise_multiplier && a->steps >= b->steps &&
           a->records_per_unit == b->records_per_unit && !a->truncation && !b->truncation;
  }
  if (const auto* a = std::get_if<GaussianRelease>(&declared)) {
    const auto* b = std::get_if<GaussianRelease>(&needed);
    return b != nullptr && a->sensitivity_l2 >= b->sensitivity_l2 &&
           a->noise_stddev <= b->noise_stddev && a->count >= b->count;
  }
  const auto& a = std::get<ApproximateRelease>(declared);
  const auto* b = std::get_if<ApproximateRelease>(&needed);
  return b != nullptr && a.epsilon >= b->epsilon && a.delta >= b->delta && a.count >= b->count;
}

bool same(const PrivacyEvent& a, const PrivacyEvent& b) { return to_json(a) == to_json(b); }

bool reveals_nothing(const PrivacyEvent& event) {
  const Json json = to_json(event);
  return json.at(json.contains("steps") ? "steps" : "count").get<std::int64_t>() == 0;
}

/// Whether one (epsilon, delta) pays for all of `events`.
bool pays_for(const PrivacyEvent& declared, const std::vector<PrivacyEvent>& events,
              Adjacency adjacency) {
  const auto* sum = std::get_if<ApproximateRelease>(&declared);
  return sum != nullptr && sum->count >= 1 && sum->delta > 0 && sum->delta < 1 &&
         account_epsilon(Accountant::kPld, events, sum->delta, adjacency).epsilon <= sum->epsilon;
}

}  // namespace

std::vector<PrivacyEvent> not_declared(std::span<const PrivacyEvent> needed,
                                       const MechanismPlan& plan) {
  std::vector<PrivacyEvent> left, declared;
  for (const PrivacyEvent& event : needed)
    if (!reveals_nothing(event)) left.push_back(event);
  for (const StagePlan& stage : plan.stages)
    if (stage.declared) declared.push_back(stage.event);
  // Equal ones first, so that a larger one is not used up for what a smaller one covers.
  for (const auto& matches : {same, covers})
    for (auto event = left.begin(); event != left.end();) {
      const auto found =
          std::find_if(declared.begin(), declared.end(),
                       [&](const PrivacyEvent& candidate) { return matches(candidate, *event); });
      if (found == declared.end()) {
        ++event;
        continue;
      }
      declared.erase(found);
      event = left.erase(event);
    }
  if (left.empty()) return left;
  for (const PrivacyEvent& event : declared)
    if (pays_for(event, left, plan.adjacency)) return {};
  return left;
}

void require_declared(const std::string& who, const TakenUp& taken, const std::string& unit,
                      const std::string& adjacency, const std::vector<PrivacyEvent>& needed,
                      const Config& config, const MechanismPlan& plan) {
  if (unit != plan.unit || adjacency != to_string(plan.adjacency))
    throw PrivacyError(fmt::format(
        "{} {} comes from a private run whose unit of privacy is '{}' under {} adjacency; here "
        "they are '{}' and {}, and no sum of the two is known. Train both runs alike, or choose {}",
        who, taken.what, unit, adjacency, plan.unit, to_string(plan.adjacency), taken.otherwise));
  const std::vector<PrivacyEvent> missing = not_declared(needed, plan);
  if (missing.empty()) return;
  std::vector<std::string> texts = config.mechanism.declared();
  for (const PrivacyEvent& event : missing) texts.push_back(to_text(event));
  throw PrivacyError(fmt::format(
      "{} {} comes from an earlier private run, whose cost counts again: what it released is in "
      "what this run releases. Declare it, so that the claim is about both:\n"
      "  mechanism.declared={}",
      who, taken.what, Json(texts).dump()));
}

void require_card_declared(const std::string& file, const Json& card, const TakenUp& taken,
                           std::vector<PrivacyEvent>& needed, const Config& config,
                           const MechanismPlan& plan) {
  const std::vector<PrivacyEvent> counted = card_cost(file, card);
  if (std::ranges::all_of(counted, reveals_nothing))
    throw PrivacyError(
        fmt::format("'{}' counts no use of private images, and yet calls what it speaks of "
                    "private: it was edited; choose {}",
                    file, taken.otherwise));
  needed.insert(needed.end(), counted.begin(), counted.end());
  require_declared(fmt::format("'{}' says that", file), taken, card.value("unit", ""),
                   card.value("adjacency", ""), needed, config, plan);
  if (const auto defects = unfounded_fields(card); !defects.empty())
    throw PrivacyError(fmt::format(
        "'{}' contradicts itself ({}): it was edited, and what {} knows of private images is not "
        "known; choose {}",
        file, defects.front(), taken.what, taken.otherwise));
}

}  // namespace sfumato
