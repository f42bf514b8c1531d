#include "sfumato/run/card_events.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/privacy/accountant.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void refuse(const std::string& file, const std::string& defect) {
  throw DataError(
      fmt::format("'{}': {}, so that epsilon cannot be recomputed from it", file, defect));
}

/// More charges than the stage's event counts would be more than epsilon counts.
void check_counted(const std::string& file, const Json& stage, const PrivacyEvent& event) {
  if (!stage.contains("charged") || !stage["charged"].is_number()) return;
  const Json json = to_json(event);
  const auto counted = json.at(json.contains("steps") ? "steps" : "count").get<std::int64_t>();
  if (stage["charged"].get<double>() > static_cast<double>(counted))
    throw PrivacyError(fmt::format(
        "'{}' says that its stage {} charged {} releases, and counts {} of them: do not rely on "
        "it; if the run is at hand, `sfumato ledger verify RUN` tells what is wrong",
        file, stage.value("name", Json()).dump(), stage["charged"].dump(), counted));
}

}  // namespace

std::int64_t card_candidates(const std::string& file, const Json& card) {
  if (!card.contains("candidates")) return 1;
  if (!card["candidates"].is_number_integer() || card["candidates"] < 1)
    refuse(file, "candidates is no number of runs");
  return card["candidates"].get<std::int64_t>();
}

std::optional<Selection> card_selection(const std::string& file, const Json& card) {
  if (!card.contains("selection_law") || card["selection_law"].is_null()) return std::nullopt;
  if (card_candidates(file, card) > 1) refuse(file, "it has candidates and a selection_law");
  try {
    return selection_from_json(card["selection_law"]);
  } catch (const DataError& error) {
    refuse(file, error.what());
  }
}

std::vector<PrivacyEvent> card_cost(const std::string& file, const Json& card) {
  std::vector<PrivacyEvent> events = card_events(file, card);
  const std::optional<Selection> selection = card_selection(file, card);
  if (!selection) return events;
  const auto text = [&](const char* key) { return card.value(key, std::string()); };
  const double delta = card.at("delta").get<double>();
  try {
    const PrivacyStatement whole =
        account_epsilon(parse_enum<Accountant>(text("accountant")), events, delta,
                        parse_enum<Adjacency>(text("adjacency")), selection);
    return {ApproximateRelease{whole.epsilon, delta}};
  } catch (const UsageError& error) {
    refuse(file, error.what());
  }
}

std::vector<PrivacyEvent> card_events(const std::string& file, const Json& card) {
  const std::int64_t candidates = card_candidates(file, card);
  if (!card.contains("stages") || !card["stages"].is_array() || card["stages"].empty())
    refuse(file, "it lists no stages");
  std::vector<PrivacyEvent> events;
  for (const Json& stage : card["stages"]) {
    if (!stage.is_object()) refuse(file, "a stage is no object");
    const bool declared = stage.value("declared", Json(false)) == Json(true);
    try {
      const PrivacyEvent event = event_from_json(stage);
      check_counted(file, stage, event);
      events.push_back(repeated(event, declared ? 1 : candidates));
    } catch (const DataError& error) {
      refuse(file, fmt::format("stage {}: {}", stage.value("name", Json()).dump(), error.what()));
    }
  }
  return events;
}

}  // namespace sfumato
