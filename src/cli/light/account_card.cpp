#include "cli/light/account_card.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/light/privacy_text.h"
#include "run/run_card.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/card_events.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

/// A card's claim and what follows from its stages: events are rebuilt from the card's JSON, the
/// accountant is this program's. (The independent check is with dp_accounting:
/// tests/python/card_recomputed_by_dp_accounting.py.)
struct Recomputation {
  std::string file;
  double epsilon = 0, delta = 0;                 ///< claimed
  double epsilon_lower = 0;                      ///< claimed; 0 if nothing is
  std::vector<std::pair<double, double>> curve;  ///< claimed (δ, ε) besides
  Accountant accountant = Accountant::kRdp;
  Adjacency adjacency = Adjacency::kZeroOut;
  std::int64_t candidates = 1;
  std::optional<Selection> selection;
  std::vector<PrivacyEvent> events;
  std::vector<PrivacyStatement> recomputed;  ///< pld, rdp
};

[[noreturn]] void refuse(const std::string& file, const std::string& defect) {
  throw DataError(
      fmt::format("'{}': {}, so that epsilon cannot be recomputed from it", file, defect));
}

/// The points of the claimed curve.
std::vector<std::pair<double, double>> curve_of(const std::string& file, const Json& card) {
  std::vector<std::pair<double, double>> curve;
  if (!card.contains("epsilon_at_delta")) return curve;
  const Json& points = card["epsilon_at_delta"];
  if (!points.is_array()) refuse(file, "epsilon_at_delta is no list");
  for (const Json& point : points) {
    const auto number = [&](const char* key) {
      return point.is_object() && point.contains(key) && point[key].is_number()
                 ? point[key].get<double>()
                 : -1.0;
    };
    if (!(number("delta") > 0 && number("delta") < 1 && number("epsilon") >= 0))
      refuse(file, "a point of epsilon_at_delta is no pair of a delta and an epsilon");
    curve.emplace_back(number("delta"), number("epsilon"));
  }
  return curve;
}

Recomputation recompute(const std::string& file, const Json& card) {
  Recomputation result;
  result.file = file;
  result.epsilon = card["epsilon"].get<double>();
  result.delta = card["delta"].get<double>();
  if (card.contains("epsilon_lower") && card["epsilon_lower"].is_number())
    result.epsilon_lower = card["epsilon_lower"].get<double>();
  result.curve = curve_of(file, card);
  const auto text = [&](const char* key) {
    if (!card.contains(key) || !card[key].is_string())
      refuse(file, fmt::format("it does not say its {}", key));
    return card[key].get<std::string>();
  };
  if (text("sampler") != "poisson")
    refuse(file, fmt::format("its sampler is '{}', and only Poisson sampling is accounted for",
                             text("sampler")));
  result.candidates = card_candidates(file, card);
  result.selection = card_selection(file, card);
  result.events = card_events(file, card);
  try {
    result.accountant = parse_enum<Accountant>(text("accountant"));
    result.adjacency = parse_enum<Adjacency>(text("adjacency"));
    for (const PrivacyEvent& event : result.events) check_event(event, result.adjacency);
  } catch (const UsageError& error) {
    refuse(file, error.what());
  }
  for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp})
    result.recomputed.push_back(account_epsilon(accountant, result.events, result.delta,
                                                result.adjacency, result.selection));
  return result;
}

const PrivacyStatement& by_its_accountant(const Recomputation& result) {
  for (const PrivacyStatement& statement : result.recomputed)
    if (statement.accountant == result.accountant) return statement;
  return result.recomputed.front();
}

/// "" if what the card says besides its claim holds: no larger lower bound than the recomputed
/// epsilon, and no point of the curve below what is recomputed as the card's writer does it, or
/// with all the accountant's work.
std::string curve_defect(const Recomputation& result) {
  const PrivacyStatement& proven = by_its_accountant(result);
  if (result.epsilon_lower > proven.epsilon * (1 + kCardTolerance))
    return fmt::format(
        "'{}' claims that epsilon is at least {}, but its stages cost at most {}: it was edited; "
        "do not rely on it",
        result.file, result.epsilon_lower, upper_bound_text(proven.epsilon));
  for (const auto& [delta, epsilon] : result.curve) {
    const auto below = [&, claimed = epsilon](double bound) {
      return claimed < bound * (1 - kCardTolerance);
    };
    if (!below(curve_epsilon(result.accountant, result.events, delta, result.adjacency,
                             result.selection)))
      continue;
    const double bound =
        account_epsilon(result.accountant, result.events, delta, result.adjacency, result.selection)
            .epsilon;
    if (!below(bound)) continue;
    return fmt::format(
        "'{}' claims epsilon {} at delta {} (epsilon_at_delta), but its stages cost {}: do not "
        "rely on it; if the run is at hand, `sfumato ledger verify RUN` tells what is wrong",
        result.file, epsilon, delta, upper_bound_text(bound));
  }
  return {};
}

/// "" if whatever else the card says follows from what it counts.
std::string text_defect(const std::string& file, const Json& card) {
  const std::vector<std::string> unfounded = unfounded_fields(card);
  if (unfounded.empty()) return {};
  return fmt::format("'{}': {}: it was edited; do not rely on it", file,
                     fmt::join(unfounded, "; "));
}

