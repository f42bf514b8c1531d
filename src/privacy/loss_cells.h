#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "phase_pairs.h"
#include "sfumato/privacy/event.h"

namespace sfumato {

/// The outcomes whose privacy loss ln(P/Q) lies in [k h, (k+1) h).
struct LossCell {
  double mass = 0;    ///< P(cell)
  double excess = 0;  ///< P - e^(k h) Q, >= 0
  double lack = 0;    ///< e^((k+1) h) Q - P, >= 0
};

/// One release of one direction of a mechanism, cut into cells of equal width in privacy loss.
struct LossCells {
  double width = 0;        ///< h, nats
  std::int64_t first = 0;  ///< k of cells[0]
  std::vector<LossCell> cells;
  double tail_above = 0;   ///< P mass of outcomes with a loss above all cells
  double tail_below = 0;   ///< and below all of them
  double at_infinity = 0;  ///< P mass where Q has none
};

/// Outcomes outside `tail_sigmas` standard deviations of every centre count as tails.
LossCells cut_into_cells(std::span<const WeightedPair> mechanism, double width, double tail_sigmas);

/// The pair that is worst among all (epsilon, delta)-DP mechanisms: delta at infinite loss, the
/// rest randomised response (Kairouz, Oh, Viswanath 2015, theorem 3.4).
LossCells cut_into_cells(const ApproximateRelease& mechanism, double width);

/// Loss of the outcome farthest in the tail, to size a grid: {lowest, highest}.
struct LossRange {
  double low, high;
};
LossRange loss_range(std::span<const WeightedPair> mechanism, double tail_sigmas);

}  // namespace sfumato
