#include "train/release.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "run/release_page.h"
#include "run/run_card.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/diffusion/sampler.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/model_folder.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/weights_hash.h"
#include "train/release_readme.h"

namespace sfumato {
namespace {

/// The averaged weights where they train, the pretrained ones where they are frozen.
NamedTensors released_weights(const ReleaseInputs& inputs) {
  NamedTensors weights = named_weights(inputs.network);
  size_t next = 0;
  for (auto& [name, value] : weights) {
    if (next >= inputs.trainable.size() || name != inputs.trainable[next]->name) continue;
    value = inputs.ema.values()[next++];
  }
  return weights;
}

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

PrivacyCard make_card(const ReleaseInputs& inputs, const std::string& weights_hash) {
  PrivacyCard card = mechanism_card(inputs);
  card.weights_sha256 = weights_hash;
  describe_data(inputs.store, card);
  // A ledger of an older version does not say what the run started from, whatever is there now.
  describe_start(inputs.session ? inputs.session->ledger().initial_weights() : inputs.start, card);
  return card;
}

/// What the ledger notes of the release, its files being written.
ReleasedFiles released_files(const std::filesystem::path& folder, const std::string& weights_hash,
                             const RecordStore& store) {
  PrivacyCard facts;
  describe_data(store, facts);
  ReleasedFiles released{weights_hash, card_facts_sha256(to_json(facts)), {}};
  for (const char* file :
       {"README.md", "model_index.json", "scheduler/scheduler_config.json", "unet/config.json"})
    released.files[file] = sha256_hex(read_file(folder / file));
  return released;
}

/// What killed writers left would look like a part of the release.
void remove_temporaries(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const char* part : {"", "unet", "scheduler"})
    for (const auto& entry : std::filesystem::directory_iterator(folder / part, ignored)) {
      const std::string name = entry.path().filename().string();
      if (entry.is_regular_file() && name.starts_with(".") && name.ends_with(".tmp"))
        std::filesystem::remove(entry.path(), ignored);
    }
}

}  // namespace

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  nlohmann::ordered_json scheduler = ddpm_scheduler_config(
      noise_schedule_options(inputs.config.diffusion), inputs.config.diffusion.prediction());
  scheduler["clip_sample"] = inputs.config.sample.clip_sample();
  scheduler["clip_sample_range"] = inputs.config.sample.clip_sample_range();
  // A network may have come with another size, or none: what it was trained on is what it draws.
  UNet2DConfig network = inputs.network.config();
  network.sample_size = {{inputs.store.height(), inputs.store.width()}};
  const NamedTensors weights = released_weights(inputs);
  // First: what has left is never unknown to the store.
  inputs.remember(weights);
  remove_temporaries(folder);
  save_pipeline(folder, network, weights, scheduler);
  write_file_atomic(folder / "README.md", release_readme(inputs.config));
  const std::string hash = weights_sha256(folder / "unet");
  if (inputs.session != nullptr)
    inputs.session->record_release(released_files(folder, hash, inputs.store));
  const nlohmann::ordered_json card = to_json(make_card(inputs, hash));
  write_file_atomic(folder / "privacy_card.md", card_markdown(card));
  write_file_atomic(folder / "report.html",
                    release_page(card, public_settings_yaml(inputs.config)));
  if (const std::string caution = diffusers_caution(inputs.config); !caution.empty())
    log_warning("the release draws other images under diffusers than here: " + caution);
  // Last: its presence says that the release is whole.
  write_file_atomic(folder / "privacy_card.json", card.dump(2) + "\n");
}

}  // namespace sfumato
