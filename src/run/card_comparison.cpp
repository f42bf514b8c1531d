#include "run/card_comparison.h"

#include <fmt/format.h>

#include <algorithm>

#include "run/json_alike.h"
#include "run/run_card.h"
#include "sfumato/run/sweep_binding.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

bool same(const Json& said, const Json& expected) { return alike(said, expected, 0); }

ChargedReleases charged_in(const LedgerSummary& ledger) {
  return {ledger.charged_steps, ledger.stage_charges, ledger.stage_results};
}

void compare_stage(const Json& stage, const PrivacyStage& expected,
                   std::vector<std::string>& differences) {
  Json fields = expected.event;
  fields["declared"] = expected.declared;
  fields["planned"] = expected.planned;
  fields["charged"] = expected.charged;
  fields["clip_norm_l2"] = expected.clip_norm_l2;
  if (!expected.clipping.empty()) {
    fields["clipping"] = expected.clipping;
    fields["expected_batch_size"] = expected.expected_batch_size;
  }
  if (!expected.result_sha256.empty()) fields["result_sha256"] = expected.result_sha256;
  for (const auto& [key, value] : fields.items())
    if (!same(field(stage, key), value))
      differences.push_back(fmt::format("stage '{}': {} is {}, by the ledger {}", expected.name,
                                        key, field(stage, key).dump(), value.dump()));
  if (!stage.is_object()) return;
  // What is read with the rest may change what the rest means, as a truncation does.
  for (const auto& [key, value] : stage.items())
    if (key != "name" && !fields.contains(key))
      differences.push_back(fmt::format("stage '{}': {} is {}, by the ledger there is none",
                                        expected.name, key, value.dump()));
}

void compare_stages(const Json& card, const RunVerification& run,
                    std::vector<std::string>& differences) {
  const Json& found = field(card, "stages");
  const std::vector<PrivacyStage> expected = card_stages(*run.plan, charged_in(run.ledger));
  std::vector<bool> known(found.is_array() ? found.size() : 0, false);
  for (const PrivacyStage& stage : expected) {
    std::size_t at = 0;
    while (at < known.size() && (known[at] || field(found[at], "name") != stage.name)) ++at;
    if (at == known.size()) {
      differences.push_back(
          fmt::format("stage '{}', which the ledger charges, is missing", stage.name));
      continue;
    }
    known[at] = true;
    compare_stage(found[at], stage, differences);
  }
  for (std::size_t i = 0; i < known.size(); ++i)
    if (!known[i])
      differences.push_back(
          fmt::format("stage {} is not in the ledger", field(found[i], "name").dump()));
}

/// The card that the ledger earns. Its statement is that of `claimed` where that is the same number
/// but for the last digits.
Json earned_card(const RunVerification& run, const Json& said) {
  const MechanismPlan& plan = *run.plan;
  const Json& claimed = field(said, "epsilon");
  PrivacyCard card;
  card.status = PrivacyCard::Status::kNotPrivate;
  if (plan.is_private) {
    card = claim_card(plan, charged_in(run.ledger));
    if (claimed.is_number() && alike(claimed, card.epsilon)) card.epsilon = claimed.get<double>();
    if (run.ledger.insecure()) card.status = PrivacyCard::Status::kVoid;
  }
  card.sweep = run.binding ? parse_sweep_binding(*run.binding).total : sweep_total_in(said);
  describe_start(run.ledger.initial_weights, card);
  describe_networks(run.ledger.released, card);
  if (run.ledger.insecure()) card.reasons.push_back(kTestKeyReason);
  // Held against the ledger's note of it by itself.
  if (field(field(said, "public_facts"), "class_names_from") == "source")
    card.class_names_from = "source";
  return to_json(card);
}

void compare_claim(const Json& card, const RunVerification& run,
                   std::vector<std::string>& differences) {
  const MechanismPlan& plan = *run.plan;
  if (!plan.is_private || run.ledger.insecure()) {
    differences.push_back(fmt::format("it claims privacy, but {}",
                                      plan.is_private
                                          ? "a session drew its noise from a test key (VOID)"
                                          : "the run was trained without noise (NOT PRIVATE)"));
    return;
  }
  const Json& epsilon = field(card, "epsilon");
  const double proven = run.statement->epsilon;
  if (!epsilon.is_number() || !(epsilon.get<double>() >= proven * (1 - kCardTolerance)))
    differences.push_back(
        fmt::format("epsilon is {}, but what the ledger charges costs {}", epsilon.dump(), proven));
  const Json& lower = field(card, "epsilon_lower");
  if (lower.is_number() && lower.get<double>() > proven * (1 + kCardTolerance))
    differences.push_back(
        fmt::format("epsilon_lower is {}, above the recomputed epsilon {}", lower.dump(), proven));
  if (!same(field(card, "delta"), plan.delta))
    differences.push_back(
        fmt::format("delta is {}, by the ledger {}", field(card, "delta").dump(), plan.delta));
}

