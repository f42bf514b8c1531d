#pragma once
// The fields of a mechanism plan as JSON, by version. A plan is frozen in a ledger and read for as
// long as that ledger is kept, so the list of its fields may grow but never change:
//   - a field says since which version plans have it;
//   - a plan of version v is written with the fields that v knows, so that a plan that was read has
//     the text and the hash that it was written with;
//   - fields that are newer than a plan have the default of the struct, which therefore must mean
//     what was done before there was the field; a plan where one has another value cannot be
//     written as version v.
// Version 0 is that of plans without a "version". The stages of a plan have its version; the fields
// of their events are those of to_json(PrivacyEvent), which grow in another way.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
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
  visit("selection", plan.selection, 2);
}

/// The same for each stage of a plan.
template <typename Stage, typename Visit>
void visit_stage_fields(Stage& stage, const Visit& visit) {
  visit("name", stage.name, 0);
  visit("clip_norm_l2", stage.clip_norm_l2, 0);
  visit("declared", stage.declared, 0);
  visit("mechanism", stage.event, 0);  // and the event's other fields, beside it
  visit("measures", stage.measures, kMeasuresSince);
}
inline constexpr auto kStageFields = [](auto&& stage, const auto& visit) {
  visit_stage_fields(stage, visit);
};

nlohmann::ordered_json plan_value(double field);
nlohmann::ordered_json plan_value(const std::optional<double>& field);
nlohmann::ordered_json plan_value(const std::optional<Selection>& field);
nlohmann::ordered_json plan_value(std::int64_t field);
nlohmann::ordered_json plan_value(const std::string& field);
nlohmann::ordered_json plan_value(bool field);
template <NamedEnum E>
nlohmann::ordered_json plan_value(E field) {
  return to_string(field);
}

/// DataError that names `key`.
[[noreturn]] void wrong_type(const char* key, const char* expected, const nlohmann::json& value);

/// The inverse; DataError that names `key` for another type.
void read_plan_value(const char* key, const nlohmann::json& value, double& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::optional<double>& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::optional<Selection>& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::int64_t& field);
void read_plan_value(const char* key, const nlohmann::json& value, std::string& field);
void read_plan_value(const char* key, const nlohmann::json& value, bool& field);
/// UsageError for a word that is no name of the enumeration.
template <NamedEnum E>
void read_plan_value(const char* key, const nlohmann::json& value, E& field) {
  std::string name;
  read_plan_value(key, value, name);
  field = parse_enum<E>(name);
}

/// What holds further fields needs the plan's version as well.
template <typename Field>
nlohmann::ordered_json plan_value(const Field& field, std::int64_t) {
  return plan_value(field);
}
template <typename Field>
void read_plan_value(const char* key, const nlohmann::json& value, Field& field, std::int64_t) {
  read_plan_value(key, value, field);
}
template <typename Stage>
nlohmann::ordered_json plan_value(const std::vector<Stage>& stages, std::int64_t version);
template <typename Stage>
void read_plan_value(const char* key, const nlohmann::json& value, std::vector<Stage>& stages,
                     std::int64_t version);

/// The fields of a plan or a stage that plans of `version` have. PrivacyError if a newer one is not
/// at its default: such a plan would be written as one that does less.
template <typename Object, typename Fields>
nlohmann::ordered_json write_fields(const Object& object, std::int64_t version,
                                    const Fields& fields) {
  nlohmann::ordered_json json, defaults;
  fields(Object{}, [&](const char* key, const auto& field, int since) {
    if constexpr (!std::is_same_v<std::decay_t<decltype(field)>, PrivacyEvent>)
      if (since > version) defaults[key] = plan_value(field, version);
  });
  fields(object, [&](const char* key, const auto& field, int since) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, PrivacyEvent>) {
      json.update(to_json(field));
    } else {
      nlohmann::ordered_json value = plan_value(field, version);
      if (since <= version) {
        json[key] = std::move(value);
      } else if (since > 1 && value != defaults[key]) {
        throw PrivacyError(
            fmt::format("mechanism plan: {} {} needs version {} of the plan, and this run's ledger "
                        "holds version {}: start a new run",
                        key, value.dump(), since, version));
      }
    }
  });
  return json;
}

/// DataError for a field that `version` lacks or does not know (by name) and ill-typed ones.
/// `whose`: for the message, after the field's name.
template <typename Object, typename Fields>
void read_fields(const nlohmann::json& json, std::int64_t version, const std::string& whose,
                 Object& object, const Fields& fields) {
  std::vector<std::string> known;
  fields(object, [&](const char* key, auto& field, int since) {
    if (since > version) return;
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, PrivacyEvent>) {
      field = event_from_json(json);
      const nlohmann::ordered_json its_own = to_json(field);
      for (const auto& item : its_own.items()) known.push_back(item.key());
    } else {
      known.emplace_back(key);
      if (!json.contains(key))
        throw DataError(fmt::format("mechanism plan: field '{}'{} is missing", key, whose));
      read_plan_value(key, json.at(key), field, version);
    }
  });
  for (const auto& item : json.items())
    if (std::ranges::find(known, item.key()) == known.end())
      throw DataError(fmt::format("mechanism plan: unknown field '{}'{}{} in version {}",
                                  item.key(), whose, did_you_mean(item.key(), known), version));
}

template <typename Stage>
nlohmann::ordered_json plan_value(const std::vector<Stage>& stages, std::int64_t version) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Stage& stage : stages) list.push_back(write_fields(stage, version, kStageFields));
  return list;
}

template <typename Stage>
void read_plan_value(const char* key, const nlohmann::json& value, std::vector<Stage>& stages,
                     std::int64_t version) {
  if (!value.is_array()) wrong_type(key, "a list of stages", value);
  for (const nlohmann::json& item : value) {
    if (!item.is_object()) wrong_type(key, "a list of objects", item);
    const std::string whose =
        fmt::format(" of the stage '{}'", item.contains("name") && item["name"].is_string()
                                              ? item["name"].get<std::string>()
                                              : fmt::format("number {}", stages.size() + 1));
    read_fields(item, version, whose, stages.emplace_back(), kStageFields);
  }
}

/// The fields that plans of `plan`'s version have; errors as write_fields.
template <typename Plan, typename Fields>
nlohmann::ordered_json write_plan(const Plan& plan, const Fields& fields) {
  return write_fields(plan, plan.version, fields);
}

/// DataError for a version above `newest` and as read_fields.
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
  read_fields(json, plan.version, "", plan, fields);
  return plan;
}

}  // namespace sfumato
