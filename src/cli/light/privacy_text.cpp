#include "cli/light/privacy_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run/run_card.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/plural.h"

namespace sfumato::cli {

namespace {

/// "q 0.01, sigma 1.1, 1000 steps".
std::string describe(const PrivacyEvent& event) {
  if (const auto* phase = std::get_if<Phase>(&event))
    return fmt::format(
        "q {}, sigma {}, {}{}", phase->sample_rate, phase->noise_multiplier,
        counted(phase->steps, "step"),
        phase->truncation ? fmt::format(", at most {} a batch", phase->truncation->max_batch) : "");
  if (const auto* gaussian = std::get_if<GaussianRelease>(&event))
    return fmt::format("Gaussian, sensitivity {}, stddev {}, {} times", gaussian->sensitivity_l2,
                       gaussian->noise_stddev, gaussian->count);
  const auto& approximate = std::get<ApproximateRelease>(event);
  return fmt::format("({}, {})-DP, {} times", approximate.epsilon, approximate.delta,
                     approximate.count);
}

}  // namespace

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
  if (statement.delta_lower) json["delta_lower"] = *statement.delta_lower;
  if (statement.grid) json["grid"] = *statement.grid;
  return json;
}

std::string to_text(const PrivacyStatement& statement) {
  const std::string order =
      statement.order ? fmt::format(", order {:.5g}", *statement.order) : std::string();
  // The exact value lies in the bracket, whose upper end is the claim.
  const std::string bracket =
      statement.epsilon_lower && std::isfinite(statement.epsilon)
          ? fmt::format(", exact value in [{}, {}]", lower_bound_text(*statement.epsilon_lower, 6),
                        upper_bound_text(statement.epsilon, 6))
          : std::string();
  return fmt::format("epsilon {} at delta {} ({} adjacency, {} accountant{}{})",
                     upper_bound_text(statement.epsilon), upper_bound_text(statement.delta),
                     to_string(statement.adjacency), to_string(statement.accountant), order,
                     bracket);
}

std::string selection_text(const Selection& selection) {
  return fmt::format(
      "A private selection ({}): of a random number of such runs only the best leaves, and nothing "
      "of the others, not even how many there were.\nRuns: {} on average, {}; their number is "
      "drawn "
      "in secret and never cut.\n",
      to_text(selection), selection.mean_runs, quantiles_text(SelectionLaw(selection)));
}

nlohmann::ordered_json selection_json(const Selection& selection) {
  const SelectionLaw law(selection);
  nlohmann::ordered_json json = sfumato::to_json(selection);
  json["gamma"] = law.gamma();
  json["median_runs"] = law.quantile(0.5);
  json["runs_90_percent"] = law.quantile(0.9);
  json["runs_99_percent"] = law.quantile(0.99);
  return json;
}

std::string event_table(std::span<const PrivacyEvent> events, const PrivacyStatement& statement,
                        bool of_selection) {
  std::string table =
      fmt::format("\n  {:>3}  {:<44}  {:>13}\n", "", "use of the private data", "epsilon alone");
  const bool has_delta = statement.delta > 0 && statement.delta < 1;
  for (std::size_t i = 0; i < events.size(); ++i) {
    // One event alone is what was accounted for already. Of several each takes less work than the
    // claim, which makes its number a little larger, but it costs no more than all together.
    const std::string alone =
        has_delta && events.size() == 1 && !of_selection ? upper_bound_text(statement.epsilon)
        : has_delta
            ? upper_bound_text(std::min(statement.epsilon,
                                        curve_epsilon(statement.accountant, events.subspan(i, 1),
                                                      statement.delta, statement.adjacency)))
            : "-";
    table += fmt::format("  {:>3}  {:<44}  {:>13}\n", i + 1, describe(events[i]), alone);
  }
  return table;
}

std::vector<PrivacyEvent> parse_events(const std::string& option,
                                       const std::vector<std::string>& texts, Adjacency adjacency,
                                       std::int64_t records_per_unit) {
  std::vector<PrivacyEvent> events;
  for (const std::string& text : texts) {
    try {
      events.push_back(parse_event(text, records_per_unit));
      check_event(events.back(), adjacency);
    } catch (const UsageError& error) {
      throw UsageError(fmt::format("{} {}: {}", option, text, error.what()));
    }
  }
  return events;
}

}  // namespace sfumato::cli
