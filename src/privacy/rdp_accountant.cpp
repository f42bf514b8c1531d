#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "phase_pairs.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

// Orders are 1 + 2^octave. RDP is kept for those on a lattice of octaves, k / 4096. Half an octave
// separates the orders of the coarse scan; the objective is near a e^s + b e^-s in
// s = ln(order - 1), so its one minimum lies between the neighbours of the best coarse order. Where
// the RDP bends sharply (tiny q) that minimum is a kink, of which even a step of the lattice loses
// 1e-4: the end of a search goes between the lattice's orders.
constexpr int kPerOctave = 4096;
constexpr int kLowest = -8 * kPerOctave;
constexpr int kHighest = 20 * kPerOctave;
constexpr int kCoarse = kPerOctave / 2;
constexpr int kFine = kPerOctave / 32;
// A kink loses as much of its height as of the width of the search, in octaves times ln 2.
constexpr double kWidth = 5e-7;
// A minimum that is no kink is found where two orders so close have almost the same value.
constexpr int kFlat = 4;
constexpr double kLevel = 1e-8;
constexpr double kGolden = 0.6180339887498949;
// The RDP of each order is raised by this share, above every rounding and quadrature error.
constexpr double kSafety = 1 + 1e-9;

double octave_of(int index) { return static_cast<double>(index) / kPerOctave; }
double order_at(double octave) { return 1 + std::exp2(octave); }

struct Minimum {
  double value = kInfinity;
  double octave = octave_of(kLowest);
  void offer(double candidate, double at) {
    if (candidate < value) *this = {candidate, at};
  }
};

/// Golden section on the lattice between the neighbours of the best coarse order. Whatever it finds
/// is sound, since every order proves a bound of its own.
template <typename Objective>
void refine(const Objective& objective, Minimum& best) {
  const auto middle = static_cast<int>(std::lround(best.octave * kPerOctave));
  int low = std::max(middle - kCoarse, kLowest);
  int high = std::min(middle + kCoarse, kHighest);
  const auto probe = [&](double share) {
    const int index = low + static_cast<int>(std::lround(share * (high - low)));
    const double value = objective(octave_of(index));
    best.offer(value, octave_of(index));
    return std::pair(value, index);
  };
  while (high - low > 4) {
    const auto [left_value, left] = probe(1 - kGolden);
    const auto [right_value, right] = probe(kGolden);
    (left_value <= right_value ? high : low) = left_value <= right_value ? right : left;
  }
  for (int index = low + 1; index < high; ++index)
    best.offer(objective(octave_of(index)), octave_of(index));
}

/// The same over all real orders within `reach` of the best one, whose neighbours at that distance
/// are no better.
template <typename Objective>
void polish(const Objective& objective, double reach, Minimum& best) {
  double low = std::max(best.octave - reach, octave_of(kLowest));
  double high = std::min(best.octave + reach, octave_of(kHighest));
  const auto probe = [&](double octave) {
    const double value = objective(octave);
    best.offer(value, octave);
    return value;
  };
  double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
  double left_value = probe(left), right_value = probe(right);
  const auto is_flat = [&] {
    return high - low < octave_of(kFlat) &&
           std::max(left_value, right_value) - best.value <= kLevel * std::fabs(best.value);
  };
  while (high - low > kWidth && !is_flat()) {
    if (left_value <= right_value) {
      high = std::exchange(right, left);
      right_value = left_value;
      left_value = probe(left = high - kGolden * (high - low));
    } else {
      low = std::exchange(left, right);
      left_value = right_value;
      right_value = probe(right = low + kGolden * (high - low));
    }
  }
}

/// The best order of an objective that costs some 10 microseconds, from one near by: octaves first,
/// real orders last.
template <typename Objective>
void sharpen(const Objective& objective, Minimum& best) {
  const auto is_order = [](double octave) {
    return octave >= octave_of(kLowest) && octave <= octave_of(kHighest);
  };
  for (const int step : {kPerOctave, kPerOctave / 4, kFine}) {
    for (const double stride : {-octave_of(step), octave_of(step)}) {
      for (double octave = best.octave + stride; is_order(octave); octave += stride) {
        const double value = objective(octave);
        if (!(value < best.value)) break;
        best.offer(value, octave);
      }
    }
    best.offer(objective(best.octave), best.octave);
  }
  polish(objective, octave_of(kFine), best);
}

enum class SearchTo { kLattice, kRealOrders };

