#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "sfumato/report/privacy_card.h"

namespace sfumato {

/// The setting run.sweep: which run of which sweep a run is, and what all of that sweep's runs
/// amount to where each is charged by itself.
struct SweepBinding {
  std::string place;  ///< "SHA-256 of the plan/index"; "" for a run of no sweep
  std::optional<SweepTotal> total;
};
/// "abc.../3 of 12 runs, epsilon 3.2, delta 1e-05", or the place alone.
std::string to_text(const SweepBinding& binding);
SweepBinding parse_sweep_binding(const std::string& text);

/// What a card says of its sweep; nothing where that can be no sweep's of such a run: fewer than
/// two runs, or less than the run itself has spent.
std::optional<SweepTotal> sweep_total_in(const nlohmann::ordered_json& card);

}  // namespace sfumato
