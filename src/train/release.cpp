#include "train/release.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "run/release_check.h"
#include "run/release_page.h"
#include "run/run_card.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/sweep_binding.h"
#include "sfumato/run/weights_hash.h"
#include "sfumato/train/batch_loader.h"

namespace sfumato {
namespace {

PrivacyCard mechanism_card(const ReleaseInputs& inputs) {
  const MechanismPlan& plan = inputs.plan;
  if (inputs.session == nullptr) return plain_card(plan);
  const Ledger& ledger = inputs.session->ledger();
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

/// What the ledger notes of the release, whose files are written.
ReleasedFiles released_files(const std::filesystem::path& release, const SavedGenerator& saved,
                             const std::string& weights_hash, const RecordStore& store) {
  PrivacyCard facts;
  describe_data(store, facts);
  ReleasedFiles released{
      weights_hash, card_facts_sha256(to_json(facts)), {}, saved.by_discriminator};
  for (const std::string& file : saved.files)
    released.files[file] = sha256_hex(read_file(release / file));
  // Verification must find what was saved.
  const std::vector<std::string> defects = layout_defects(released.files);
  if (!defects.empty() || weights_folder(released.files) != saved.folder)
    throw std::logic_error(
        fmt::format("a release in '{}': {}", saved.folder, fmt::join(defects, "; ")));
  return released;
}

/// What killed writers left would look like a part of the release.
void remove_temporaries(const std::filesystem::path& release) {
  std::error_code ignored;
  std::vector<std::filesystem::path> left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           release, std::filesystem::directory_options::skip_permission_denied, ignored)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file(ignored) && name.starts_with(".") && name.ends_with(".tmp"))
      left.push_back(entry.path());
  }
  for (const std::filesystem::path& file : left) std::filesystem::remove(file, ignored);
}

}  // namespace

void write_candidate(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = selection_candidate(inputs.run.path());
  inputs.remember(inputs.generator.released_weights());
  make_folder(folder, 0700);
  inputs.generator.save(folder, image_shape(inputs.store), inputs.config);
}

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

ReleasedFiles save_release(const Generator& generator, const std::filesystem::path& folder,
                           const RecordStore& store, const Config& config) {
  remove_temporaries(folder);
  const SavedGenerator saved = generator.save(folder, image_shape(store), config);
  return released_files(folder, saved, weights_sha256(folder / saved.folder), store);
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

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  // First: what has left is never unknown to the store.
  inputs.remember(inputs.generator.released_weights());
  const ReleasedFiles released =
      save_release(inputs.generator, folder, inputs.store, inputs.config);
  if (inputs.session != nullptr) inputs.session->record_release(released);
  // A ledger of an older version does not say what the run started from, whatever is there now.
  const std::optional<InitialWeights> start =
      inputs.session ? inputs.session->ledger().initial_weights() : inputs.start;
  write_card(folder, mechanism_card(inputs), released, inputs.store, start, inputs.config);
}

}  // namespace sfumato
