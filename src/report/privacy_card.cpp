#include "sfumato/report/privacy_card.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "sfumato/core/bound_text.h"
#include "sfumato/core/choices.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/version.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
constexpr int64_t kSchemaVersion = 2;
constexpr int64_t kSelectionSchemaVersion = 3;  // of cards whose ε is that of a selection
constexpr const char* kRecompute = "sfumato account --card privacy_card.json";

const std::vector<std::string> kNeverCovered = {
    "Image size, number of channels and number of classes are treated as public facts.",
    "The choice of hyper-parameters is not accounted for, unless it was made without the private "
    "data.",
    "Facts about a whole population that would be learned without any one person's data are not "
    "hidden.",
    "The noise is added in floating-point arithmetic, hardened but not proven against attacks on "
    "the last bits.",
    kMachinesAreTrusted,
};

const char* status_name(PrivacyCard::Status status) {
  switch (status) {
    case PrivacyCard::Status::kPrivate: return "private";
    case PrivacyCard::Status::kNotPrivate: return "not_private";
    case PrivacyCard::Status::kVoid: break;
  }
  return "void";
}

std::string neighbours(const std::string& adjacency) {
  const std::optional<Adjacency> known = find_enum<Adjacency>(adjacency);
  if (!known) return fmt::format("those of the relation '{}'", adjacency);
  switch (*known) {
    case Adjacency::kAddRemove: return "two that differ by one such unit added or removed";
    case Adjacency::kZeroOut:
      return "two of the same size, in one of which one such unit is blanked out";
    case Adjacency::kReplaceOne: break;
  }
  return "two that differ by one such unit replaced";
}

std::string statement_of(const PrivacyCard& card) {
  switch (card.status) {
    case PrivacyCard::Status::kPrivate:
      return fmt::format(
          "The released weights and everything made from them satisfy (ε, δ)-differential privacy "
          "with ε = {} and δ = {}; the unit of privacy is {}, and neighbouring data sets are {}.",
          epsilon_text(card.epsilon), card.delta, card.unit, neighbours(card.adjacency));
    case PrivacyCard::Status::kNotPrivate:
      return "The model was trained without differential privacy: anything in its training images "
             "may show in what is released.";
    case PrivacyCard::Status::kVoid: break;
  }
  return "No privacy is claimed, because a condition of the claim was not met.";
}

Json stage_json(const PrivacyStage& stage) {
  Json json = {{"name", stage.name},
               {"declared", stage.declared},
               {"planned", stage.planned},
               {"charged", stage.charged},
               {"clip_norm_l2", stage.clip_norm_l2}};
  if (!stage.clipping.empty()) json["clipping"] = stage.clipping;
  if (stage.expected_batch_size > 0) json["expected_batch_size"] = stage.expected_batch_size;
  json.update(stage.event);
  if (!stage.result_sha256.empty()) json["result_sha256"] = stage.result_sha256;
  return json;
}

std::string selection_of(const PrivacyCard& card) {
  const int64_t candidates = card.candidates;
  if (!card.selection_law.is_null())
    return fmt::format(
        "ε is that of a private selection as a whole, not of one run: of a random number of runs "
        "like this one (law {}, shape {}, {} on average, drawn in secret and never cut) only the "
        "best one leaves, by a score of what the runs release. Nothing of the others may leave, "
        "not "
        "even their number. Stages are those of one run.",
        card.selection_law.at("law").get<std::string>(), card.selection_law.at("eta").get<double>(),
        card.selection_law.at("mean_runs").get<double>());
  if (card.sweep)
    return fmt::format(
        "The claim is about this run alone, which is one of {} of a sweep on the same data, each "
        "charged by itself. All of them together amount to ε = {} at δ = {}: that is what holds "
        "for "
        "whoever sees more of them than this one, or chose it by what they released. No run or "
        "checkpoint may have been chosen by a look at private numbers.",
        card.sweep->runs, epsilon_text(card.sweep->epsilon), card.sweep->delta);
  if (candidates == 1)
    return "The claim is about this run alone: other runs on the same data add to it. No run or "
           "checkpoint may have been chosen by a look at private numbers.";
  return fmt::format(
      "ε counts every stage {} times, once for each run among which this one was chosen; what is "
      "declared counts once. The choice may have looked at what the runs released and at public "
      "data, never at private numbers.",
      candidates);
}

