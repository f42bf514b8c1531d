#include "sfumato/privacy/pld.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "loss_composition.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// One mechanism with all its releases, in each direction.
struct Mechanism {
  std::vector<std::vector<WeightedPair>> directions;
  std::optional<ApproximateRelease> approximate;
  double count = 0;
};

/// What is composed: mechanisms that cost something, all unsampled Gaussians joined to one.
struct Composition {
  std::vector<Mechanism> mechanisms;
  double gaussian_mu_squared = 0;
  bool reveals_all = false;
  int directions = 1;
};

void add_phase(const Phase& phase, Adjacency adjacency, Composition& all) {
  if (phase.steps == 0 || phase.sample_rate == 0 || std::isinf(phase.noise_multiplier)) return;
  const auto steps = static_cast<double>(phase.steps);
  if (phase.noise_multiplier == 0) {
    all.reveals_all = true;
    return;
  }
  if (phase.sample_rate == 1 && !phase.truncation) {
    const double s = sensitivity_in_clip_norms(adjacency) *
                     static_cast<double>(phase.records_per_unit) / phase.noise_multiplier;
    all.gaussian_mu_squared += steps * s * s;
    return;
  }
  Mechanism mechanism;
  mechanism.count = steps;
  mechanism.directions = phase_pairs(phase, adjacency);
  all.mechanisms.push_back(std::move(mechanism));
}

Composition composition_of(std::span<const PrivacyEvent> events, Adjacency adjacency) {
  Composition all;
  all.directions = record_shift(adjacency).second == 0 ? 2 : 1;
  for (const PrivacyEvent& event : events) {
    check_event(event, adjacency);
    if (const auto* phase = std::get_if<Phase>(&event)) {
      add_phase(*phase, adjacency, all);
    } else if (const auto* gaussian = std::get_if<GaussianRelease>(&event)) {
      if (gaussian->count == 0 || gaussian->sensitivity_l2 == 0) continue;
      const double ratio = gaussian->sensitivity_l2 / gaussian->noise_stddev;
      all.gaussian_mu_squared += static_cast<double>(gaussian->count) * ratio * ratio;
    } else {
      const auto& release = std::get<ApproximateRelease>(event);
      if (release.count == 0 || (release.epsilon == 0 && release.delta == 0)) continue;
      all.reveals_all |= std::isinf(release.epsilon) || release.delta == 1;
      all.mechanisms.push_back({{}, release, static_cast<double>(release.count)});
    }
  }
  all.reveals_all |= std::isinf(all.gaussian_mu_squared);
  return all;
}

/// What a question about a composition needs besides it: where in the loss it is asked.
struct Question {
  double tilt;       ///< Renyi order - 1 at which the RDP answers it best
  double deviation;  ///< of the tilted total loss
  double ln_delta;   ///< about what delta is in play
};

RdpAccountant rdp_of(std::span<const PrivacyEvent> events, Adjacency adjacency) {
  RdpAccountant rdp(adjacency);
  for (const PrivacyEvent& event : events) rdp.add(event);
  return rdp;
}

/// K(tilt) = tilt RDP(1 + tilt) is ln E_P[e^(tilt loss)]; its second derivative is the variance.
double tilted_deviation(const RdpAccountant& rdp, double tilt) {
  const double step = 0.1 * tilt;
  const auto k = [&](double t) { return t * rdp.rdp(1 + t); };
  const double second = (k(tilt + step) - 2 * k(tilt) + k(tilt - step)) / (step * step);
  return second > 0 && std::isfinite(second) ? std::sqrt(second) : 1;
}

Question question(const RdpAccountant& rdp, double order, double ln_delta) {
  const double tilt = std::clamp(order - 1, 1e-3, 1e5);
  return {tilt, tilted_deviation(rdp, tilt), ln_delta};
}

/// Where outcomes become tails: their mass, over all releases, far below delta.
double tail_sigmas(const Composition& all, double ln_delta) {
  double releases = 1;
  for (const Mechanism& mechanism : all.mechanisms) releases += mechanism.count;
  return std::sqrt(2 * (-ln_delta + std::log(releases) + 36));
}

std::vector<WeightedPair> gaussian_pair(double mu) {
  return {{1.0, {{{0.0}, {mu}}, {{0.0}, {0.0}}}, 1.0}};
}

class Evaluation {
 public:
  Evaluation(const Composition& all, const Question& asked)
      : all_(all), asked_(asked), tails_(tail_sigmas(all, asked.ln_delta)) {
    for (const Mechanism& mechanism : all.mechanisms) {
      releases_ += mechanism.count;
      for (const auto& direction : mechanism.directions) {
        widest_ = std::max(widest_, span(direction));
        for (const WeightedPair& part : direction)
          terms_ = std::max(terms_, static_cast<double>(part.pair.first.centres.size() +
                                                        part.pair.second.centres.size()) /
                                        4);
      }
      if (mechanism.approximate) widest_ = std::max(widest_, 2 * mechanism.approximate->epsilon);
    }
    if (all.gaussian_mu_squared > 0)
      widest_ = std::max(widest_, span(gaussian_pair(std::sqrt(all.gaussian_mu_squared))));
  }

