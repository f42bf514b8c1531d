#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {

class RecordStore;

/// On the card of a run whose ledger notes a test key.
inline constexpr const char* kTestKeyReason = "the noise came from a reproducible test key";
/// On that of a run without privacy.
inline constexpr const char* kPlainReason = "trained with privacy.enabled: false";

/// What a ledger has charged, as a card needs it.
struct ChargedReleases {
  std::int64_t steps = 0;
  std::map<std::string, std::int64_t> stages;
  std::map<std::string, std::string> results;  ///< SHA-256 of what each stage released
};

/// The mechanism's part of a card: stages with what each has charged, in the plan's order and
/// training last. Declared stages count as charged in full.
std::vector<PrivacyStage> card_stages(const MechanismPlan& plan, const ChargedReleases& charged);

/// A point of the curve over delta; with less work than the claim itself, which only makes it
/// larger.
double curve_epsilon(Accountant accountant, std::span<const PrivacyEvent> events, double delta,
                     Adjacency adjacency, const std::optional<Selection>& selection = std::nullopt);

/// Puts the curve over delta and the bounds on attackers on a card that has its epsilon and delta.
void add_bounds(Accountant accountant, std::span<const PrivacyEvent> events, Adjacency adjacency,
                const std::optional<Selection>& selection, PrivacyCard& card);

/// What a card says in words of noise and rounding, for the divisor of training.
void describe_rounding(double expected_batch_size, PrivacyCard& card);

/// A card that claims what the plan proves once that much is charged: stages, epsilon with its
/// bracket, the curve over delta and the bounds on attackers. What a release adds: hashes, public
/// facts, the ledger's head.
PrivacyCard claim_card(const MechanismPlan& plan, const ChargedReleases& charged);

/// Says of a card whose stages are on it that one of them chose among public images, and on whose
/// word they are public.
void describe_public_images(PrivacyCard& card);

/// Puts what the run started from on its card: the weights, whether they are public data, and what
/// the claim then does not cover. Without `initial` (a ledger of an older version) the card says
/// that it is not known.
void describe_start(const std::optional<InitialWeights>& initial, PrivacyCard& card);

/// What a card says of the data: the keyed hash of the store and its public schema.
void describe_data(const RecordStore& store, PrivacyCard& card);

/// What a card says of two networks, of which one was released or both.
void describe_networks(const ReleasedFiles& released, PrivacyCard& card);

/// SHA-256 of what a card says of the data, as the ledger notes it of a release.
std::string card_facts_sha256(const nlohmann::ordered_json& card);

}  // namespace sfumato
