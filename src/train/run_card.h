#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {

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
                     Adjacency adjacency);

/// A card that claims what the plan proves once that much is charged: stages, epsilon with its
/// bracket, the curve over delta and the bounds on attackers. What a release adds: hashes, public
/// facts, the ledger's head.
PrivacyCard claim_card(const MechanismPlan& plan, const ChargedReleases& charged);

}  // namespace sfumato
