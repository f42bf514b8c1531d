#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/event.h"

namespace sfumato {

/// How hard the accountant works. The claim (upper) is valid whatever is asked for; more work
/// brings it nearer to the truth and the lower end nearer to the claim.
struct PldOptions {
  /// The grid is refined until upper - lower is at most this (less where epsilon is below 0.2, five
  /// per cent more for each unit of epsilon), or 0.1 % from the second grid on where that takes
  /// transforms of all its points.
  double tolerance = 2e-4;
  /// About so many points has the first of three grids, each of at most four times as many ...
  std::int64_t points = 1 << 17;
  /// ... and none more than this.
  std::int64_t max_points = 1 << 22;
  /// Only the upper end of the first direction, P against Q, which is the larger one for steps
  /// alone, whatever the RDP says; for a search that ends with a full computation.
  bool sketch = false;
  bool operator==(const PldOptions&) const = default;
};

/// The exact value lies in [lower, upper] and the claim is upper. `grid`: spacing of the losses in
/// nats at its finest; 0 where the value has a closed form or is the RDP's.
struct PldBracket {
  double lower;
  double upper;
  double grid;
};

/// Smallest epsilon at `delta` of the composed events, by privacy loss distributions:
///   - connect-the-dots (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022): the outcomes with a
///     loss between two grid points are split on these two such that their masses under P and
///     under Q stay; the split mechanism is more revealing, hence upper;
///   - the outcomes between two grid points are merged into one, with shares of others that bring
///     its loss to a grid point: post-processing, hence lower;
///   - both directions (P, Q) and (Q, P) composed to the end, by one Fourier transform of the
///     exponentially tilted masses, so that rounding is relative to delta and not to 1. Tails are
///     bounded by Chernoff and charged to infinite loss, rounding by its L2 norm.
/// Never above the RDP accountant's value where it has one. upper is infinite where a mechanism
/// reveals a unit with probability delta or more. Errors as check_event and check_delta.
PldBracket epsilon_from_pld(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                            const PldOptions& options = {});
/// Smallest epsilon at which delta, the larger one of both directions, lies under a ceiling that
/// rises with epsilon from 0 to more than 1. upper truly satisfies that; `guess` decides tightness
/// alone, and lower steers the work and proves nothing. Errors as check_event.
PldBracket epsilon_under_ceiling(std::span<const PrivacyEvent> events,
                                 const std::function<double(double)>& ceiling, double guess,
                                 Adjacency adjacency, const PldOptions& options = {});
/// Smallest delta at `epsilon`; the tolerance is then relative.
PldBracket delta_from_pld(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency,
                          const PldOptions& options = {});

}  // namespace sfumato
