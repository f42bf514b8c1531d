#include "run/release_card.h"

#include <nlohmann/json.hpp>

#include "run/release_page.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/file.h"
#include "sfumato/data/record_store.h"
#include "sfumato/run/sweep_binding.h"

namespace sfumato {

PrivacyCard plain_card(const MechanismPlan& plan) {
  PrivacyCard card;
  card.status = PrivacyCard::Status::kNotPrivate;
  card.reasons.emplace_back(kPlainReason);
  card.unit = plan.unit;
  card.adjacency = to_string(plan.adjacency);
  card.sampler = plan.sampler;
  card.accountant = to_string(plan.accountant);
  card.plan_hash = plan.hash();
  return card;
}

PrivacyCard card_of_ledger(const MechanismPlan& plan, const Ledger& ledger) {
  ChargedReleases charged{ledger.charged_steps(), {}, {}};
  for (const StagePlan& stage : plan.stages) {
    charged.stages[stage.name] = ledger.charged_releases(stage.name);
    if (const std::string result = ledger.result_of(stage.name); !result.empty())
      charged.results[stage.name] = result;
  }
  PrivacyCard card = claim_card(plan, charged);
  card.ledger_head_hash = ledger.head_hash();
  if (ledger.insecure()) {
    card.status = PrivacyCard::Status::kVoid;
    card.reasons.emplace_back(kTestKeyReason);
  }
  return card;
}

nlohmann::ordered_json write_card(const std::filesystem::path& folder, PrivacyCard card,
                                  const ReleasedFiles& released, const RecordStore& store,
                                  const std::optional<InitialWeights>& start,
                                  const Config& config) {
  card.weights_sha256 = released.weights;
  card.sweep = parse_sweep_binding(config.run.sweep()).total;
  describe_networks(released, card);
  describe_data(store, card);
  describe_start(start, card);
  nlohmann::ordered_json json = to_json(card);
  write_file_atomic(folder / "privacy_card.md", card_markdown(json));
  write_file_atomic(folder / "report.html", release_page(json, public_settings_yaml(config)));
  // Last: its presence says that the release is whole.
  write_file_atomic(folder / "privacy_card.json", json.dump(2) + "\n");
  return json;
}

}  // namespace sfumato
