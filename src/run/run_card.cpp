#include "run/run_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/pld.h"

namespace sfumato {
namespace {

/// Spread over what cards of others state; the larger ones tighten the bounds on attackers. Still
/// larger ones would do so from an epsilon of about 8 on, at a false positive rate of 0.1 (at 10.6
/// for 1e-5: 0.80 and not 0.95), and change what cards that are already out must say.
constexpr double kDeltas[] = {0.3,  0.1,  0.03, 0.01, 1e-3,  1e-4,  1e-5,
                              1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12};
constexpr double kLargestListedDelta = 1e-3;
constexpr double kFalsePositiveRates[] = {0.001, 0.01, 0.1};

/// The stage whose images are public on somebody's word.
constexpr std::string_view kChoosesPublicImages = "semantic_query";

std::int64_t releases_of(const PrivacyEvent& event) {
  const nlohmann::ordered_json json = to_json(event);
  return json.at(json.contains("steps") ? "steps" : "count").get<std::int64_t>();
}

}  // namespace

double curve_epsilon(Accountant accountant, std::span<const PrivacyEvent> events, double delta,
                     Adjacency adjacency, const std::optional<Selection>& selection) {
  if (accountant != Accountant::kPld)
    return account_epsilon(accountant, events, delta, adjacency, selection).epsilon;
  PldOptions options;
  options.tolerance = 2e-3;
  options.points = 1 << 14;
  if (selection) return account_selection(events, delta, adjacency, *selection, options);
  return epsilon_from_pld(events, delta, adjacency, options).upper;
}

void add_bounds(Accountant accountant, std::span<const PrivacyEvent> events, Adjacency adjacency,
                const std::optional<Selection>& selection, PrivacyCard& card) {
  std::vector<std::pair<double, double>> curve = {{card.delta, card.epsilon}};
  for (const double delta : kDeltas) {
    const double epsilon = delta == card.delta
                               ? card.epsilon
                               : curve_epsilon(accountant, events, delta, adjacency, selection);
    if (!std::isfinite(epsilon)) continue;
    curve.emplace_back(delta, epsilon);
    if (delta <= kLargestListedDelta) card.epsilon_at_delta.emplace_back(delta, epsilon);
  }
  for (const double rate : kFalsePositiveRates)
    card.true_positive_bounds.emplace_back(rate, largest_true_positive_rate(curve, rate));
}

void describe_rounding(double expected_batch_size, PrivacyCard& card) {
  card.noise =
      "ChaCha20 (256-bit key from the operating system, never stored), Box-Muller with a 64-bit "
      "radius, added in float32, the noisy sum rounded to a public grid: hardened against, not "
      "proven for, floating-point attacks";
  card.sensitivity_margin = fmt::format(
      "clip factors are 1e-6 smaller, relatively, than the clip norm asks for, which covers the "
      "rounding of factors and gradients; noise is larger than noise_multiplier times clip_norm_l2 "
      "by a share of {:.2g}, which covers random rounding of the sum",
      rounding_margin(expected_batch_size));
}

std::vector<PrivacyStage> card_stages(const MechanismPlan& plan, const ChargedReleases& charged) {
  std::vector<PrivacyStage> stages;
  for (const StagePlan& planned : plan.stages) {
    PrivacyStage stage;
    stage.name = planned.name;
    stage.event = to_json(planned.event);
    stage.planned = releases_of(planned.event);
    const auto found = charged.stages.find(planned.name);
    stage.charged = planned.declared                ? stage.planned
                    : found == charged.stages.end() ? 0
                                                    : found->second;
    stage.clip_norm_l2 = planned.clip_norm_l2;
    stage.declared = planned.declared;
    if (const auto result = charged.results.find(planned.name); result != charged.results.end())
      stage.result_sha256 = result->second;
    stages.push_back(stage);
  }
  PrivacyStage training;
  training.name = "train";
  training.event = to_json(PrivacyEvent(plan.phase(charged.steps)));
  training.planned = plan.steps;
  training.charged = charged.steps;
  training.clip_norm_l2 = plan.clip_norm_l2;
  training.clipping = to_string(plan.clipping);
  training.expected_batch_size = plan.expected_batch_size;
  stages.push_back(training);
  return stages;
}

PrivacyCard claim_card(const MechanismPlan& plan, const ChargedReleases& charged) {
  PrivacyCard card;
  const PrivacyStatement statement = plan.statement_after(charged.steps);
  card.status = PrivacyCard::Status::kPrivate;
  card.epsilon = statement.epsilon;
  card.epsilon_lower = statement.epsilon_lower;
  card.order = statement.order;
  card.grid = statement.grid;
  card.delta = plan.delta;
  card.unit = plan.unit;
  card.adjacency = to_string(plan.adjacency);
  card.sampler = plan.sampler;
  card.accountant = to_string(plan.accountant);
  card.candidates = plan.candidates;
  if (plan.selection) card.selection_law = to_json(*plan.selection);
  card.stages = card_stages(plan, charged);
  describe_public_images(card);
  if (std::isfinite(card.epsilon))
    add_bounds(plan.accountant, plan.events(charged.steps), plan.adjacency, plan.selection, card);
  card.plan_hash = plan.hash();
  describe_rounding(plan.expected_batch_size, card);
  return card;
}

void describe_public_images(PrivacyCard& card) {
  const auto chooses = [](const PrivacyStage& stage) {
    return !stage.declared && stage.name == kChoosesPublicImages;
  };
  if (std::ranges::none_of(card.stages, chooses)) return;
  card.public_data.push_back(fmt::format(
      "images of the record store that the result of the stage {} names", kChoosesPublicImages));
  card.not_covered.push_back(fmt::format(
      "The images that the stage {} chose from, on which a warm-up trains without noise, are "
      "public, and none of them is private here, on the word of whoever started the run.",
      kChoosesPublicImages));
}

void describe_start(const std::optional<InitialWeights>& initial, PrivacyCard& card) {
  if (!initial) {
    card.not_covered.push_back(
        "The ledger was begun by an older version, which did not note the weights that training "
        "started from: that they knew nothing of the private images is not shown.");
    return;
  }
  card.initial_weights = to_json(*initial);
  const std::string name = fmt::format("pretrained weights (SHA-256 {})", initial->sha256);
  if (initial->origin == "public") card.public_data.push_back(name);
  if (initial->origin == "not_private")
    card.public_data.push_back(name + ", trained without privacy");
  if (initial->on_word)
    card.not_covered.push_back(
        "Training started from weights that were trained without privacy, or from others that "
        "started there: their images are public, and none of them is private here, on the word of "
        "whoever started the run.");
}

void describe_data(const RecordStore& store, PrivacyCard& card) {
  card.data_manifest_hash = store.manifest_hash();
  card.image_size = store.height();
  card.channels = store.channels();
  card.num_classes = store.num_classes();
  card.class_names = store.class_names();
  card.class_names_from = store.layout().class_names_from;
  card.classes_that_may_be_empty = store.layout().classes_that_may_be_empty;
}

void describe_networks(const ReleasedFiles& released, PrivacyCard& card) {
  const std::map<std::string, std::string>& files = released.files;
  // Ledgers that do not note it are of versions in which one family alone had a discriminator.
  card.by_discriminator =
      released.by_discriminator.value_or(files.contains("generator/config.json"));
  if (const auto found = files.find("discriminator/diffusion_pytorch_model.safetensors");
      found != files.end())
    card.discriminator_sha256 = found->second;
}

std::string card_facts_sha256(const nlohmann::ordered_json& card) {
  nlohmann::json facts;  // with sorted keys
  for (const char* key : {"data_manifest_hash", "public_facts"})
    facts[key] = card.is_object() && card.contains(key) ? nlohmann::json(card[key]) : nullptr;
  return sha256_hex(facts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace sfumato
