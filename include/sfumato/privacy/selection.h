#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "sfumato/core/choices.h"

namespace sfumato {

class ChaChaStream;

/// A private selection: K runs of one mechanism, their settings drawn anew from a public grid if
/// one likes, K drawn in secret from a public law; only the best run leaves, by any score that is a
/// function of what it releases, ties broken by a coin. Nothing of the others leaves, K neither.
/// The law is the negative binomial one without 0, of shape eta and mean `mean_runs` (Papernot,
/// Steinke 2022, definition 1): P(K = k) in proportion to (1 - gamma)^k Gamma(k + eta) / k!. eta 0
/// is the logarithmic law, eta 1 the geometric one.
struct Selection {
  double eta = 0;
  double mean_runs = 1;
  bool operator==(const Selection&) const = default;
};

// A law with more runs on average than this, or a larger shape, is none that anyone could train.
inline constexpr double kMostMeanRuns = 1e6;
inline constexpr double kLargestEta = 100;

/// `eta` counts for kNegativeBinomial alone.
Selection make_selection(SelectionFamily family, double eta, double mean_runs);
/// UsageError: mean_runs outside 1 ... kMostMeanRuns, eta outside 0 ... kLargestEta.
void check_selection(const Selection& selection);

/// "logarithmic:10", "geometric:10" or "negative_binomial:0.5:10" (eta, then runs on average);
/// UsageError shows the forms.
Selection parse_selection(std::string_view text);
/// The inverse; numbers in the shortest form that reads back to the same bits.
std::string to_text(const Selection& selection);
/// {"law": "truncated_negative_binomial", "eta", "mean_runs"}, as plans and cards hold it.
nlohmann::ordered_json to_json(const Selection& selection);
/// The inverse. DataError for anything else, a further key included.
Selection selection_from_json(const nlohmann::json& json);

/// The law of K. Probabilities and tails to 1e-12 relative, however small.
class SelectionLaw {
 public:
  /// UsageError as check_selection.
  explicit SelectionLaw(const Selection& selection);

  /// The law's parameter in (0, 1]; 1 where K is always 1.
  double gamma() const;
  double ln_gamma() const { return ln_gamma_; }
  double eta() const { return selection_.eta; }
  /// E[K] for that gamma: mean_runs within rounding.
  double mean() const;
  /// P(K = runs).
  double probability(std::int64_t runs) const;
  /// ln P(K >= runs); 0 for runs <= 1.
  double ln_at_least(std::int64_t runs) const;
  /// Smallest k with P(K <= k) >= share, for share in [0, 1); 2^53 where it is larger.
  std::int64_t quantile(double share) const;
  /// K for this natural logarithm (at most 0) of a uniform number: P(K >= k) = P(ln_uniform <=
  /// ln_at_least(k)).
  std::int64_t runs_at(double ln_uniform) const;

 private:
  Selection selection_;
  double ln_gamma_ = 0;
  double ln_norm_ = 0;  ///< of the integral that P(K >= 1) = 1 fixes
};

/// K, from as many words of the stream as it takes: the uniform number behind it has its full
/// relative precision however near to 0, so that no tail is cut.
std::int64_t draw_runs(const SelectionLaw& law, ChaChaStream& random);

/// How many runs a selection takes, for a user to see before: "median 4, 90 % at most 26, 99 % at
/// most 81".
std::string quantiles_text(const SelectionLaw& law);

}  // namespace sfumato