/// The best order for epsilon at delta by the conversion of epsilon_at_order.
template <typename Rdp>
Minimum converted(const Rdp& rdp, double delta, SearchTo to) {
  const auto objective = [&](double octave) {
    return epsilon_at_order(rdp(octave), order_at(octave), delta);
  };
  Minimum best;
  for (int index = kLowest; index <= kHighest; index += kCoarse) {
    const double octave = octave_of(index);
    best.offer(objective(octave), octave);
    // RDP and ln(1 - 1/a) grow with the order a, and ln(delta a) / (a - 1) <= delta always:
    // no later order can beat this.
    const double floor = rdp(octave) + std::log1p(-1 / order_at(octave)) - delta;
    if (floor >= best.value) break;
  }
  refine(objective, best);
  if (to == SearchTo::kRealOrders) polish(objective, octave_of(1), best);
  return best;
}

double gaussian_rdp(const GaussianRelease& release, double order) {
  if (release.sensitivity_l2 == 0 || std::isinf(release.noise_stddev)) return 0;
  const double ratio = release.sensitivity_l2 / release.noise_stddev;
  return order * ratio * ratio / 2;
}

/// A public coin chooses the pair: E[(P/Q)^a] is the mean of the pairs'.
double truncated_rdp(const Phase& phase, double order, Adjacency adjacency) {
  if (phase.sample_rate == 0 || std::isinf(phase.noise_multiplier)) return 0;
  if (phase.noise_multiplier == 0 || std::isinf(order)) return kInfinity;
  double worst = 0;
  for (const auto& direction : phase_pairs(phase, adjacency)) {
    double sum = 0;  // of expm1, so that tiny divergences keep their digits
    for (const WeightedPair& part : direction) {
      const double ln_a = (order - 1) * renyi_divergence(part.pair, part.sigma, order);
      sum += part.weight * std::expm1(ln_a);
    }
    worst = std::max(worst, std::log1p(sum) / (order - 1));
  }
  return worst;
}

/// Every epsilon-DP mechanism is a function of randomised response with the same epsilon (Kairouz,
/// Oh, Viswanath 2015): ln[(e^(a e) + e^((1-a) e)) / (1 + e^e)] / (a - 1).
double randomised_response_rdp(double epsilon, double order) {
  if (epsilon == 0) return 0;
  if (std::isinf(epsilon)) return kInfinity;
  return (epsilon * (order - 1) + std::log1p(std::exp(epsilon * (1 - 2 * order))) -
          std::log1p(std::exp(-epsilon))) /
         (order - 1);
}

}  // namespace

/// RDP of one release of an event, on the lattice computed once, when first asked for.
class RdpAccountant::Curve {
 public:
  Curve(const PrivacyEvent& one, Adjacency adjacency) : one_(one), adjacency_(adjacency) {}
  double at(double octave) {
    const double place = octave * kPerOctave;
    if (place != std::floor(place)) return at_order(order_at(octave));
    const auto [entry, is_new] = values_.try_emplace(static_cast<int>(place), 0.0);
    if (is_new) entry->second = at_order(order_at(octave));
    return entry->second;
  }
  double at_order(double order) const {
    const auto* phase = std::get_if<Phase>(&one_);
    if (phase != nullptr && phase->truncation) return truncated_rdp(*phase, order, adjacency_);
    if (phase != nullptr)
      return sampled_gaussian_rdp(phase->sample_rate, phase->noise_multiplier, order, adjacency_,
                                  phase->records_per_unit);
    if (const auto* gaussian = std::get_if<GaussianRelease>(&one_))
      return gaussian_rdp(*gaussian, order);
    return randomised_response_rdp(std::get<ApproximateRelease>(one_).epsilon, order);
  }
  bool same(const PrivacyEvent& one) const {
    return nlohmann::json(to_json(one_)) == nlohmann::json(to_json(one));
  }

 private:
  PrivacyEvent one_;
  Adjacency adjacency_;
  std::unordered_map<int, double> values_;
};

RdpAccountant::RdpAccountant(Adjacency adjacency) : adjacency_(adjacency) {}

void RdpAccountant::add(const PrivacyEvent& event) {
  check_event(event, adjacency_);
  PrivacyEvent one = event;
  std::int64_t count = 0;
  if (auto* phase = std::get_if<Phase>(&one)) {
    count = std::exchange(phase->steps, 1);
  } else if (auto* gaussian = std::get_if<GaussianRelease>(&one)) {
    count = std::exchange(gaussian->count, 1);
  } else {
    auto& approximate = std::get<ApproximateRelease>(one);
    count = std::exchange(approximate.count, 1);
    if (count > 0) ln_no_failure_ += static_cast<double>(count) * std::log1p(-approximate.delta);
    approximate.delta = 0;
  }
  if (count > 0) add_steps(one, static_cast<double>(count));
}