/// The fields of a card that are compared by themselves. All others must be what the ledger earns,
/// and there must be no others: whatever is on a card is read as part of what it says.
constexpr std::string_view kNotDerived[] = {"schema_version",
                                            "unit",
                                            "adjacency",
                                            "sampler",
                                            "accountant",
                                            "plan_hash",
                                            "stages",
                                            "candidates",
                                            "code",
                                            "public_facts",
                                            "weights_sha256",
                                            "ledger_head_hash",
                                            "data_manifest_hash"};

/// Cards of older versions, like their ledgers, did not say what the run started from, and of names
/// from the source in public_facts alone.
void forget_news(const Json& card, const LedgerSummary& ledger, Json& earned) {
  PrivacyCard added;
  added.not_covered.emplace_back(kMachinesAreTrusted);
  if (!ledger.initial_weights) {
    describe_start(std::nullopt, added);
    if (!card.contains("initial_weights")) earned.erase("initial_weights");
    earned["public_data"] = field(card, "public_data");
  }
  if (ledger.released.card_facts.empty()) added.not_covered.push_back(kNamesFromSource);
  const auto without_news = [&](const Json& sentences) {
    Json left = Json::array();
    for (const Json& sentence : sentences)
      if (!sentence.is_string() ||
          std::ranges::find(added.not_covered, sentence.get<std::string>()) ==
              added.not_covered.end())
        left.push_back(sentence);
    return left;
  };
  const Json& said = field(card, "not_covered");
  if (said.is_array() && without_news(said) == without_news(earned["not_covered"]))
    earned["not_covered"] = said;
}

void compare_derived(const Json& card, const RunVerification& run,
                     std::vector<std::string>& differences) {
  Json earned = earned_card(run, card);
  forget_news(card, run.ledger, earned);
  for (const auto& [key, value] : earned.items()) {
    const bool compared = std::ranges::find(kNotDerived, key) != std::end(kNotDerived);
    if (compared || alike(field(card, key), value)) continue;
    if (value.is_array()) {
      differences.push_back(fmt::format("{} is not what follows from the ledger", key));
      continue;
    }
    differences.push_back(
        fmt::format("{} is {}, by the ledger {}", key, field(card, key).dump(), value.dump()));
  }
  for (const auto& [key, value] : card.items())
    if (!earned.contains(key))
      differences.push_back(
          fmt::format("{} is {}, and no privacy card says such a thing", key, value.dump()));
}

/// A release is made by the version of one of the run's sessions.
void compare_code(const Json& card, const LedgerSummary& ledger,
                  std::vector<std::string>& differences) {
  const bool known = std::ranges::any_of(ledger.sessions, [&](const LedgerSession& session) {
    return field(card, "code") ==
           Json{{"name", "sfumato"}, {"version", session.version}, {"commit", session.git_commit}};
  });
  if (!known)
    differences.push_back(
        fmt::format("code is {}, and no session of the ledger ran it", field(card, "code").dump()));
}

}  // namespace

std::vector<std::string> card_differences(const Json& card, const RunVerification& run) {
  std::vector<std::string> differences;
  const MechanismPlan& plan = *run.plan;
  const LedgerSummary& ledger = run.ledger;
  const auto differ = [&](const char* key, const Json& expected) {
    if (!same(field(card, key), expected))
      differences.push_back(
          fmt::format("{} is {}, by the ledger {}", key, field(card, key).dump(), expected.dump()));
  };
  if (field(card, "status") == "private") compare_claim(card, run, differences);
  if (field(card, "status") == "not_private" && plan.is_private)
    differences.push_back("it says that the run is not private, and the ledger is a private run's");
  differ("adjacency", to_string(plan.adjacency));
  differ("unit", plan.unit);
  differ("sampler", plan.sampler);
  differ("accountant", to_string(plan.accountant));
  differ("plan_hash", ledger.plan_hash);
  differ("candidates", plan.candidates);
  compare_stages(card, run, differences);
  compare_derived(card, run, differences);
  compare_code(card, ledger, differences);
  const Json& head = field(card, "ledger_head_hash");
  const bool in_chain =
      head.is_string() && std::any_of(ledger.history.begin(), ledger.history.end(),
                                      [&](const LedgerPoint& point) { return point.hash == head; });
  if (!in_chain)
    differences.push_back(fmt::format(
        "no line of the ledger has its ledger_head_hash {}: lines were removed, or the two belong "
        "to different runs",
        head.dump()));
  return differences;
}

}  // namespace sfumato
