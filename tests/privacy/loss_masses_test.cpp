// Cells of the privacy loss on the two sides of the bracket: what is split, and what tails become.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "src/privacy/loss_composition.h"

namespace sfumato {
namespace {

constexpr double kWidth = 0.1, kLoss = 0.04, kMass = 0.94;

/// One outcome of loss 0.04 in the cell [0, 0.1), tails on both sides, and an infinite loss.
LossCells one_cell() {
  LossCells cells;
  cells.width = kWidth;
  cells.cells.push_back({kMass, kMass * -std::expm1(-kLoss), kMass * std::expm1(kWidth - kLoss)});
  cells.tail_above = 0.01;
  cells.tail_below = 0.02;
  cells.at_infinity = 0.03;
  return cells;
}

double sum_of(const std::vector<double>& masses) {
  return std::accumulate(masses.begin(), masses.end(), 0.0);
}

TEST(LossMasses, TailsCountAgainstTheClaimAlone) {
  const LossMasses above = pessimistic(one_cell(), 1), below = optimistic(one_cell(), 1);
  EXPECT_DOUBLE_EQ(above.at_infinity, 0.03 + 0.01) << "the upper tail may reveal everything";
  EXPECT_NEAR(sum_of(above.mass), kMass + 0.02, 1e-12) << "nothing of P is lost";
  EXPECT_DOUBLE_EQ(below.at_infinity, 0.03);
  EXPECT_LE(sum_of(below.mass), kMass + 1e-12) << "tails are left out";
}

TEST(LossMasses, ASplitKeepsTheMassesOfBothDistributions) {
  LossCells cells = one_cell();
  cells.tail_below = 0;
  const LossMasses above = pessimistic(cells, 1);
  ASSERT_EQ(above.mass.size(), 2u);
  EXPECT_GT(above.mass[1], 0) << "some of it is moved up";
  EXPECT_NEAR(above.mass[0] + above.mass[1], kMass, 1e-12);
  EXPECT_NEAR(above.mass[0] + above.mass[1] * std::exp(-kWidth), kMass * std::exp(-kLoss), 1e-12);
}

}  // namespace
}  // namespace sfumato
