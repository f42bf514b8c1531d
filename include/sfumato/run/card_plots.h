#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sfumato {

/// What a card claims, to look at: ε by step, δ against ε, and the most that an attacker can
/// recognise at each rate of false alarms, with the numbers behind each. A section of HTML for
/// HtmlReport::plots; "" where the card claims nothing, or counts what cannot be recomputed.
/// Everything follows from the card, hence from the public plan and what it charged, and every
/// point is an upper bound. Takes a fifth of a second of computing (pld).
///   - Between points ε by step is that of the next one.
///   - δ(ε) = E[(1 - e^ε / L)₊] is convex in e^ε, so that chords over e^ε lie above it.
///   - Trade-off: largest_true_positive_rate under all points at once, which is the dual of the
///     privacy profile (Wasserman, Zhou 2010; Dong, Roth, Su 2022, proposition 6).
std::string card_plots(const nlohmann::ordered_json& card);

/// That section of a page; "" where it has none, as pages of older versions.
std::string card_plots_in(const std::string& page);

/// "" if `section` is what card_plots makes of the card, with no ε smaller than recomputed here;
/// else what it does, for a sentence that the page begins.
std::string card_plots_defect(const nlohmann::ordered_json& card, const std::string& section);

}  // namespace sfumato
