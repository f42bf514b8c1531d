#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace sfumato {

/// Points that follow from a privacy card, upper bounds all of them.
struct CardCurves {
  /// (steps of training, ε at the card's δ once they are charged) from 0 to all that the card
  /// counts, the last being its claim. Empty where the claim is that of a private selection: ε of
  /// part of a run is then nobody's.
  std::vector<std::pair<std::int64_t, double>> spent;
  /// (δ, ε) of all that the card counts, δ falling and ε growing: the card's own, and some
  /// between and above them.
  std::vector<std::pair<double, double>> profile;
};

/// nullopt where the card claims nothing, or counts what cannot be recomputed.
std::optional<CardCurves> card_curves(const nlohmann::ordered_json& card);

}  // namespace sfumato
