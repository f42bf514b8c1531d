#include "plan_fields.h"

#include <limits>

namespace sfumato {

void wrong_type(const char* key, const char* expected, const nlohmann::json& value) {
  throw DataError(
      fmt::format("mechanism plan: {} should be {}, found {}", key, expected, value.dump()));
}

nlohmann::ordered_json plan_value(double field) { return field; }
nlohmann::ordered_json plan_value(std::int64_t field) { return field; }
nlohmann::ordered_json plan_value(const std::string& field) { return field; }
nlohmann::ordered_json plan_value(bool field) { return field; }
nlohmann::ordered_json plan_value(const std::optional<double>& field) {
  return field ? nlohmann::ordered_json(*field) : nlohmann::ordered_json(nullptr);
}
nlohmann::ordered_json plan_value(const std::optional<Selection>& field) {
  return field ? to_json(*field) : nlohmann::ordered_json(nullptr);
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
void read_plan_value(const char* key, const nlohmann::json& value,
                     std::optional<Selection>& field) {
  field.reset();
  if (value.is_null()) return;
  try {
    field = selection_from_json(value);
  } catch (const DataError& error) {
    throw DataError(fmt::format("mechanism plan: {}: {}", key, error.what()));
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

}  // namespace sfumato
