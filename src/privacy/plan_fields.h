#pragma once
// The fields of a mechanism plan as JSON, by version. A plan is frozen in a ledger and read for as
// long as that ledger is kept, so the list of its fields may grow but never change:
//   - a field says since which version plans have it;
//   - a plan of version v is written with the fields that v knows, so that a plan that was read has
//     the text and the hash that it was written with;
//   - fields that are newer than a plan have the default of the struct, which therefore must mean
//     what was done before there was the field; a plan where one has another value cannot be
//     written as version v.
// Version 0 is that of plans without a "version".
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// Calls visit(name, field, since) for every field of `plan`, in the order in which plans are
/// written and hashed. A new field is one line here with `since` = kPlanVersion, raised by one.
template <typename Plan, typename Visit>
void visit_plan_fields(Plan& plan, const Visit& visit) {
  visit("version", plan.version, 1);
  visit("sample_rate", plan.sample_rate, 0);
  visit("noise_multiplier", plan.noise_multiplier, 0);
  visit("steps", plan.steps, 0);
  visit("clip_norm_l2", plan.clip_norm_l2, 0);
  visit("clipping", plan.clipping, 0);
  visit("automatic_gamma", plan.automatic_gamma, 0);
  visit("expected_batch_size", plan.expected_batch_size, 0);
  visit("delta", plan.delta, 0);
  visit("target_epsilon", plan.target_epsilon, 0);
  visit("adjacency", plan.adjacency, 0);
  visit("unit", plan.unit, 0);
  visit("records_per_unit", plan.records_per_unit, 0);
  visit("sampler", plan.sampler, 0);
  visit("accountant", plan.accountant, 0);
  visit("stages", plan.stages, 0);
  visit("candidates", plan.candidates, 0);
  visit("private", plan.is_private, 0);
}

nlohmann::ordered_json plan_value(double field);
nlohmann::ordered_json plan_value(const std::optional<double>& field);
nlohmann::ordered_json plan_value(std::int64_t field);
nlohmann::ordered_json plan_value(const std::string& field);
nlohmann::ordered_json plan_value(bool field);
nlohmann::ordered_json plan_value(const std::vector<StagePlan>& stages);
template <NamedEnum E>
nlohmann::ordered_json plan_value(E field) {
  return to_string(field);
}

/// The inverse; DataError that names `key` for another type.
void read_plan_value(const char* key, const nlohmann::json& value, double& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::optional<double>& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::int64_t& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::string& field);
void read_plan_value(const char* key, const nlohmann::json& value, bool& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::vector<StagePlan>& field);
/// UsageError for a word that is no name of the enumeration.
template <NamedEnum E>
void read_plan_value(const char* key, const nlohmann::json& value, E& field) {
  std::string name;
  read_plan_value(key, value, name);
  field = parse_enum<E>(name);
}

/// The fields that plans of `plan`'s version have. PrivacyError if a newer one is not at its
/// default: such a plan would be written as one that does less.
template <typename Plan, typename Fields>
nlohmann::ordered_json write_plan(const Plan& plan, const Fields& fields) {
  nlohmann::ordered_json defaults;
  fields(Plan{},
         [&](const char* key, const auto& field, int) { defaults[key] = plan_value(field); });
  nlohmann::ordered_json json;
  fields(plan, [&](const char* key, const auto& field, int since) {
    nlohmann::ordered_json value = plan_value(field);
    if (since <= plan.version) {
      json[key] = std::move(value);
    } else if (since > 1 && value != defaults[key]) {
      throw PrivacyError(
          fmt::format("mechanism plan: {} {} needs version {} of the plan, and this run's ledger "
                      "holds version {}: start a new run",
                      key, value.dump(), since, plan.version));
    }
  });
  return json;
}

/// DataError for a version above `newest`, a field that this version lacks or does not know (by
/// name) and ill-typed ones.
template <typename Plan, typename Fields>
Plan read_plan(const nlohmann::json& json, std::int64_t newest, const Fields& fields) {
  if (!json.is_object()) throw DataError("mechanism plan: expected a JSON object");
  Plan plan;
  plan.version = 0;
  if (json.contains("version")) read_plan_value("version", json["version"], plan.version);
  if (json.contains("version") && plan.version < 1)
    throw DataError(fmt::format("mechanism plan: version {} is below 1", plan.version));
  if (plan.version > newest)
    throw DataError(
        fmt::format("mechanism plan: version {} is newer than the {} that this build knows; use a "
                    "newer sfumato",
                    plan.version, newest));
  std::vector<std::string> known;
  fields(plan, [&](const char* key, auto& field, int since) {
    if (since > plan.version) return;
    known.emplace_back(key);
    if (!json.contains(key))
      throw DataError(fmt::format("mechanism plan: field '{}' is missing", key));
    read_plan_value(key, json.at(key), field);
  });
  for (const auto& item : json.items())
    if (std::ranges::find(known, item.key()) == known.end())
      throw DataError(fmt::format("mechanism plan: unknown field '{}'{} in version {}", item.key(),
                                  did_you_mean(item.key(), known), plan.version));
  return plan;
}

}  // namespace sfumato
