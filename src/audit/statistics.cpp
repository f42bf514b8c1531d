#include "sfumato/audit/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

constexpr double kLargestEpsilon = 1e6;

void check_levels(double delta, double alpha) {
  if (!(delta >= 0 && delta < 1))
    throw UsageError(fmt::format("delta {} is outside [0, 1)", delta));
  if (!(alpha > 0 && alpha < 1))
    throw UsageError(fmt::format("confidence {} is outside (0, 1)", 1 - alpha));
}

void check_counts(std::int64_t canaries, std::int64_t guesses, std::int64_t correct) {
  if (!(0 <= correct && correct <= guesses && guesses <= canaries))
    throw UsageError(fmt::format("{} right of {} guesses about {} canaries is impossible", correct,
                                 guesses, canaries));
}

/// The end of the interval [floor, x) on which `refuted` holds, to a relative 1e-12.
double largest_refuted(double floor, const std::function<bool(double)>& refuted) {
  if (!refuted(floor)) return floor;
  double low = floor, high = std::max(1.0, 2 * floor);
  while (refuted(high)) {
    low = high;
    high *= 2;
    if (high > kLargestEpsilon) return low;
  }
  while (high - low > 1e-12 * high) {
    const double middle = (low + high) / 2;
    if (middle == low || middle == high) break;
    (refuted(middle) ? low : high) = middle;
  }
  return low;
}

/// max over 1 <= i <= v of P[v > Bin(n, q) >= v - i] / i. Terms rise up to the mode and fall behind
/// it, so that the mean of the first i is largest just before a term falls below it.
double steepest_mean(std::int64_t n, double q, std::int64_t v) {
  if (v == 0) return 0;
  double log_term = binomial_log_pmf(n, q, v - 1), sum = 0, best = 0;
  const double log_odds = std::log1p(-q) - std::log(q);
  for (std::int64_t i = 1; i <= v; ++i) {
    const double term = std::exp(log_term);
    if (i > 1 && term < best) break;
    sum += term;
    best = sum / static_cast<double>(i);
    const double k = static_cast<double>(v - i);
    if (k > 0) log_term += std::log(k) - std::log(static_cast<double>(n) - k + 1) + log_odds;
  }
  return best;
}

/// Whether k guesses, v of them right, refute mu-GDP.
bool refutes_gdp(std::int64_t m, std::int64_t k, std::int64_t v, double mu, double alpha) {
  const double total = static_cast<double>(m), guesses = static_cast<double>(k);
  double r = alpha * static_cast<double>(v) / total;
  double h = alpha * static_cast<double>(k - v) / total;
  for (std::int64_t i = v - 1; i >= 0; --i) {
    const double next = std::max(h, normal_cdf(normal_quantile(r) - mu));
    if (next == h) break;  // nothing will change any more
    const double weight = static_cast<double>(i);
    r = std::min(1.0, r + weight / (guesses - weight) * (next - h));
    h = next;
    if (r + h > guesses / total) return true;  // both only grow
  }
  return r + h > guesses / total;
}

struct Look {
  std::int64_t guesses, correct;
};

OneRunBound best_of(std::int64_t canaries, std::span<const Look> looks, double delta, double alpha,
                    OneRunMethod method) {
  OneRunBound best;
  best.looks = static_cast<int>(looks.size());
  const double share = alpha / std::max(1.0, static_cast<double>(looks.size()));
  for (const Look& look : looks) {
    const double epsilon =
        method == OneRunMethod::kSteinke
            ? one_run_epsilon(canaries, look.guesses, look.correct, delta, share, best.epsilon)
            : fdp_one_run_epsilon(canaries, look.guesses, look.correct, delta, share, best.epsilon);
    if (epsilon > best.epsilon) {
      best.epsilon = epsilon;
      best.guesses = look.guesses;
      best.correct = look.correct;
    }
  }
  return best;
}

struct Scored {
  double score;
  bool is_in;
};

std::vector<Scored> by_falling_score(std::vector<Scored> all) {
  for (Scored& canary : all)
    if (std::isnan(canary.score)) canary.score = -kInfinity;
  std::stable_sort(all.begin(), all.end(),
                   [](const Scored& a, const Scored& b) { return a.score > b.score; });
  return all;
}

std::vector<Look> pre_registered_looks(const std::vector<Scored>& sorted) {
  std::vector<Look> looks;
  for (const std::int64_t k : pre_registered_guesses(static_cast<std::int64_t>(sorted.size()))) {
    const auto correct = std::count_if(sorted.begin(), sorted.begin() + k,
                                       [](const Scored& canary) { return canary.is_in; });
    looks.push_back({k, correct});
  }
  return looks;
}

/// Corners of the concave hull of (false positives, true positives) over all thresholds, the two
/// ends included; most precise first, so that later ones are dismissed quickly.
std::vector<Look> hull_looks(const std::vector<Scored>& sorted) {
  std::vector<std::pair<std::int64_t, std::int64_t>> hull;  // (fp, tp)
  const auto turns_up = [&](const std::pair<std::int64_t, std::int64_t>& c) {
    const auto& [ax, ay] = hull[hull.size() - 2];
    const auto& [bx, by] = hull.back();
    return (bx - ax) * (c.second - ay) - (by - ay) * (c.first - ax) >= 0;
  };
  std::pair<std::int64_t, std::int64_t> point{0, 0};
  hull.push_back(point);
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    ++(sorted[i].is_in ? point.second : point.first);
    if (i + 1 < sorted.size() && sorted[i + 1].score == sorted[i].score) continue;
    while (hull.size() >= 2 && turns_up(point)) hull.pop_back();
    hull.push_back(point);
  }
  std::vector<Look> looks;
  for (const auto& [fp, tp] : hull) looks.push_back({fp + tp, tp});
  return looks;
}

