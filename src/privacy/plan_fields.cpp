#include "plan_fields.h"

#include <limits>

namespace sfumato {
namespace {

[[noreturn]] void wrong_type(const char* key, const char* expected, const nlohmann::json& value) {
  throw DataError(
      fmt::format("mechanism plan: {} should be {}, found {}", key, expected, value.dump()));
}

nlohmann::ordered_json stage_value(const StagePlan& stage) {
  nlohmann::ordered_json item = {
      {"name", stage.name}, {"clip_norm_l2", stage.clip_norm_l2}, {"declared", stage.declared}};
  item.update(to_json(stage.event));
  return item;
}

}  // namespace

nlohmann::ordered_json plan_value(double field) { return field; }
nlohmann::ordered_json plan_value(std::int64_t field) { return field; }
nlohmann::ordered_json plan_value(const std::string& field) { return field; }
nlohmann::ordered_json plan_value(bool field) { return field; }
nlohmann::ordered_json plan_value(const std::optional<double>& field) {
  return field ? nlohmann::ordered_json(*field) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json plan_value(const std::vector<StagePlan>& stages) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const StagePlan& stage : stages) list.push_back(stage_value(stage));
  return list;
}

void read_plan_value(const char* key, const nlohmann::json& value, double& field) {
  if (!value.is_number()) wrong_type(key, "a number", value);
  field = value.get<double>();
}
void read_plan_value(const char* key, const nlohmann::json& value, std::optional<double>& field) {
  if (value.is_null()) {
    field.reset();
  } else {
    read_plan_value(key, value, field.emplace());
  }
}
void read_plan_value(const char* key, const nlohmann::json& value, std::int64_t& field) {
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max();
  if (!value.is_number_integer() || too_large) wrong_type(key, "a 64-bit integer", value);
  field = value.get<std::int64_t>();
}
void read_plan_value(const char* key, const nlohmann::json& value, std::string& field) {
  if (!value.is_string()) wrong_type(key, "a text", value);
  field = value.get<std::string>();
}
void read_plan_value(const char* key, const nlohmann::json& value, bool& field) {
  if (!value.is_boolean()) wrong_type(key, "true or false", value);
  field = value.get<bool>();
}

void read_plan_value(const char* key, const nlohmann::json& value, std::vector<StagePlan>& field) {
  if (!value.is_array()) wrong_type(key, "a list of stages", value);
  for (const nlohmann::json& item : value) {
    if (!item.is_object()) wrong_type(key, "a list of objects", item);
    const auto member = [&](const char* name, auto& target) {
      if (!item.contains(name))
        throw DataError(fmt::format("mechanism plan: a stage lacks '{}'", name));
      read_plan_value(name, item.at(name), target);
    };
    StagePlan stage;
    member("name", stage.name);
    member("clip_norm_l2", stage.clip_norm_l2);
    member("declared", stage.declared);
    stage.event = event_from_json(item);
    field.push_back(stage);
    const nlohmann::ordered_json known = stage_value(stage);
    for (const auto& entry : item.items())
      if (!known.contains(entry.key()))
        throw DataError(fmt::format("mechanism plan: unknown field '{}' of the stage '{}'",
                                    entry.key(), stage.name));
  }
}

}  // namespace sfumato