void RdpAccountant::add_steps(const PrivacyEvent& one, double steps) {
  for (std::size_t i = 0; i < curves_.size(); ++i) {
    if (!curves_[i]->same(one)) continue;
    counts_[i] += steps;
    return;
  }
  curves_.push_back(std::make_shared<Curve>(one, adjacency_));
  counts_.push_back(steps);
}

/// What approximate releases leave of delta: 1 - (1 - delta) / prod (1 - delta_0); negative where
/// they use up more than all of it.
double RdpAccountant::delta_left(double delta) const {
  return -std::expm1(std::log1p(-delta) - ln_no_failure_);
}

double RdpAccountant::raised_rdp(double octave) const {
  double total = 0;
  for (std::size_t i = 0; i < curves_.size(); ++i) total += counts_[i] * curves_[i]->at(octave);
  return total * kSafety;
}

double RdpAccountant::rdp(double order) const {
  double total = 0;
  for (std::size_t i = 0; i < curves_.size(); ++i)
    total += counts_[i] * curves_[i]->at_order(order);
  return total;
}

EpsilonResult RdpAccountant::epsilon(double target) const {
  check_delta(target);
  const double delta = delta_left(target);
  if (!(delta > 0)) return {kInfinity, 0};
  // Total variation <= sqrt(1 - exp(-KL)) (Bretagnolle, Huber) and KL <= RDP of any order.
  const double smallest = raised_rdp(octave_of(kLowest));
  if (smallest == kInfinity) return {kInfinity, 0};
  if (delta * delta + std::expm1(-smallest) > 0) return {0, order_at(octave_of(kLowest))};
  const auto rdp = [this](double octave) { return raised_rdp(octave); };
  Minimum best = converted(rdp, delta, SearchTo::kLattice);
  if (best.value == kInfinity) return {kInfinity, 0};
  // The exact conversion is dearer and has its best order near by.
  const auto exactly = [&](double octave) {
    return exact_epsilon_at_order(rdp(octave), order_at(octave), delta);
  };
  sharpen(exactly, best);
  return {std::max(0.0, best.value), order_at(best.octave)};
}

EpsilonResult RdpAccountant::epsilon_of_selection(double delta, double eta, double ln_gamma,
                                                  double mean) const {
  check_delta(delta);
  if (ln_no_failure_ < 0) return {kInfinity, 0};
  const auto rdp = [this](double octave) { return raised_rdp(octave); };
  const auto choosing = [&](double octave) {
    const double order = order_at(octave);
    return (1 - 1 / order) * rdp(octave) - ln_gamma / order;
  };
  Minimum choice;
  for (int index = kLowest; index <= kHighest; index += kCoarse) {
    const double octave = octave_of(index);
    choice.offer(choosing(octave), octave);
    // The first term grows with the order.
    if ((1 - 1 / order_at(octave)) * rdp(octave) >= choice.value) break;
  }
  refine(choosing, choice);
  polish(choosing, octave_of(1), choice);
  const Minimum best = converted(rdp, delta / mean, SearchTo::kRealOrders);
  if (best.value == kInfinity || choice.value == kInfinity) return {kInfinity, 0};
  const double epsilon = std::max(0.0, best.value + (1 + eta) * choice.value);
  return {epsilon * kSafety, order_at(best.octave)};
}

DeltaResult RdpAccountant::delta(double epsilon) const {
  check_epsilon(epsilon);
  const double smallest = raised_rdp(octave_of(kLowest));
  const double failure = -std::expm1(ln_no_failure_);
  if (smallest == 0) return {failure, order_at(octave_of(kLowest))};
  const double by_total_variation = std::sqrt(-std::expm1(-smallest));
  const auto objective = [&](double octave) {
    return ln_delta_at_order(raised_rdp(octave), order_at(octave), epsilon);
  };
  Minimum best;
  for (int index = kLowest; index <= kHighest; index += kCoarse) {
    const double octave = octave_of(index);
    best.offer(objective(octave), octave);
    // With c = rdp - epsilon + ln(1 - 1/a) the bound at later orders is at least that of
    // (a - 1) c - ln(a), which grows once c > 1/a.
    const double order = order_at(octave);
    const double c = raised_rdp(octave) - epsilon + std::log1p(-1 / order);
    if (c > 1 / order && objective(octave) >= std::min(best.value, 0.0)) break;
  }
  refine(objective, best);
  Minimum exact{std::exp(best.value), best.octave};
  sharpen(
      [&](double octave) {
        return exact_delta_at_order(raised_rdp(octave), order_at(octave), epsilon);
      },
      exact);
  const double smaller = std::min(exact.value * kSafety, by_total_variation);
  const double delta = failure + (1 - failure) * smaller;
  if (delta >= 1) return {1, 0};
  return {delta, order_at(by_total_variation <= exact.value ? octave_of(kLowest) : exact.octave)};
}

}  // namespace sfumato
