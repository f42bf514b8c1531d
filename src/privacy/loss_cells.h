#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "phase_pairs.h"
#include "sfumato/privacy/event.h"

namespace sfumato {

/// The outcomes whose privacy loss ln(P/Q) lies in [low, high).
struct LossCell {
  double low = 0, high = 0;  ///< nats
  double mass = 0;           ///< P(cell)
  double excess = 0;         ///< P - e^low Q, >= 0
  double lack = 0;           ///< e^high Q - P, >= 0

  double width() const { return high - low; }
  /// The loss of the cell merged into one outcome, above `low`.
  double merged_above() const;
};

/// One release of one direction of a mechanism, cut into adjacent cells by privacy loss.
struct LossCells {
  std::vector<LossCell> cells;
  double tail_above = 0;   ///< P mass of outcomes with a loss above all cells
  double tail_below = 0;   ///< and below all of them
  double at_infinity = 0;  ///< P mass where Q has none
};

/// Cells that can be halved one by one, so that they are narrow only where it matters. All borders
/// are multiples of a power of two, the width of the narrowest cell, and so share a lattice with
/// every other mesh.
class LossMesh {
 public:
  /// The outcomes with the highest and with the lowest losses count as tails, at most `tail_mass`
  /// of P each. nullopt where that takes more than `max_work` evaluations of the densities' terms.
  static std::optional<LossMesh> of(std::span<const WeightedPair> mechanism, double tail_mass,
                                    double max_work);
  /// The pair that is worst among all (epsilon, delta)-DP mechanisms: delta at infinite loss, the
  /// rest randomised response (Kairouz, Oh, Viswanath 2015, theorem 3.4). nullopt for an epsilon
  /// in the thousands.
  static std::optional<LossMesh> of(const ApproximateRelease& mechanism);

  const LossCells& cells() const { return cells_; }
  /// Halves the cells with a mark; one mark for each cell.
  void halve(std::span<const char> marks);
  /// Evaluations so far.
  double work() const { return work_; }
  /// From the lowest loss to the highest.
  double length() const { return cells_.cells.back().high - cells_.cells.front().low; }

 private:
  class Part;
  struct Atom {
    double loss, mass;
  };
  /// Where in the outcomes of each part a cell begins and ends.
  using Edges = std::array<std::array<double, 2>, 2>;

  LossMesh() = default;
  void cut(double low, double high);
  LossCell filled(double low, double high, const Edges& edges);

  LossCells cells_;
  std::vector<Edges> edges_;  ///< of each cell
  std::vector<std::shared_ptr<const Part>> parts_;
  std::vector<Atom> atoms_;
  double work_ = 0;
};

}  // namespace sfumato