  /// A first grid: its window has about `points` points, or more where the upper end would
  /// otherwise be off by more than `error` (about releases h^2), or where h is coarse for what one
  /// release loses.
  double grid(double points, double error) const {
    const double by_points = std::max(17 * asked_.deviation / points, widest_ / (8 * points));
    const double by_error = std::sqrt(error / releases_);
    const double by_loss = 0.25 * asked_.deviation / std::sqrt(releases_);
    return std::min({by_points, by_error, by_loss});
  }

  /// Work on the widest release, in cells of a mixture of two: what a grid costs, besides its
  /// window.
  double cells(double width) const { return terms_ * widest_ / width; }
  /// What rounding of the losses themselves, 2^-52 of each, can add up to.
  double loss_rounding() const { return 4 * 0x1p-52 * releases_ * widest_; }

  /// Answers: the largest of what `ask` says of each direction; nullopt if the grid is too fine.
  /// `settles(loss, answer)`: whether a direction's answer is certainly no larger.
  template <typename Ask, typename Settles>
  std::optional<PldBracket> bracket(double width, const PldOptions& options, const Ask& ask,
                                    const Settles& settles) const {
    if (!(cells(width) <= static_cast<double>(options.max_points))) return {};
    std::optional<PldBracket> result = one_direction(0, width, options, ask);
    if (!result || options.sketch || all_.directions == 1) return result;
    // The other direction mostly lies far below: a coarse upper end then settles it.
    PldOptions coarse = options;
    coarse.sketch = true;
    const double answer = result->lower;
    const auto glance = one_direction(1, 8 * width, coarse, [&](const ComposedLoss& loss) {
      return settles(loss, answer) ? 0.0 : 1.0;
    });
    if (glance && glance->upper == 0) return result;
    const auto other = one_direction(1, width, options, ask);
    if (!other) return {};
    result->upper = std::max(result->upper, other->upper);
    result->lower = std::max(result->lower, other->lower);
    return result;
  }

 private:
  double span(std::span<const WeightedPair> mechanism) const {
    const LossRange range = loss_range(mechanism, tails_);
    const double length = range.high - range.low;
    return std::isfinite(length) ? length : kInfinity;
  }

  template <typename Ask>
  std::optional<PldBracket> one_direction(int direction, double width, const PldOptions& options,
                                          const Ask& ask) const {
    std::vector<LossMasses> upper, lower;
    cut(direction, width, options.sketch, upper, lower);
    const auto above =
        ComposedLoss::compose(upper, asked_.tilt, options.max_points, /*pessimistic=*/true);
    if (!above) return {};
    PldBracket result{0, ask(*above), width};
    if (options.sketch) return result;
    const auto below =
        ComposedLoss::compose(lower, asked_.tilt, options.max_points, /*pessimistic=*/false);
    if (below) result.lower = ask(*below);
    return result;
  }

  void cut(int direction, double width, bool sketch, std::vector<LossMasses>& upper,
           std::vector<LossMasses>& lower) const {
    const auto add = [&](const LossCells& cells, double count) {
      upper.push_back(pessimistic(cells, count));
      if (!sketch) lower.push_back(optimistic(cells, count));
    };
    for (const Mechanism& mechanism : all_.mechanisms) {
      if (mechanism.approximate) {
        add(cut_into_cells(*mechanism.approximate, width), mechanism.count);
      } else {
        const auto& pairs = mechanism.directions[static_cast<std::size_t>(direction)];
        add(cut_into_cells(pairs, width, tails_), mechanism.count);
      }
    }
    if (all_.gaussian_mu_squared > 0)
      add(cut_into_cells(gaussian_pair(std::sqrt(all_.gaussian_mu_squared)), width, tails_), 1);
  }

  const Composition& all_;
  const Question& asked_;
  double tails_;
  double widest_ = 0, terms_ = 1;
  double releases_ = 1;
};

constexpr double kFirstCells = 1 << 19, kAllCells = 1 << 21;

