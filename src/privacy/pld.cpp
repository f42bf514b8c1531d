#include "sfumato/privacy/pld.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "composed_loss.h"
#include "loss_grid.h"
#include "privacy_profile.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

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

/// Where the outcomes of one release become tails: over all releases they have this share of delta.
constexpr double kTailShare = 1e-7;
double tail_mass(const Composition& all, double delta) {
  double releases = 1;
  for (const Mechanism& mechanism : all.mechanisms) releases += mechanism.count;
  return std::max(kTailShare * delta / releases, 1e-300);
}

std::vector<WeightedPair> gaussian_pair(double mu) {
  return {{1.0, {{{0.0}, {mu}}, {{0.0}, {0.0}}}, 1.0}};
}

// Evaluations of terms of densities that a first cut of one mechanism may take.
constexpr double kMostCutting = 3e7;
// A bracket this narrow, relative to the claim, is not worth transforms of the finest of three
// grids.
constexpr double kNarrowEnough = 1e-3;

/// Answers a question about a composition. `Ask`: ComposedLoss to epsilon or delta. `Settles`:
/// whether a composed loss certainly answers no more than a number.
template <typename Ask, typename Settles>
class Evaluation {
 public:
  Evaluation(const Composition& all, const LossQuestion& question, double delta,
             const PldOptions& options, Ask ask, Settles settles)
      : all_(all),
        question_(question),
        options_(options),
        ask_(std::move(ask)),
        settles_(std::move(settles)),
        tails_(tail_mass(all, delta)) {}

  /// The larger answer of both directions; nullopt if the noise is so small that cells would take
  /// too long.
  std::optional<PldBracket> bracket() {
    std::optional<PldBracket> result = one_direction(0);
    if (!result || options_.sketch || all_.directions == 1) return result;
    // The other direction mostly lies far below: a coarse upper end then settles it.
    if (settled_by_a_glance(1, result->lower)) return result;
    const std::optional<PldBracket> other = one_direction(1);
    if (!other) return {};
    result->upper = std::max(result->upper, other->upper);
    result->lower = std::max(result->lower, other->lower);
    return result;
  }

  /// What rounding of the losses themselves, 2^-52 of each, can add up to.
  double loss_rounding() const { return loss_rounding_; }

 private:
  std::optional<LossGrid> grid(int direction) {
    std::vector<LossGrid::Kind> kinds;
    double releases = 1, longest = 0;
    const auto add = [&](std::optional<LossMesh> mesh, double count) {
      if (!mesh) return false;
      longest = std::max(longest, mesh->length());
      releases += count;
      kinds.push_back({std::move(*mesh), count});
      return true;
    };
    for (const Mechanism& mechanism : all_.mechanisms) {
      if (!add(mechanism.approximate
                   ? LossMesh::of(*mechanism.approximate)
                   : LossMesh::of(mechanism.directions[static_cast<std::size_t>(direction)], tails_,
                                  kMostCutting),
               mechanism.count))
        return {};
    }
    if (all_.gaussian_mu_squared > 0 &&
        !add(LossMesh::of(gaussian_pair(std::sqrt(all_.gaussian_mu_squared)), tails_, kMostCutting),
             1))
      return {};
    loss_rounding_ = std::max(loss_rounding_, 4 * 0x1p-52 * releases * longest);
    return LossGrid(std::move(kinds), question_, options_.tolerance);
  }

  std::optional<ComposedLoss> composed(const LossGrid& cells, bool pessimistic) const {
    return ComposedLoss::compose(pessimistic ? cells.pessimistic() : cells.optimistic(),
                                 cells.width(), cells.tilt(), options_.max_points, pessimistic);
  }

  bool settled_by_a_glance(int direction, double answer) {
    std::optional<LossGrid> cells = grid(direction);
    if (!cells) return false;
    cells->refine(30, static_cast<double>(options_.points) / 8);
    const std::optional<ComposedLoss> above = composed(*cells, true);
    return above && settles_(*above, answer);
  }

  double allowed(double claim) const {
    if (!question_.delta) return options_.tolerance * 5 * claim;
    return options_.tolerance * (std::min(1.0, 5 * claim) + claim / 20);
  }

  void aim(LossGrid& cells, double answer) const {
    if (!std::isfinite(answer)) return;
    cells.aim(question_.delta ? answer : question_.epsilon, question_.delta.value_or(answer));
  }

  std::optional<PldBracket> one_direction(int direction) {
    std::optional<LossGrid> cells = grid(direction);
    if (!cells) return {};
    double share = options_.sketch ? 1 : 0.02;
    auto points = static_cast<double>(options_.points);
    std::optional<PldBracket> best;
    for (int round = 0; round < 3; ++round) {
      cells->refine(share, points);
      const std::optional<ComposedLoss> above = composed(*cells, true);
      if (!above) break;
      const double upper = ask_(*above);
      if (!best) best = PldBracket{0, upper, 0};
      best->upper = std::min(best->upper, upper);
      best->grid = cells->width();
      if (options_.sketch) break;
      if (const std::optional<ComposedLoss> below = composed(*cells, false))
        best->lower = std::max(best->lower, ask_(*below));
      const double gap = best->upper - best->lower, wanted = allowed(best->upper);
      if (!(gap > wanted)) break;
      if (round > 0 && gap <= kNarrowEnough * best->upper && !above->by_harmonics()) break;
      if (round == 0) aim(*cells, upper);
      share *= std::clamp(0.5 * wanted / gap, 1.0 / 64, 1.0);
      points = std::min(4 * points, static_cast<double>(options_.max_points) / 2);
    }
    return best;
  }

  const Composition& all_;
  const LossQuestion question_;
  const PldOptions& options_;
  Ask ask_;
  Settles settles_;
  double tails_;
  double loss_rounding_ = 0;
};

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

