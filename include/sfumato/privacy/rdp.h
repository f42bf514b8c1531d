#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sfumato/privacy/event.h"

namespace sfumato {

/// What a set of events costs. `order` is the Renyi order that gave it; 0 where none did (infinite
/// epsilon).
struct EpsilonResult {
  double epsilon;
  double order;
};

struct DeltaResult {
  double delta;
  double order;  ///< 0 where no order gave it (delta 1)
};

/// Renyi differential privacy of one step at any real order > 1 (infinity allowed), in nats.
/// Mironov, Talwar, Zhang 2019 section 3.3 for add-remove and zero-out; dominating_pair.h has the
/// pairs and the quadrature. q = 0 or infinite noise: 0; no noise or infinite order: infinity;
/// q = 1: order s^2 / (2 sigma^2) with s the sensitivity in clip norms. Errors as check_phase.
double sampled_gaussian_rdp(double sample_rate, double noise_multiplier, double order,
                            Adjacency adjacency, std::int64_t records_per_unit = 1);

/// The same for add-remove, one record and an integer order >= 2, as the binomial sum with its
/// first two terms taken out exactly:
///   A - 1 = sum_{i=2..order} C(order,i) q^i (1-q)^(order-i) expm1((i^2-i) / (2 sigma^2)).
/// Requires 0 < sample_rate < 1, 0 < noise_multiplier < infinity.
double sampled_gaussian_rdp_at_integer(double sample_rate, double noise_multiplier,
                                       std::int64_t order);

/// (epsilon, delta) from RDP at one order: Balle et al. 2020 theorem 21 = Canonne, Kamath, Steinke
/// 2020 proposition 12: epsilon = rdp + ln(1 - 1/order) - ln(delta order) / (order - 1). Not
/// clipped.
double epsilon_at_order(double rdp, double order, double delta);
/// ln(delta) from the same statement: (order-1) (rdp - epsilon + ln(1 - 1/order)) - ln(order).
double ln_delta_at_order(double rdp, double order, double epsilon);

/// The largest ln((p - delta) / q) over all (p, q) = (P(S), Q(S)) that a Renyi divergence
/// D_order(P || Q) <= rdp permits, that is under p^a q^(1-a) + (1-p)^a (1-q)^(1-a) <= e^((a-1)
/// rdp): the exact conversion at one order (Asoodeh, Liao, Calmon, Kosut, Sankar 2021, "Three
/// variants of differential privacy"), never above epsilon_at_order and much below it where rdp is
/// small. At least 0.
double exact_epsilon_at_order(double rdp, double order, double delta);
/// The same for delta: the largest p - e^epsilon q.
double exact_delta_at_order(double rdp, double order, double epsilon);

/// Adds up events and converts. Orders are searched evenly in ln(order - 1), from 1.004 to 10^6:
/// coarse scan and golden section on a lattice, then between its orders; the loss against the best
/// real order is below 1e-6 relative. RDP values per (q, sigma, m) are kept on the lattice, so
/// asking again after each step of a training run costs a millisecond, and copies share them (not
/// to be used from two threads). Results are never smaller than what an order proves: RDP is raised
/// by 1e-9 relative.
class RdpAccountant {
 public:
  explicit RdpAccountant(Adjacency adjacency);
  /// Errors as check_event.
  void add(const PrivacyEvent& event);
  /// 0 where the RDP proves (0, delta); infinity (order 0) where a phase has no noise.
  EpsilonResult epsilon(double delta) const;
  /// Of a selection whose law has ln(gamma) = ln_gamma, E[K] = mean and that eta, of runs that each
  /// cost what was added (Papernot, Steinke 2022, theorem 2): for any order b,
  ///   RDP'(a) = RDP(a) + (1 + eta) ((1 - 1/b) RDP(b) - ln(gamma) / b) + ln(mean) / (a - 1),
  /// of which the last term turns delta into delta / mean in the conversion. Infinity where an
  /// approximate release may fail.
  EpsilonResult epsilon_of_selection(double delta, double eta, double ln_gamma, double mean) const;
  /// The smallest delta for `epsilon` that the RDP proves, at most 1.
  DeltaResult delta(double epsilon) const;
  /// RDP of everything added, at any order > 1.
  double rdp(double order) const;

 private:
  class Curve;
  void add_steps(const PrivacyEvent& one, double steps);
  double raised_rdp(double octave) const;
  double delta_left(double delta) const;
  Adjacency adjacency_;
  std::vector<std::shared_ptr<Curve>> curves_;  // of one release each; equal ones merged
  std::vector<double> counts_;
  double ln_no_failure_ = 0;  ///< sum of ln(1 - delta_0) of approximate releases
};

EpsilonResult epsilon_from_rdp(std::span<const PrivacyEvent> events, double delta,
                               Adjacency adjacency);
DeltaResult delta_from_rdp(std::span<const PrivacyEvent> events, double epsilon,
                           Adjacency adjacency);

}  // namespace sfumato
