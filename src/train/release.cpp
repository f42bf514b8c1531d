#include "train/release.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "run/release_page.h"
#include "run/run_card.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/diffusion/sampler.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/model_folder.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/released_weights.h"
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
    card.reasons.push_back("trained with privacy.enabled: false");
    card.unit = plan.unit;
    card.adjacency = to_string(plan.adjacency);
    card.sampler = plan.sampler;
    card.accountant = plan.accountant;
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
    card.reasons.push_back(kTestKeyReason);
  }
  return card;
}

PrivacyCard make_card(const ReleaseInputs& inputs, const std::string& weights_hash) {
  PrivacyCard card = mechanism_card(inputs);
  card.data_manifest_hash = inputs.store.manifest_hash();
  card.weights_sha256 = weights_hash;
  card.image_size = inputs.store.height();
  card.channels = inputs.store.channels();
  card.num_classes = inputs.store.num_classes();
  card.class_names = inputs.store.class_names();
  card.class_names_from = inputs.store.layout().class_names_from;
  card.classes_that_may_be_empty = inputs.store.layout().classes_that_may_be_empty;
  // A ledger of an older version does not say what the run started from, whatever is there now.
  describe_start(inputs.session ? inputs.session->ledger().initial_weights() : inputs.start.initial,
                 card);
  return card;
}

ReleasedWeights note_of(const ReleaseInputs& inputs) {
  ReleasedWeights note;
  note.plan = inputs.plan;
  if (inputs.session == nullptr) return note;
  const Ledger& ledger = inputs.session->ledger();
  note.run_id = ledger.run_id();
  note.is_private = !ledger.insecure();
  note.charged_steps = ledger.charged_steps();
  return note;
}

}  // namespace

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  nlohmann::ordered_json scheduler =
      ddpm_scheduler_config(noise_schedule_options(inputs.config.diffusion),
                            parse_prediction(inputs.config.diffusion.prediction()));
  scheduler["clip_sample"] = inputs.config.sample.clip_sample();
  scheduler["clip_sample_range"] = inputs.config.sample.clip_sample_range();
  // A network may have come with another size, or none: what it was trained on is what it draws.
  UNet2DConfig network = inputs.network.config();
  network.sample_size = {{inputs.store.height(), inputs.store.width()}};
  const NamedTensors weights = released_weights(inputs);
  // First: what has left is never unknown to the store.
  remember_release(inputs.store.path(), weights, inputs.start.digest, note_of(inputs));
  save_pipeline(folder, network, weights, scheduler);
  const std::string hash = weights_sha256(folder / "unet");
  if (inputs.session != nullptr) inputs.session->record_release(hash);
  const nlohmann::ordered_json card = to_json(make_card(inputs, hash));
  write_file_atomic(folder / "privacy_card.md", card_markdown(card));
  write_file_atomic(folder / "report.html",
                    release_page(card, public_settings_yaml(inputs.config)));
  write_file_atomic(folder / "README.md", release_readme(inputs.config));
  if (const std::string caution = diffusers_caution(inputs.config); !caution.empty())
    log_warning("the release draws other images under diffusers than here: " + caution);
  // Last: its presence says that the release is whole.
  write_file_atomic(folder / "privacy_card.json", card.dump(2) + "\n");
}

}  // namespace sfumato