/// What was asked lately, and the answers: a card, the pages beside it and whoever verifies them
/// ask the same of one mechanism. Questions are compared field by field, and a number that is none
/// equals nothing, so that what is refused once is refused again.
class RecentAnswers {
 public:
  struct Question {
    std::vector<PrivacyEvent> events;
    double at;  ///< delta or epsilon
    Adjacency adjacency;
    PldOptions options;
    bool operator==(const Question&) const = default;
  };
  using Answered = std::pair<Question, PldBracket>;

  template <typename Work>
  PldBracket answer(Question question, const Work& work) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::ranges::find(recent_, question, &Answered::first);
      if (found != recent_.end()) {
        std::rotate(found, found + 1, recent_.end());  // the newest is last
        return recent_.back().second;
      }
    }
    const PldBracket answer = work();
    const std::lock_guard lock(mutex_);
    if (recent_.size() == kMost) recent_.pop_front();
    recent_.emplace_back(std::move(question), answer);
    return answer;
  }

 private:
  static constexpr std::size_t kMost = 64;
  std::mutex mutex_;
  std::deque<Answered> recent_;
};

/// Above every crossing of a ceiling that reaches 1.
double where_one(const std::function<double(double)>& ceiling) {
  double epsilon = 1;
  while (ceiling(epsilon) < 1) epsilon *= 2;
  return epsilon;
}

PldBracket compute_epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                           const PldOptions& options) {
  const Composition all = composition_of(events, adjacency);
  if (all.reveals_all) return {0, kInfinity, 0};
  if (all.mechanisms.empty()) return closed_epsilon(std::sqrt(all.gaussian_mu_squared), delta);
  Evaluation evaluation(
      all, {.delta = delta}, delta, options,
      [&](const ComposedLoss& loss) { return loss.epsilon(delta); },
      [&](const ComposedLoss& loss, double answer) { return loss.delta(answer) <= delta; });
  PldBracket result = evaluation.bracket().value_or(PldBracket{0, kInfinity, 0});
  result.upper += evaluation.loss_rounding();
  if (!options.sketch || std::isinf(result.upper))
    result.upper = std::min(result.upper, epsilon_from_rdp(events, delta, adjacency).epsilon);
  result.lower = std::max(0.0, result.lower - evaluation.loss_rounding());
  return result;
}

PldBracket compute_delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency,
                         const PldOptions& options) {
  const Composition all = composition_of(events, adjacency);
  if (all.reveals_all) return {0, 1, 0};
  if (all.mechanisms.empty()) return closed_delta(std::sqrt(all.gaussian_mu_squared), epsilon);
  const double by_rdp = delta_from_rdp(events, epsilon, adjacency).delta;
  PldBracket result{0, by_rdp, 0};
  // The tails are chosen by delta: again, where it comes out far below what the RDP makes of it.
  for (int round = 0; round < 3; ++round) {
    const double about = result.upper;
    Evaluation evaluation(
        all, {.delta = std::nullopt, .epsilon = epsilon, .about_delta = about}, about, options,
        [&](const ComposedLoss& loss) { return loss.delta(epsilon); },
        [&](const ComposedLoss& loss, double answer) { return loss.delta(epsilon) <= answer; });
    const std::optional<PldBracket> found = evaluation.bracket();
    if (!found) break;
    result = {std::max(result.lower, found->lower), std::min(about, found->upper), found->grid};
    if (result.upper > 0.01 * about) break;
  }
  return result;
}

}  // namespace

PldBracket epsilon_under_ceiling(std::span<const PrivacyEvent> events,
                                 const std::function<double(double)>& ceiling, double guess,
                                 Adjacency adjacency, const PldOptions& options) {
  const Composition all = composition_of(events, adjacency);
  const double certain = where_one(ceiling);
  if (all.reveals_all) return {0, certain, 0};
  if (all.mechanisms.empty()) {
    const double mu = std::sqrt(all.gaussian_mu_squared);
    const auto delta = [&](double at) { return closed_delta(mu, at).upper; };
    return {0, crossing(delta, ceiling, guess, certain), 0};
  }
  PldBracket result{0, certain, 0};
  // Tails and tilt are chosen by the ceiling at the guess: again, where that is far off.
  for (int round = 0; round < 3; ++round) {
    const double about = std::min(0.5, ceiling(guess));
    Evaluation evaluation(
        all, {.delta = about}, about, options,
        [&](const ComposedLoss& loss) {
          const auto delta = [&](double at) { return loss.delta(at); };
          return guess = crossing(delta, ceiling, guess, certain, 1e-3 * options.tolerance);
        },
        [&](const ComposedLoss& loss, double answer) {
          return loss.delta(answer) <= ceiling(answer);
        });
    const std::optional<PldBracket> found = evaluation.bracket();
    if (!found) break;
    const double upper = found->upper + evaluation.loss_rounding();
    if (upper < result.upper) result = {found->lower, upper, found->grid};
    guess = result.upper;
    const double off = std::log(ceiling(guess) / about);
    if (std::fabs(off) < 2 || about == 0.5) break;
  }
  return result;
}

PldBracket epsilon_from_pld(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                            const PldOptions& options) {
  check_delta(delta);
  static RecentAnswers recent;
  return recent.answer({{events.begin(), events.end()}, delta, adjacency, options},
                       [&] { return compute_epsilon(events, delta, adjacency, options); });
}

PldBracket delta_from_pld(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency,
                          const PldOptions& options) {
  check_epsilon(epsilon);
  static RecentAnswers recent;
  return recent.answer({{events.begin(), events.end()}, epsilon, adjacency, options},
                       [&] { return compute_delta(events, epsilon, adjacency, options); });
}

}  // namespace sfumato