Json pairs_json(const std::vector<std::pair<double, double>>& pairs, const char* first,
                const char* second) {
  Json list = Json::array();
  for (const auto& [a, b] : pairs) list.push_back({{first, a}, {second, b}});
  return list;
}

/// Nothing but a finite ε and a δ inside (0, 1) is a claim.
PrivacyCard without_empty_claim(PrivacyCard card) {
  if (card.status != PrivacyCard::Status::kPrivate) return card;
  if (!(std::isfinite(card.epsilon) && card.epsilon >= 0))
    card.reasons.push_back("the accountant found no finite ε");
  if (!(card.delta > 0 && card.delta < 1)) card.reasons.push_back("δ lies outside (0, 1)");
  if (!card.reasons.empty()) card.status = PrivacyCard::Status::kVoid;
  return card;
}

/// What was private of two networks, and the hash that ties the other one's weights to the card;
/// null where there is nothing to say.
Json networks_json(const PrivacyCard& card) {
  Json json = Json::object();
  if (card.by_discriminator && card.status == PrivacyCard::Status::kPrivate) {
    json["private"] =
        "the discriminator: every training step that is charged here is one of its own, and no "
        "other network sees a private image; other uses that are charged are the stages listed";
    json["post_processing"] =
        "the generator, its moving average and its images: they follow from what the networks "
        "started from (initial_weights), public draws and weights of the discriminator that the "
        "noise protects";
  }
  if (!card.discriminator_sha256.empty()) json["discriminator_sha256"] = card.discriminator_sha256;
  return json.empty() ? Json() : json;
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

Json to_json(const PrivacyCard& given) {
  const PrivacyCard card = without_empty_claim(given);
  const bool claim = card.status == PrivacyCard::Status::kPrivate;
  std::vector<std::string> not_covered = kNeverCovered;
  not_covered.insert(not_covered.end(), card.not_covered.begin(), card.not_covered.end());
  if (claim && card.checkpoint_step) not_covered.emplace_back(kChosenCheckpoint);
  if (card.class_names_from == "source") not_covered.push_back(kNamesFromSource);
  const bool selects = !card.selection_law.is_null();
  Json json = {{"schema_version", selects ? kSelectionSchemaVersion : kSchemaVersion},
               {"status", status_name(card.status)},
               {"reasons", card.reasons},
               {"statement", statement_of(card)},
               {"epsilon", claim ? Json(card.epsilon) : Json()},
               {"epsilon_lower", claim && card.epsilon_lower ? Json(*card.epsilon_lower) : Json()},
               {"delta", claim ? Json(card.delta) : Json()},
               {"unit", text_or_null(card.unit)},
               {"adjacency", text_or_null(card.adjacency)},
               {"sampler", text_or_null(card.sampler)},
               {"accountant", text_or_null(card.accountant)},
               {"order", claim && card.order ? Json(*card.order) : Json()},
               {"grid", claim && card.grid ? Json(*card.grid) : Json()},
               {"candidates", card.candidates},
               {"selection", claim ? Json(selection_of(card)) : Json()},
               {"stages", Json::array()},
               {"epsilon_at_delta", Json::array()},
               {"largest_true_positive_rate", Json::array()},
               {"recompute", claim ? Json(kRecompute) : Json()},
               {"noise", text_or_null(card.noise)},
               {"sensitivity_margin", text_or_null(card.sensitivity_margin)},
               {"initial_weights", card.initial_weights},
               {"public_data", card.public_data},
               {"not_covered", not_covered},
               {"code", {{"name", "sfumato"}, {"version", version()}, {"commit", git_commit()}}},
               {"data_manifest_hash", text_or_null(card.data_manifest_hash)},
               {"plan_hash", text_or_null(card.plan_hash)},
               {"ledger_head_hash", text_or_null(card.ledger_head_hash)},
               {"weights_sha256", text_or_null(card.weights_sha256)},
               {"public_facts",
                {{"image_size", card.image_size},
                 {"channels", card.channels},
                 {"num_classes", card.num_classes}}}};
  if (!card.class_names.empty()) {
    json["public_facts"]["class_names"] = card.class_names;
    json["public_facts"]["class_names_from"] = card.class_names_from;
    json["public_facts"]["classes_that_may_be_empty"] = card.classes_that_may_be_empty;
  }
  if (selects) json["selection_law"] = card.selection_law;
  if (claim && card.sweep)
    json["sweep"] = {
        {"runs", card.sweep->runs}, {"epsilon", card.sweep->epsilon}, {"delta", card.sweep->delta}};
  if (claim && card.checkpoint_step) json["checkpoint_step"] = *card.checkpoint_step;
  // Cards of one network, and those of older versions, have no such field.
  if (const Json networks = networks_json(card); !networks.is_null()) json["networks"] = networks;
  for (const PrivacyStage& stage : card.stages) json["stages"].push_back(stage_json(stage));
  if (!claim) return json;
  json["epsilon_at_delta"] = pairs_json(card.epsilon_at_delta, "delta", "epsilon");
  json["largest_true_positive_rate"] =
      pairs_json(card.true_positive_bounds, "false_positive_rate", "true_positive_rate");
  return json;
}

Json void_card(const std::string& reason) {
  PrivacyCard card;
  card.reasons = {reason};
  card.sampler = card.accountant = "";
  Json json = to_json(card);
  json.erase("public_facts");
  return json;
}

Json voided(Json card, const std::string& reason) {
  card["reasons"].push_back(reason);
  if (card["status"] == "not_private") return card;  // there was no claim to lose
  card["status"] = "void";
  card["statement"] = statement_of(PrivacyCard{});
  for (const char* claim : {"epsilon", "epsilon_lower", "delta", "order", "grid", "selection",
                            "epsilon_at_delta", "largest_true_positive_rate", "recompute"})
    if (card.contains(claim)) card[claim] = card[claim].is_array() ? Json::array() : Json();
  card.erase("networks");  // speaks of noise that protects
  card.erase("sweep");
  return card;
}

double largest_true_positive_rate(const std::vector<std::pair<double, double>>& epsilon_at_delta,
                                  double false_positive_rate) {
  double most = 1;
  for (const auto& [delta, epsilon] : epsilon_at_delta) {
    most = std::min(most, std::exp(epsilon) * false_positive_rate + delta);
    most = std::min(most, 1 - std::exp(-epsilon) * (1 - delta - false_positive_rate));
  }
  return std::max(most, false_positive_rate);
}

Json read_privacy_card(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return void_card(kNoCardReason);
  return parse_privacy_card(read_file(path), path.string());
}

Json parse_privacy_card(const std::string& text, const std::string& name) {
  const auto refuse = [&](const std::string& defect) {
    throw DataError(fmt::format("'{}' {}", name, defect));
  };
  parse_json(text,
             fmt::format("'{}'", name));  // strict: refuses what the next line would pass over
  const Json card = Json::parse(text);
  if (!card.is_object() || !card.contains("schema_version") || !card.contains("status"))
    refuse("is not a privacy card; it needs schema_version and status");
  const Json& schema = card["schema_version"];
  const bool selects = card.contains("selection_law");
  if (schema.is_number_integer() &&
      (schema == kSelectionSchemaVersion ? !selects : schema == kSchemaVersion && selects))
    refuse(fmt::format("{} a selection_law, and its schema version is {}: it was edited",
                       selects ? "has" : "lacks", schema.dump()));
  const bool known = schema == kSchemaVersion || schema == kSelectionSchemaVersion;
  if (!schema.is_number_integer() || !known)
    refuse(schema == 1 ? std::string("is a privacy card of schema version 1, which says too little "
                                     "for its claim to be checked; `sfumato train --config "
                                     "RUN/config.yaml --resume run.dir=RUN` writes it again")
                       : fmt::format("is a privacy card of schema version {}, and this program "
                                     "knows {}; update sfumato",
                                     schema.dump(), kSelectionSchemaVersion));
  const Json& status = card["status"];
  if (status != "private" && status != "not_private" && status != "void")
    refuse(fmt::format("has the unknown status {}", status.dump()));
  if (!card.contains("reasons") || !card["reasons"].is_array()) refuse("lacks the list of reasons");
  if (status == "private") {
    const auto number = [&](const char* key) {
      return card.contains(key) && card[key].is_number() ? card[key].get<double>() : -1.0;
    };
    if (number("epsilon") < 0 || !(number("delta") > 0 && number("delta") < 1))
      refuse("claims privacy without an ε and a δ between 0 and 1");
    for (const char* key : {"unit", "adjacency", "statement"})
      if (!card.contains(key) || !card[key].is_string())
        refuse(fmt::format("claims privacy without saying its {}", key));
  }
  return card;
}

}  // namespace sfumato