std::vector<Scored> joined(std::span<const double> in_scores, std::span<const double> out_scores) {
  std::vector<Scored> all;
  for (const double score : in_scores) all.push_back({score, true});
  for (const double score : out_scores) all.push_back({score, false});
  return all;
}

double phi_distance(double false_positive, double false_negative) {
  const double mu = -normal_quantile(false_positive) - normal_quantile(false_negative);
  return std::isnan(mu) ? 0 : std::max(0.0, mu);
}

}  // namespace

double one_run_p_value(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                       double epsilon, double delta) {
  check_counts(canaries, guesses, correct);
  check_levels(delta, 0.5);
  const double q = 1 / (1 + std::exp(-epsilon));
  const double beta = binomial_upper_tail(guesses, q, correct);
  if (delta == 0) return beta;
  return std::min(
      1.0, beta + 2 * static_cast<double>(canaries) * delta * steepest_mean(guesses, q, correct));
}

double one_run_epsilon(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                       double delta, double alpha, double floor) {
  check_counts(canaries, guesses, correct);
  check_levels(delta, alpha);
  // The cheap part first: what delta 0 cannot refute, no delta can.
  if (one_run_p_value(canaries, guesses, correct, floor, 0) >= alpha) return floor;
  return largest_refuted(floor, [&](double epsilon) {
    return one_run_p_value(canaries, guesses, correct, epsilon, delta) < alpha;
  });
}

double fdp_one_run_epsilon(std::int64_t canaries, std::int64_t guesses, std::int64_t correct,
                           double delta, double alpha, double floor) {
  check_counts(canaries, guesses, correct);
  check_levels(delta, alpha);
  if (delta == 0) throw UsageError("the f-DP bound needs delta above 0");
  if (guesses == 0) return floor;
  return largest_refuted(floor, [&](double epsilon) {
    return refutes_gdp(canaries, guesses, correct, gaussian_mu(epsilon, delta), alpha);
  });
}

std::vector<std::int64_t> pre_registered_guesses(std::int64_t canaries) {
  std::vector<std::int64_t> guesses;
  for (int power = 1; power <= 8; ++power) {
    const std::int64_t k = canaries >> power;
    if (k >= 1) guesses.push_back(k);
  }
  return guesses;
}

OneRunBound one_run_bound(std::span<const double> in_scores, std::span<const double> out_scores,
                          double delta, double alpha, OneRunMethod method, GuessRule rule) {
  const std::vector<Scored> sorted = by_falling_score(joined(in_scores, out_scores));
  const std::vector<Look> looks =
      rule == GuessRule::kHull ? hull_looks(sorted) : pre_registered_looks(sorted);
  return best_of(static_cast<std::int64_t>(sorted.size()), looks, delta, alpha, method);
}

OneRunBound one_run_bound(std::span<const double> scores, const std::vector<bool>& is_in,
                          double delta, double alpha, OneRunMethod method) {
  if (scores.size() != is_in.size())
    throw UsageError(fmt::format("{} scores for {} canaries' coins", scores.size(), is_in.size()));
  std::vector<Scored> all;
  for (std::size_t i = 0; i < scores.size(); ++i) all.push_back({scores[i], is_in[i]});
  const std::vector<Scored> sorted = by_falling_score(std::move(all));
  return best_of(static_cast<std::int64_t>(sorted.size()), pre_registered_looks(sorted), delta,
                 alpha, method);
}

double attainable_one_run_epsilon(std::int64_t canaries, double delta, double alpha,
                                  OneRunMethod method) {
  std::vector<Look> looks;
  for (const std::int64_t k : pre_registered_guesses(canaries)) looks.push_back({k, k});
  return best_of(canaries, looks, delta, alpha, method).epsilon;
}

ErrorRates upper_error_rates(const ErrorCounts& counts, double alpha) {
  return {clopper_pearson_upper(counts.false_negatives, counts.positives, alpha / 2),
          clopper_pearson_upper(counts.false_positives, counts.negatives, alpha / 2)};
}

double clopper_pearson_epsilon(const ErrorCounts& counts, double delta, double alpha) {
  check_levels(delta, alpha);
  const auto [fn, fp] = upper_error_rates(counts, alpha);
  double best = 0;
  if (1 - fn > delta) best = std::max(best, std::log((1 - fn - delta) / fp));
  if (1 - fp > delta) best = std::max(best, std::log((1 - fp - delta) / fn));
  return best;
}

MuEstimate estimate_mu(const ErrorCounts& counts, double alpha) {
  const auto [fn, fp] = upper_error_rates(counts, alpha);
  MuEstimate mu;
  mu.lower = phi_distance(fp, fn);
  // Half an error more, so that the estimate stays finite.
  const auto smoothed = [](std::int64_t errors, std::int64_t trials) {
    return (static_cast<double>(errors) + 0.5) / (static_cast<double>(trials) + 1);
  };
  mu.estimate = phi_distance(smoothed(counts.false_positives, counts.negatives),
                             smoothed(counts.false_negatives, counts.positives));
  mu.upper =
      phi_distance(clopper_pearson_lower(counts.false_positives, counts.negatives, alpha / 2),
                   clopper_pearson_lower(counts.false_negatives, counts.positives, alpha / 2));
  return mu;
}

}  // namespace sfumato
