#include "train/release.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/generate/noise_schedule.h"
#include "sfumato/generate/sampler.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

/// The averaged weights where they train, the pretrained ones where they are frozen.
NamedWeights released_weights(const ReleaseInputs& inputs) {
  NamedWeights weights = named_weights(inputs.network);
  size_t next = 0;
  for (auto& [name, value] : weights) {
    if (next >= inputs.trainable.size() || name != inputs.trainable[next]->name) continue;
    value = inputs.ema.values()[next++];
  }
  return weights;
}

PrivacyStage training_stage(const MechanismPlan& plan, int64_t charged) {
  PrivacyStage stage;
  stage.name = "train";
  stage.sample_rate = plan.sample_rate;
  stage.noise_multiplier = plan.noise_multiplier;
  stage.steps_planned = plan.steps;
  stage.steps_charged = charged;
  stage.clip_norm_l2 = plan.clip_norm_l2;
  stage.clipping = plan.clipping;
  stage.expected_batch_size = plan.expected_batch_size;
  return stage;
}

PrivacyCard make_card(const ReleaseInputs& inputs, const std::string& weights_sha256) {
  const MechanismPlan& plan = inputs.plan;
  PrivacyCard card;
  card.delta = plan.delta;
  card.unit = plan.unit;
  card.adjacency = to_string(plan.adjacency);
  card.sampler = plan.sampler;
  card.accountant = plan.accountant;
  card.plan_hash = plan.hash();
  card.data_manifest_hash = inputs.store.manifest_hash();
  card.weights_sha256 = weights_sha256;
  card.image_size = inputs.store.height();
  card.channels = inputs.store.channels();
  card.num_classes = inputs.store.num_classes();
  if (!inputs.config.model.init().empty())
    card.public_data.push_back(
        fmt::format("pretrained weights '{}'",
                    std::filesystem::path(inputs.config.model.init()).filename().string()));
  if (inputs.ledger == nullptr) {
    card.status = PrivacyCard::Status::kNotPrivate;
    card.reasons.push_back("trained with privacy.enabled: false");
    return card;
  }
  const int64_t charged = inputs.ledger->charged_steps();
  const Phase phase = plan.phase(charged);
  const PrivacyStatement statement = account_epsilon(parse_accountant(plan.accountant),
                                                     {&phase, 1}, plan.delta, plan.adjacency);
  card.epsilon = statement.epsilon;
  card.epsilon_lower = statement.epsilon_lower;
  card.order = statement.order;
  card.stages.push_back(training_stage(plan, charged));
  card.noise =
      "ChaCha20 (256-bit key from the operating system, never stored), Box-Muller with a 64-bit "
      "radius, added in float32: hardened against, not proven for, floating-point attacks";
  card.ledger_head_hash = inputs.ledger->head_hash();
  card.status = PrivacyCard::Status::kPrivate;
  if (inputs.ledger->insecure()) {
    card.status = PrivacyCard::Status::kVoid;
    card.reasons.push_back("the noise came from a reproducible test key");
  }
  return card;
}

void write_report(const ReleaseInputs& inputs, const nlohmann::ordered_json& card) {
  const CardBanner banner = card_banner(card);
  HtmlReport report;
  report.title = "sfumato: trained generator";
  report.banner = banner.banner;
  report.headline = banner.headline;
  report.card = card_rows(card);
  report.settings_yaml = inputs.config.resolved_yaml();
  report.notes = card_notes(card);
  write_file_atomic(inputs.run.release() / "report.html", html_report(report));
}

}  // namespace

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  const nlohmann::ordered_json scheduler =
      ddpm_scheduler_config(noise_schedule_options(inputs.config.diffusion),
                            parse_prediction(inputs.config.diffusion.prediction()));
  save_pipeline(folder, inputs.network.config(), released_weights(inputs), scheduler);
  const std::string weights =
      read_file(folder / "unet" / "diffusion_pytorch_model.safetensors");
  const nlohmann::ordered_json card = to_json(make_card(inputs, sha256_hex(weights)));
  write_file_atomic(folder / "privacy_card.md", card_markdown(card));
  write_report(inputs, card);
  // Last: its presence says that the release is whole.
  write_file_atomic(folder / "privacy_card.json", card.dump(2) + "\n");
}

}  // namespace sfumato
