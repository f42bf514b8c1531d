#include "cli/privacy_text.h"

#include <fmt/format.h>

#include <cmath>

#include "sfumato/core/error.h"

namespace sfumato::cli {

std::string upper_bound_text(double value) {
  if (std::isinf(value)) return "infinity";
  if (value == 0) return "0";
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - 4);  // five digits
  return fmt::format("{:.5g}", std::ceil(value / unit * (1 - 1e-12)) * unit);
}

nlohmann::ordered_json to_json(const PrivacyStatement& statement) {
  const auto finite = [](double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
  };
  nlohmann::ordered_json json;
  json["epsilon"] = finite(statement.epsilon);
  json["epsilon_lower"] =
      statement.epsilon_lower ? finite(*statement.epsilon_lower) : nlohmann::ordered_json(nullptr);
  json["delta"] = statement.delta;
  json["accountant"] = to_string(statement.accountant);
  json["adjacency"] = to_string(statement.adjacency);
  json["order"] = statement.order ? finite(*statement.order) : nlohmann::ordered_json(nullptr);
  return json;
}

std::string to_text(const PrivacyStatement& statement) {
  const std::string order =
      statement.order ? fmt::format(", order {:.5g}", *statement.order) : std::string();
  return fmt::format("epsilon {} at delta {} ({} adjacency, {} accountant{})",
                     upper_bound_text(statement.epsilon), upper_bound_text(statement.delta),
                     to_string(statement.adjacency), to_string(statement.accountant), order);
}

std::string phase_table(std::span<const Phase> phases, const PrivacyStatement& statement) {
  std::string table = fmt::format("\n  {:>5}  {:>12}  {:>16}  {:>10}  {:>13}\n", "phase",
                                  "sample rate", "noise multiplier", "steps", "epsilon alone");
  const bool has_delta = statement.delta > 0 && statement.delta < 1;
  for (std::size_t i = 0; i < phases.size(); ++i) {
    const std::string alone =
        has_delta ? upper_bound_text(account_epsilon(statement.accountant, phases.subspan(i, 1),
                                                     statement.delta, statement.adjacency)
                                         .epsilon)
                  : "-";
    table += fmt::format("  {:>5}  {:>12.7g}  {:>16.7g}  {:>10}  {:>13}\n", i + 1,
                         phases[i].sample_rate, phases[i].noise_multiplier, phases[i].steps, alone);
  }
  return table;
}

std::vector<Phase> parse_phases(const std::string& option, const std::vector<std::string>& texts,
                                Adjacency adjacency, std::int64_t records_per_unit) {
  std::vector<Phase> phases;
  for (const std::string& text : texts) {
    try {
      phases.push_back(parse_phase(text, records_per_unit));
      check_phase(phases.back(), adjacency);
    } catch (const UsageError& error) {
      throw UsageError(fmt::format("{} {}: {}", option, text, error.what()));
    }
  }
  return phases;
}

}  // namespace sfumato::cli