/// "" if the claim holds.
std::string defect(const Recomputation& result, const Json& card) {
  const PrivacyStatement& proven = by_its_accountant(result);
  if (result.epsilon >= proven.epsilon * (1 - kCardTolerance)) {
    const std::string found = curve_defect(result);
    return found.empty() ? text_defect(result.file, card) : found;
  }
  return fmt::format(
      "'{}' claims epsilon {} at delta {}, but its stages cost {} by its own accountant ({}): do "
      "not rely on it; if the run is at hand, `sfumato ledger verify RUN` tells what is wrong",
      result.file, result.epsilon, result.delta, upper_bound_text(proven.epsilon),
      to_string(proven.accountant));
}

std::string text_of(const Recomputation& result) {
  std::string text = fmt::format("claimed      epsilon {} at delta {} ({} accountant)\n",
                                 result.epsilon, result.delta, to_string(result.accountant));
  for (const PrivacyStatement& statement : result.recomputed)
    text += fmt::format(
        "recomputed   epsilon {}{} by {}\n", upper_bound_text(statement.epsilon),
        statement.epsilon_lower
            ? fmt::format(" (and at least {})", lower_bound_text(*statement.epsilon_lower))
            : "",
        to_string(statement.accountant));
  text +=
      fmt::format("from         {} adjacency, delta {}", to_string(result.adjacency), result.delta);
  if (result.candidates > 1)
    text += fmt::format(", one of {} candidates, each charged", result.candidates);
  if (result.selection)
    text += fmt::format(", a private selection as a whole ({}), of runs that each count",
                        to_text(*result.selection));
  for (const PrivacyEvent& event : result.events) text += "\n             " + to_text(event);
  return text + "\n";
}

Json json_of(const Recomputation& result, const std::string& found) {
  Json json = {{"card", result.file},
               {"status", "private"},
               {"claimed",
                {{"epsilon", result.epsilon},
                 {"delta", result.delta},
                 {"accountant", to_string(result.accountant)},
                 {"adjacency", to_string(result.adjacency)}}},
               {"recomputed", Json::array()},
               {"candidates", result.candidates},
               {"selection", result.selection ? selection_json(*result.selection) : Json()},
               {"events", Json::array()},
               {"holds", found.empty()}};
  for (const PrivacyStatement& statement : result.recomputed)
    json["recomputed"].push_back(to_json(statement));
  for (const PrivacyEvent& event : result.events) json["events"].push_back(sfumato::to_json(event));
  return json;
}

/// Nothing is claimed, so nothing can be wrong, unless a number says otherwise.
void say_no_claim(const std::string& file, const Json& card, bool json) {
  if (card.contains("epsilon") && !card["epsilon"].is_null())
    throw PrivacyError(
        fmt::format("'{}' is {} and yet states epsilon {}: it was edited; do not "
                    "rely on it",
                    file, card["status"].get<std::string>(), card["epsilon"].dump()));
  if (const std::string left = claim_left(card); !left.empty())
    throw PrivacyError(
        fmt::format("'{}' is {} and yet claims something ({}): it was edited; do not rely on it",
                    file, card["status"].get<std::string>(), left));
  const std::string status = card["status"] == "not_private" ? "NOT PRIVATE" : "VOID";
  if (json) {
    fmt::print("{}\n", Json{{"card", file},
                            {"status", card["status"]},
                            {"claimed", nullptr},
                            {"recomputed", Json::array()},
                            {"holds", true}}
                           .dump(2));
  } else {
    fmt::print("{}: {}; it claims no privacy, so there is nothing to recompute\n", file, status);
  }
}

/// The card that a folder holds: of a release, a corpus or a run.
std::string card_in(const std::string& place) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(place, ignored)) return place;
  for (const char* inside : {"privacy_card.json", "release/privacy_card.json"})
    if (const auto file = std::filesystem::path(place) / inside;
        std::filesystem::is_regular_file(file, ignored))
      return file.string();
  throw DataError(fmt::format(
      "'{}' holds no privacy_card.json, nor does its release/; name a release, a run, a corpus or "
      "the file",
      printable(place)));
}

}  // namespace

std::string card_defect(const std::string& file, const Json& card) {
  try {
    return defect(recompute(file, card), card);
  } catch (const Error& error) {
    return error.what();
  }
}

void account_card(const std::string& place, bool json) {
  const std::string file = card_in(place);
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored))
    throw DataError(fmt::format("'{}' is no file; name a privacy_card.json", file));
  const Json card = read_privacy_card(file);
  if (card["status"] != "private") return say_no_claim(file, card, json);
  const Recomputation result = recompute(file, card);
  const std::string found = defect(result, card);
  if (json) {
    fmt::print("{}\n", json_of(result, found).dump(2));
  } else {
    fmt::print("{}", text_of(result));
  }
  if (!found.empty()) throw PrivacyError(found);
  if (!json) fmt::print("The claim holds.\n");
}

}  // namespace sfumato::cli
