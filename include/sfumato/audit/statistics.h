#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sfumato {

// What the guesses of an attacker prove about epsilon. An audit has m canaries, each in the
// training set by an independent fair coin, and a score for each, high if the attacker believes
// that it was in. `alpha` is the probability with which a lower bound may be wrong: 1 - confidence.
// UsageError for counts that contradict each other, alpha outside (0, 1) or delta outside [0, 1).

// One run (guesses of one trained model depend on each other)
// ---------------------------------------

/// How likely an (epsilon, delta)-DP algorithm makes `correct` or more of `guesses` guesses about m
/// coins right, at most (Steinke, Nasr, Jagielski 2023, theorem 5.2 with abstentions):
///   min(1, beta + 2 m delta max_{1<=i<=v} P[v > B >= v-i] / i),  B ~ Bin(r, 1 / (1 + e^-epsilon)),
/// beta = P[B >= v], r guesses, v right.
double one_run_p_value(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                       double epsilon, double delta);

/// The largest epsilon >= `floor` whose claim the counts refute; `floor` if they refute none above.
double one_run_epsilon(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                       double delta, double alpha, double floor = 0);

/// The same for mechanisms whose trade-off curve is that of some Gaussian mechanism (Mahloujifar,
/// Melis, Chaudhuri 2024, the recursion over (r, h)): tighter, and beyond Steinke's bound for many
/// canaries, but it takes the Gaussian family for granted.
double fdp_one_run_epsilon(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                           double delta, double alpha, double floor = 0);

enum class OneRunMethod { kSteinke, kFdp };

/// Which numbers of guesses are looked at.
enum class GuessRule {
  /// m 2^-1 ... m 2^-8, fixed beforehand, alpha shared among them: a proof by the union bound.
  kPreRegistered,
  /// Every corner of the convex hull of the ROC curve, alpha shared among as many. The number comes
  /// from the data, so that this is no proof; it is what other libraries print.
  kHull,
};

struct OneRunBound {
  double epsilon = 0;        ///< lower bound; 0: nothing is proved
  std::int64_t guesses = 0;  ///< the number of guesses that gave it
  std::int64_t correct = 0;
  int looks = 0;  ///< how many numbers of guesses shared alpha
};

/// m 2^-1 ... m 2^-8, at least 1, without repetition.
std::vector<std::int64_t> pre_registered_guesses(std::int64_t canaries);

/// The lower bound from all scores: the k canaries with the highest scores are guessed to be in,
/// the others not guessed. Equal scores are ordered by index; NaN is the lowest score.
OneRunBound one_run_bound(std::span<const double> in_scores, std::span<const double> out_scores,
                          double delta, double alpha, OneRunMethod method,
                          GuessRule rule = GuessRule::kPreRegistered);
/// The same with scores in the canaries' order: is_in[i] tells canary i's coin.
OneRunBound one_run_bound(std::span<const double> scores, const std::vector<bool>& is_in,
                          double delta, double alpha, OneRunMethod method);

/// What m canaries could show at most: every pre-registered guess right.
double attainable_one_run_epsilon(std::int64_t canaries, double delta, double alpha,
                                  OneRunMethod method);

// Independent outcomes (many runs, or canaries that do not touch each other)
// ------------------------

/// Errors of one attacker at one threshold that was fixed without looking at these outcomes.
struct ErrorCounts {
  std::int64_t positives = 0, false_negatives = 0;
  std::int64_t negatives = 0, false_positives = 0;
};

/// Upper Clopper-Pearson bounds of the two error rates, alpha / 2 each.
struct ErrorRates {
  double false_negative = 1, false_positive = 1;
};
ErrorRates upper_error_rates(const ErrorCounts& counts, double alpha);

/// max(0, ln((1 - FNR - delta) / FPR), ln((1 - FPR - delta) / FNR)) with upper error rates.
double clopper_pearson_epsilon(const ErrorCounts& counts, double delta, double alpha);

/// mu of Gaussian differential privacy (Nasr et al. 2023): Phi^-1(1 - FPR) - Phi^-1(FNR), from
/// counts and from error rates that are too high (lower) or too low (upper) with probability
/// alpha / 2 each. A negative mu is 0. `upper` is infinite where an error never happened.
struct MuEstimate {
  double lower = 0, estimate = 0, upper = 0;
};
MuEstimate estimate_mu(const ErrorCounts& counts, double alpha);

}  // namespace sfumato
