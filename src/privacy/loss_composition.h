#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "loss_cells.h"

namespace sfumato {

/// Masses of P at some losses of one release, ascending, and how often it is released.
struct LossMasses {
  std::vector<double> loss;  ///< less `offset`
  std::vector<double> mass;
  double at_infinity = 0;
  double count = 0;
  double offset = 0;  ///< the losses lie on a lattice besides this
};

/// Every cell split on its two borders so that P and Q keep their masses: more revealing.
LossMasses pessimistic(const LossCells& cells, double count);
/// Cells, or shares of neighbouring ones that a coin chooses, merged into single outcomes whose
/// losses lie `width` apart; the tails are dropped: less revealing.
LossMasses optimistic(const LossCells& cells, double count, double width);

}  // namespace sfumato
