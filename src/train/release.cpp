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
#include "sfumato/run/weights_hash.h"
#include "sfumato/train/batch_loader.h"

namespace sfumato {
namespace {

PrivacyCard mechanism_card(const ReleaseInputs& inputs) {
  const MechanismPlan& plan = inputs.plan;
  PrivacyCard card;
  if (inputs.session == nullptr) {
    card.status = PrivacyCard::Status::kNotPrivate;
    card.reasons.emplace_back(kPlainReason);
    card.unit = plan.unit;
    card.adjacency = to_string(plan.adjacency);
    card.sampler = plan.sampler;
    card.accountant = to_string(plan.accountant);
    card.plan_hash = plan.hash();
    return card;
  }
  const Ledger& ledger = inputs.session->ledger();
  ChargedReleases charged{ledger.charged_steps(), {}, {}};
  for (const StagePlan& stage : plan.stages) {
    charged.stages[stage.name] = ledger.charged_releases(stage.name);
    if (const std::string result = ledger.result_of(stage.name); !result.empty())
      charged.results[stage.name] = result;
  }
  card = claim_card(plan, charged);
  card.ledger_head_hash = ledger.head_hash();
  if (ledger.insecure()) {
    card.status = PrivacyCard::Status::kVoid;
    card.reasons.emplace_back(kTestKeyReason);
  }
  return card;
}

PrivacyCard make_card(const ReleaseInputs& inputs, const ReleasedFiles& released) {
  PrivacyCard card = mechanism_card(inputs);
  card.weights_sha256 = released.weights;
  describe_networks(released, card);
  describe_data(inputs.store, card);
  // A ledger of an older version does not say what the run started from, whatever is there now.
  describe_start(inputs.session ? inputs.session->ledger().initial_weights() : inputs.start, card);
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

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  // First: what has left is never unknown to the store.
  inputs.remember(inputs.generator.released_weights());
  remove_temporaries(folder);
  const SavedGenerator saved =
      inputs.generator.save(folder, image_shape(inputs.store), inputs.config);
  const ReleasedFiles released =
      released_files(folder, saved, weights_sha256(folder / saved.folder), inputs.store);
  if (inputs.session != nullptr) inputs.session->record_release(released);
  const nlohmann::ordered_json card = to_json(make_card(inputs, released));
  write_file_atomic(folder / "privacy_card.md", card_markdown(card));
  write_file_atomic(folder / "report.html",
                    release_page(card, public_settings_yaml(inputs.config)));
  // Last: its presence says that the release is whole.
  write_file_atomic(folder / "privacy_card.json", card.dump(2) + "\n");
}

}  // namespace sfumato
