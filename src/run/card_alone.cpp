#include "sfumato/run/card_alone.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "run/json_alike.h"
#include "run/run_card.h"
#include "sfumato/core/class_name.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/card_events.h"
#include "sfumato/run/sweep_binding.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using Clauses = std::vector<std::string>;

/// Reasons that a card of this program may give by itself.
constexpr std::string_view kKnownReasons[] = {
    kTestKeyReason,          kPlainReason, kNoCardReason, "the accountant found no finite ε",
    "δ lies outside (0, 1)",
};

std::string text(const Json& card, const char* key) {
  const Json& value = field(card, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

/// A hash on a card, "" for what is none.
std::string hash_in(const Json& card, const char* key) {
  const std::string found = text(card, key);
  return is_sha256(found) ? found : std::string();
}

/// What names a version: no sentence fits in.
bool is_version(const Json& value) {
  if (!value.is_string()) return false;
  const auto& name = value.get_ref<const std::string&>();
  return name.size() <= 60 &&
         name.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+_-") == name.npos;
}

bool is_code(const Json& code) {
  return code.is_object() && code.size() == 3 && field(code, "name") == "sfumato" &&
         is_version(field(code, "version")) && is_version(field(code, "commit"));
}

std::int64_t count_in(const Json& object, const char* key) {
  const Json& value = field(object, key);
  return value.is_number_integer() && value >= 0 ? value.get<std::int64_t>() : 0;
}

Clauses names_in(const Json& facts, const char* key) {
  Clauses names;
  for (const Json& name : field(facts, key))
    if (name.is_string() && (class_name_defect(name.get<std::string>()).empty() || name == "*"))
      names.push_back(name.get<std::string>());
  return names;
}

/// The public facts that are such; others are left out.
void copy_facts(const Json& card, PrivacyCard& copy) {
  const Json& facts = field(card, "public_facts");
  copy.image_size = count_in(facts, "image_size");
  copy.channels = count_in(facts, "channels");
  copy.num_classes = count_in(facts, "num_classes");
  copy.class_names = names_in(facts, "class_names");
  copy.classes_that_may_be_empty = names_in(facts, "classes_that_may_be_empty");
  const std::string from = text(facts, "class_names_from");
  for (const char* known : {"configuration", "numbers", "corpus", "source"})
    if (from == known) copy.class_names_from = from;
}

void copy_hashes(const Json& card, PrivacyCard& copy) {
  copy.data_manifest_hash = hash_in(card, "data_manifest_hash");
  copy.plan_hash = hash_in(card, "plan_hash");
  copy.ledger_head_hash = hash_in(card, "ledger_head_hash");
  copy.weights_sha256 = hash_in(card, "weights_sha256");
}

void copy_networks(const Json& card, PrivacyCard& copy) {
  const Json& networks = field(card, "networks");
  copy.by_discriminator = networks.is_object();
  copy.discriminator_sha256 = hash_in(networks, "discriminator_sha256");
}

/// What training started from, where the card says it as a ledger does.
std::optional<InitialWeights> start_of(const Json& card) {
  const Json& said = field(card, "initial_weights");
  InitialWeights initial;
  for (const char* origin : {"scratch", "public", "not_private", "private"})
    if (field(said, "origin") == origin) initial.origin = origin;
  initial.sha256 = hash_in(said, "sha256");
  initial.on_word = field(said, "on_word") == Json(true);
  if (said != to_json(initial)) return std::nullopt;
  return initial;
}

PrivacyStage stage_of(const Json& said, const std::vector<StageFile>& stages) {
  PrivacyStage stage;
  const std::string name = text(said, "name");
  stage.declared = field(said, "declared") == Json(true);
  const std::string_view number =
      name.starts_with("declared_") ? std::string_view(name).substr(9) : std::string_view();
  const bool known =
      stage.declared
          ? !number.empty() && number.size() < 10 &&
                number.find_first_not_of("0123456789") == number.npos
          : name == "train" || std::ranges::find(stages, name, &StageFile::stage) != stages.end();
  if (known) stage.name = name;
  stage.event = to_json(event_from_json(said));
  stage.planned = count_in(said, "planned");
  stage.charged = count_in(said, "charged");
  const auto number_in = [&](const char* key) {
    return field(said, key).is_number() ? said[key].get<double>() : 0.0;
  };
  stage.clip_norm_l2 = number_in("clip_norm_l2");
  if (name == "train") {
    stage.expected_batch_size = number_in("expected_batch_size");
    stage.clipping = text(said, "clipping");
    parse_enum<Clipping>(stage.clipping);
  } else {
    stage.result_sha256 = hash_in(said, "result_sha256");
  }
  return stage;
}

/// How many records one unit owns, by the phases; where none says it, 1.
std::int64_t records_per_unit(const std::vector<PrivacyEvent>& events) {
  std::int64_t most = 1;
  for (const PrivacyEvent& event : events)
    if (const auto* phase = std::get_if<Phase>(&event))
      most = std::max(most, phase->records_per_unit);
  return most;
}

/// What the card should say, from what it counts; bounds as it says them.
PrivacyCard rebuilt(const Json& card, const std::vector<PrivacyEvent>& events,
                    const std::vector<StageFile>& stages) {
  PrivacyCard copy;
  copy.status = PrivacyCard::Status::kPrivate;
  copy.epsilon = card.at("epsilon").get<double>();
  copy.delta = card.at("delta").get<double>();
  const auto number = [&](const char* key) {
    const Json& value = field(card, key);
    return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
  };
  copy.epsilon_lower = number("epsilon_lower");
  copy.order = number("order");
  copy.grid = number("grid");
  copy.accountant = to_string(parse_enum<Accountant>(text(card, "accountant")));
  copy.adjacency = to_string(parse_enum<Adjacency>(text(card, "adjacency")));
  const std::int64_t records = records_per_unit(events);
  copy.unit = unit_of_privacy(/*has_users=*/true, records);
  if (records == 1 && text(card, "unit") != copy.unit)
    copy.unit = unit_of_privacy(/*has_users=*/false, 1);
  copy.candidates = card_candidates("the card", card);
  if (const auto selection = card_selection("the card", card))
    copy.selection_law = to_json(*selection);
  copy.sweep = sweep_total_in(card);
  if (field(card, "checkpoint_step").is_number_integer())
    copy.checkpoint_step = count_in(card, "checkpoint_step");
  for (const Json& stage : card.at("stages")) copy.stages.push_back(stage_of(stage, stages));
  for (const PrivacyStage& stage : copy.stages)
    if (stage.name == "train") describe_rounding(stage.expected_batch_size, copy);
  copy_hashes(card, copy);
  copy_facts(card, copy);
  copy_networks(card, copy);
  describe_public_images(copy);
  describe_start(start_of(card), copy);
  return copy;
}

/// The bounds on attackers are no smaller than what follows from the stages.
void check_bounds(const Json& card, const std::vector<PrivacyEvent>& events, PrivacyCard& copy,
                  Clauses& clauses) {
  PrivacyCard earned = copy;
  add_bounds(parse_enum<Accountant>(copy.accountant), events, parse_enum<Adjacency>(copy.adjacency),
             card_selection("the card", card), earned);
  const auto take = [&](const char* key, const char* at, const char* bound, const auto& least,
                        auto& pairs) {
    const Json& said = field(card, key);
    pairs = least;
    if (said.is_array() && said.size() == least.size())
      for (std::size_t i = 0; i < least.size(); ++i)
        if (field(said[i], at) == least[i].first && field(said[i], bound).is_number())
          pairs[i].second = said[i][bound].template get<double>();
    for (std::size_t i = 0; i < least.size(); ++i)
      if (pairs[i].second < least[i].second * (1 - kCardTolerance))
        clauses.push_back(fmt::format("{} is {} at {}, and by its stages {}", key, pairs[i].second,
                                      least[i].first, least[i].second));
  };
  // The curve itself is recomputed, with all of the accountant's work, by `account --card`.
  copy.epsilon_at_delta.clear();
  for (const Json& point : field(card, "epsilon_at_delta"))
    if (field(point, "delta").is_number() && field(point, "epsilon").is_number())
      copy.epsilon_at_delta.emplace_back(point["delta"].get<double>(),
                                         point["epsilon"].get<double>());
  take("largest_true_positive_rate", "false_positive_rate", "true_positive_rate",
       earned.true_positive_bounds, copy.true_positive_bounds);
}

/// Cards of older versions say of names from the source in their public facts alone, and those of
/// older ledgers nothing of the start; the pages say it all the same.
void forget_unwritten(const Json& card, Json& expected) {
  if (!card.contains("initial_weights")) expected.erase("initial_weights");
  Json& sentences = expected["not_covered"];
  if (field(card, "not_covered") != sentences && !sentences.empty() &&
      sentences.back() == kNamesFromSource)
    sentences.erase(sentences.size() - 1);
  const auto says = [](const Json& all) {
    return std::find(all.begin(), all.end(), Json(kMachinesAreTrusted)) != all.end();
  };
  if (!says(field(card, "not_covered")))
    std::erase(sentences.get_ref<Json::array_t&>(), Json(kMachinesAreTrusted));
}

}  // namespace

std::vector<std::string> facts_defects(const Json& card) {
  const Json& facts = field(card, "public_facts");
  if (!facts.is_object()) return {"public_facts are missing"};
  PrivacyCard copy;
  copy_facts(card, copy);
  const Json expected = to_json(copy)["public_facts"];
  Clauses clauses;
  for (const auto& [key, value] : facts.items())
    if (!alike(value, field(expected, key), 0))
      clauses.push_back(fmt::format("public_facts.{} is {}, and no card says such a thing", key,
                                    value.dump(-1, ' ', false, Json::error_handler_t::replace)));
  for (const auto& [key, value] : expected.items())
    if (!facts.contains(key)) clauses.push_back(fmt::format("public_facts.{} is missing", key));
  return clauses;
}

std::vector<std::string> unfounded_fields(const Json& card, const std::vector<StageFile>& stages) {
  Clauses clauses = facts_defects(card);
  Json expected;
  try {
    const std::vector<PrivacyEvent> events = card_events("the card", card);
    PrivacyCard copy = rebuilt(card, events, stages);
    check_bounds(card, events, copy, clauses);
    expected = to_json(copy);
  } catch (const std::exception& error) {
    clauses.push_back(error.what());
    return clauses;
  }
  forget_unwritten(card, expected);
  if (is_code(field(card, "code"))) expected["code"] = card["code"];
  expected["public_facts"] = field(card, "public_facts");  // looked at above
  for (const auto& [key, value] : expected.items())
    if (!alike(field(card, key), value))
      clauses.push_back(fmt::format("{} does not follow from what the card counts", key));
  // Whoever chose among checkpoints saw more than the steps before this one.
  if (card.contains("checkpoint_step"))
    for (const Json& stage : card["stages"])
      if (field(stage, "name") == "train" &&
          count_in(stage, "charged") < count_in(stage, "planned"))
        clauses.emplace_back(
            "checkpoint_step names a checkpoint, which is claimed at every planned step, and the "
            "card counts fewer");
  for (const auto& [key, value] : card.items())
    if (!expected.contains(key))
      clauses.push_back(fmt::format("{} is no field of a privacy card", key));
  return clauses;
}

std::string claim_left(const Json& card) {
  const Json expected = without_claim(card);
  for (const char* key :
       {"statement", "epsilon", "epsilon_lower", "delta", "order", "grid", "selection",
        "epsilon_at_delta", "largest_true_positive_rate", "recompute"})
    if (card.contains(key) && card[key] != expected[key]) return key;
  return {};
}

Json without_claim(const Json& card) {
  PrivacyCard copy;
  if (field(card, "status") == "not_private") copy.status = PrivacyCard::Status::kNotPrivate;
  copy.sampler = copy.accountant = "";
  for (const Json& reason : field(card, "reasons"))
    if (reason.is_string() &&
        std::ranges::find(kKnownReasons, reason.get<std::string>()) != std::end(kKnownReasons))
      copy.reasons.push_back(reason.get<std::string>());
  copy_hashes(card, copy);
  copy_facts(card, copy);
  copy_networks(card, copy);
  if (const auto start = start_of(card)) describe_start(start, copy);
  Json json = to_json(copy);
  if (is_code(field(card, "code"))) json["code"] = card["code"];
  if (!card.contains("public_facts")) json.erase("public_facts");
  return json;
}

}  // namespace sfumato