/// Refines the grid until the bracket is narrow: its width falls with the square of the spacing.
template <typename Ask, typename Settles, typename Tolerance>
PldBracket refine(const Evaluation& evaluation, const PldOptions& options, const Ask& ask,
                  const Settles& settles, const Tolerance& tolerance, double start_error) {
  double width = evaluation.grid(static_cast<double>(options.points), start_error);
  // No grid costs more than this at first, nor all of them together more than a few times as much.
  width = std::max(width, evaluation.cells(options.sketch ? kFirstCells / 4 : kFirstCells));
  double work = 0;
  std::optional<PldBracket> best;
  for (int round = 0; round < 6; ++round) {
    if (best && (work += evaluation.cells(width)) > kAllCells) break;
    const std::optional<PldBracket> found = evaluation.bracket(width, options, ask, settles);
    if (!found) {  // too fine: half way back, or coarser than the first grid
      width = best ? std::sqrt(width * best->grid) : 3 * width;
      continue;
    }
    const double before = best ? best->upper : kInfinity;
    const double finer = best ? width / best->grid : 1;
    if (!best) best = found;
    best->grid = width;
    best->upper = std::min(best->upper, found->upper);
    best->lower = std::max(best->lower, found->lower);
    const double allowed = std::isfinite(best->upper) ? tolerance(*best) : options.tolerance;
    if (options.sketch || !(best->upper - best->lower > allowed)) break;
    // The claim has converged, only its lower end has not.
    if (finer < 0.75 && before - best->upper < allowed / 20) break;
    const double gain = std::sqrt(0.5 * allowed / (best->upper - best->lower));
    width *= std::clamp(gain, 1.0 / 8, 0.7);
  }
  return best.value_or(PldBracket{0, kInfinity, width});
}

/// Rounding of closed forms: relative, and of the two terms whose difference is delta, of size
/// `term` and some |ln term| roundings each.
constexpr double kClosedFormError = 1e-12;
double term_rounding(double ln_term) { return 1e-14 * (1 + std::fabs(ln_term)); }

PldBracket closed_epsilon(double mu, double delta) {
  const double epsilon = gaussian_epsilon(mu, delta);
  // d delta / d epsilon is the size of the terms.
  const double margin =
      epsilon * kClosedFormError + (mu > 0 ? term_rounding(std::log(delta)) : 0.0);
  return {std::max(0.0, epsilon - margin), epsilon > 0 ? epsilon + margin : 0.0, 0};
}

PldBracket closed_delta(double mu, double epsilon) {
  if (!(mu > 0)) return {0, 0, 0};
  const double delta = gaussian_delta(mu, epsilon);
  const double ln_term = ln_normal_cdf(mu / 2 - epsilon / mu);
  const double margin =
      delta * kClosedFormError + std::exp(ln_term) * term_rounding(std::fabs(ln_term) + epsilon);
  return {std::max(0.0, delta - margin), std::min(1.0, delta + margin), 0};
}

}  // namespace

PldBracket epsilon_from_pld(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                            const PldOptions& options) {
  check_delta(delta);
  const Composition all = composition_of(events, adjacency);
  if (all.reveals_all) return {0, kInfinity, 0};
  if (all.mechanisms.empty()) return closed_epsilon(std::sqrt(all.gaussian_mu_squared), delta);
  const RdpAccountant rdp = rdp_of(events, adjacency);
  const EpsilonResult by_rdp = rdp.epsilon(delta);
  const Question asked = question(rdp, by_rdp.order, std::log(delta));
  const Evaluation evaluation(all, asked);
  PldBracket result = refine(
      evaluation, options, [&](const ComposedLoss& loss) { return loss.epsilon(delta); },
      [&](const ComposedLoss& loss, double answer) { return loss.delta(answer) <= delta; },
      [&](const PldBracket& b) {
        return options.tolerance * (std::min(1.0, 5 * b.upper) + b.upper / 20);
      },
      options.tolerance * std::min(1.0, 5 * by_rdp.epsilon));
  result.upper = std::min(result.upper + evaluation.loss_rounding(), by_rdp.epsilon);
  return result;
}

PldBracket delta_from_pld(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency,
                          const PldOptions& options) {
  check_epsilon(epsilon);
  const Composition all = composition_of(events, adjacency);
  if (all.reveals_all) return {0, 1, 0};
  if (all.mechanisms.empty()) return closed_delta(std::sqrt(all.gaussian_mu_squared), epsilon);
  const RdpAccountant rdp = rdp_of(events, adjacency);
  const DeltaResult by_rdp = rdp.delta(epsilon);
  const double ln_delta = std::log(std::max(by_rdp.delta, 1e-290));
  const Question asked = question(rdp, std::max(by_rdp.order, 1.1), ln_delta);
  const Evaluation evaluation(all, asked);
  PldBracket result = refine(
      evaluation, options, [&](const ComposedLoss& loss) { return loss.delta(epsilon); },
      [&](const ComposedLoss& loss, double answer) { return loss.delta(epsilon) <= answer; },
      [&](const PldBracket& b) { return options.tolerance * 5 * b.upper; }, options.tolerance);
  result.upper = std::min(result.upper, by_rdp.delta);
  return result;
}

}  // namespace sfumato
