#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sfumato/privacy/adjacency.h"

namespace sfumato {

/// `steps` equal steps of the Poisson-subsampled Gaussian mechanism: every record joins a step by
/// itself with probability `sample_rate`, is clipped to norm C, and N(0, (noise_multiplier C)^2) is
/// added to each coordinate of the sum. A full-batch release is sample_rate 1.
struct Phase {
  double sample_rate;
  double noise_multiplier;
  std::int64_t steps;
  std::int64_t records_per_unit = 1;  ///< most records that one unit of privacy (a user) owns
};

/// UsageError: sample_rate outside [0, 1], noise_multiplier negative or NaN, steps negative,
/// records_per_unit outside 1 ... 100000. PrivacyError: replace_one with records_per_unit > 1.
void check_phase(const Phase& phase, Adjacency adjacency);
/// "q:sigma:steps", for example "0.01:1.1:1000", as the command line takes a phase; UsageError
/// shows the form.
Phase parse_phase(std::string_view text, std::int64_t records_per_unit = 1);
/// UsageError unless 0 < delta < 1; unless 0 <= epsilon < infinity.
void check_delta(double delta);
void check_epsilon(double epsilon);

/// What a set of phases costs. `order` is the Renyi order that gave it; 0 where none did (infinite
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

/// Adds up phases and converts. Orders are searched on a lattice even in ln(order - 1), from
/// 1.004 to 10^6: coarse scan, then golden section; the loss against the best real order is below
/// 1e-6 relative. RDP values per (q, sigma, m) are kept, so asking again after each step of a
/// training run costs microseconds, and copies share them (not to be used from two threads).
/// Results are never smaller than what the lattice proves: RDP is raised by 1e-9 relative.
class RdpAccountant {
 public:
  explicit RdpAccountant(Adjacency adjacency);
  /// Errors as check_phase.
  void add(const Phase& phase);
  /// 0 where the RDP proves (0, delta); infinity (order 0) where a phase has no noise.
  EpsilonResult epsilon(double delta) const;
  /// The smallest delta for `epsilon` that the RDP proves, at most 1.
  DeltaResult delta(double epsilon) const;
  /// RDP of everything added, at any order > 1.
  double rdp(double order) const;
  const std::vector<Phase>& phases() const { return phases_; }

 private:
  class Curve;
  double lattice_rdp(int index) const;
  Adjacency adjacency_;
  std::vector<Phase> phases_;  // equal (q, sigma, m) merged
  std::vector<std::shared_ptr<Curve>> curves_;
};

EpsilonResult epsilon_from_rdp(std::span<const Phase> phases, double delta, Adjacency adjacency);
DeltaResult delta_from_rdp(std::span<const Phase> phases, double epsilon, Adjacency adjacency);

}  // namespace sfumato
