#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The lattice of orders: order(k) = 1 + 2^(k / 4096). Half an octave separates the orders of the
// coarse scan; the objective is near a e^s + b e^-s in s = ln(order - 1), so its one minimum lies
// between the neighbours of the best coarse order, and half a lattice step loses less than 1e-6 of
// it even where the RDP bends sharply (tiny q).
constexpr int kPerOctave = 4096;
constexpr int kLowest = -8 * kPerOctave;
constexpr int kHighest = 20 * kPerOctave;
constexpr int kCoarse = kPerOctave / 2;
// The RDP of each order is raised by this share, above every rounding and quadrature error.
constexpr double kSafety = 1 + 1e-9;

double order_at(int index) { return 1 + std::exp2(static_cast<double>(index) / kPerOctave); }

struct Minimum {
  double value = kInfinity;
  int index = kLowest;
  void offer(double candidate, int at) {
    if (candidate < value) *this = {candidate, at};
  }
};

/// Golden section between the neighbours of the best coarse order. Whatever it finds is sound,
/// since every order proves a bound of its own.
template <typename Objective>
void refine(const Objective& objective, Minimum& best) {
  constexpr double kGolden = 0.6180339887498949;
  int low = std::max(best.index - kCoarse, kLowest);
  int high = std::min(best.index + kCoarse, kHighest);
  const auto probe = [&](double share) {
    const int index = low + static_cast<int>(std::lround(share * (high - low)));
    const double value = objective(index);
    best.offer(value, index);
    return std::pair(value, index);
  };
  while (high - low > 4) {
    const auto [left_value, left] = probe(1 - kGolden);
    const auto [right_value, right] = probe(kGolden);
    (left_value <= right_value ? high : low) = left_value <= right_value ? right : left;
  }
  for (int index = low + 1; index < high; ++index) best.offer(objective(index), index);
}

}  // namespace

/// RDP of one step with one (q, sigma, m) on the lattice, computed when first asked for.
class RdpAccountant::Curve {
 public:
  Curve(const Phase& phase, Adjacency adjacency) : phase_(phase), adjacency_(adjacency) {}
  double at(int index) {
    const auto [entry, is_new] = values_.try_emplace(index, 0.0);
    if (is_new) entry->second = at_order(order_at(index));
    return entry->second;
  }
  double at_order(double order) const {
    return sampled_gaussian_rdp(phase_.sample_rate, phase_.noise_multiplier, order, adjacency_,
                                phase_.records_per_unit);
  }

 private:
  Phase phase_;
  Adjacency adjacency_;
  std::unordered_map<int, double> values_;
};

RdpAccountant::RdpAccountant(Adjacency adjacency) : adjacency_(adjacency) {}

void RdpAccountant::add(const Phase& phase) {
  check_phase(phase, adjacency_);
  if (phase.steps == 0) return;
  for (Phase& known : phases_) {
    if (known.sample_rate == phase.sample_rate &&
        known.noise_multiplier == phase.noise_multiplier &&
        known.records_per_unit == phase.records_per_unit) {
      // Saturates: a sum that wrapped round would claim far too little.
      if (__builtin_add_overflow(known.steps, phase.steps, &known.steps))
        known.steps = std::numeric_limits<std::int64_t>::max();
      return;
    }
  }
  phases_.push_back(phase);
  curves_.push_back(std::make_shared<Curve>(phase, adjacency_));
}

double RdpAccountant::lattice_rdp(int index) const {
  double total = 0;
  for (std::size_t i = 0; i < phases_.size(); ++i)
    total += static_cast<double>(phases_[i].steps) * curves_[i]->at(index);
  return total * kSafety;
}

double RdpAccountant::rdp(double order) const {
  double total = 0;
  for (std::size_t i = 0; i < phases_.size(); ++i)
    total += static_cast<double>(phases_[i].steps) * curves_[i]->at_order(order);
  return total;
}

EpsilonResult RdpAccountant::epsilon(double delta) const {
  check_delta(delta);
  // Total variation <= sqrt(1 - exp(-KL)) (Bretagnolle, Huber) and KL <= RDP of any order.
  const double smallest = lattice_rdp(kLowest);
  if (smallest == kInfinity) return {kInfinity, 0};
  if (delta * delta + std::expm1(-smallest) > 0) return {0, order_at(kLowest)};
  const auto objective = [&](int index) {
    return epsilon_at_order(lattice_rdp(index), order_at(index), delta);
  };
  Minimum best;
  for (int index = kLowest; index <= kHighest; index += kCoarse) {
    best.offer(objective(index), index);
    // RDP and ln(1 - 1/a) grow with the order a, and ln(delta a) / (a - 1) <= delta always:
    // no later order can beat this.
    const double floor = lattice_rdp(index) + std::log1p(-1 / order_at(index)) - delta;
    if (floor >= best.value) break;
  }
  refine(objective, best);
  if (best.value == kInfinity) return {kInfinity, 0};
  return {std::max(0.0, best.value), order_at(best.index)};
}

DeltaResult RdpAccountant::delta(double epsilon) const {
  check_epsilon(epsilon);
  const double smallest = lattice_rdp(kLowest);
  if (smallest == 0) return {0, order_at(kLowest)};
  const double by_total_variation = std::sqrt(-std::expm1(-smallest));
  const auto objective = [&](int index) {
    return ln_delta_at_order(lattice_rdp(index), order_at(index), epsilon);
  };
  Minimum best;
  for (int index = kLowest; index <= kHighest; index += kCoarse) {
    best.offer(objective(index), index);
    // With c = rdp - epsilon + ln(1 - 1/a) the bound at later orders is at least that of
    // (a - 1) c - ln(a), which grows once c > 1/a.
    const double order = order_at(index);
    const double c = lattice_rdp(index) - epsilon + std::log1p(-1 / order);
    if (c > 1 / order && objective(index) >= std::min(best.value, 0.0)) break;
  }
  refine(objective, best);
  const double by_order = std::exp(best.value) * kSafety;
  if (std::min(by_order, by_total_variation) >= 1) return {1, 0};
  if (by_total_variation <= by_order) return {by_total_variation, order_at(kLowest)};
  return {by_order, order_at(best.index)};
}

}  // namespace sfumato
