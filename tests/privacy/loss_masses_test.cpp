// Cells of the privacy loss on the two sides of the bracket: what is split, and what tails become.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "src/privacy/loss_composition.h"
#include "src/privacy/loss_grid.h"

namespace sfumato {
namespace {

constexpr double kWidth = 0.1, kLoss = 0.04, kMass = 0.94;

/// One outcome of loss 0.04 in the cell [0, 0.1), tails on both sides, and an infinite loss.
LossCells one_cell() {
  LossCells cells;
  cells.cells.push_back(
      {0, kWidth, kMass, kMass * -std::expm1(-kLoss), kMass * std::expm1(kWidth - kLoss)});
  cells.tail_above = 0.01;
  cells.tail_below = 0.02;
  cells.at_infinity = 0.03;
  return cells;
}

double sum_of(const std::vector<double>& masses) {
  return std::accumulate(masses.begin(), masses.end(), 0.0);
}

TEST(LossMasses, TailsCountAgainstTheClaimAlone) {
  const LossMasses above = pessimistic(one_cell(), 1), below = optimistic(one_cell(), 1, kWidth);
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

TEST(LossMasses, MergedOutcomesKeepBothMassesAndLieOnTheirLattice) {
  // A bounded loss, as of a sampled Gaussian: most releases a little below 0, few far above.
  LossCells cells;
  const auto cell = [](double low, double high, double mass, double loss) {
    return LossCell{low, high, mass, mass * -std::expm1(low - loss),
                    mass * std::expm1(high - loss)};
  };
  cells.cells = {cell(-0.5, -0.25, 0.01, -0.3), cell(-0.25, 0, 0.9, -0.01),
                 cell(0, 0.25, 0.05, 0.1), cell(0.25, 0.5, 0.03, 0.3), cell(0.5, 1, 0.01, 0.7)};
  double p = 0, q = 0;
  for (const LossCell& c : cells.cells) {
    p += c.mass;
    q += (c.mass - c.excess) * std::exp(-c.low);
  }
  const LossMasses below = optimistic(cells, 1, 0.0625);
  double p_merged = 0, q_merged = 0;
  for (std::size_t i = 0; i < below.mass.size(); ++i) {
    EXPECT_EQ(below.loss[i] / 0.0625, std::nearbyint(below.loss[i] / 0.0625));
    p_merged += below.mass[i];
    q_merged += below.mass[i] * std::exp(-below.loss[i] - below.offset);
  }
  EXPECT_NEAR(p_merged, p, 1e-12);
  EXPECT_NEAR(q_merged, q, 1e-12);
  EXPECT_NEAR(below.offset, -0.01, 1e-12) << "the most probable loss is kept as it is";
}

/// Half of P lies far above any answer: it counts as infinite loss, or in its cells, but counts.
TEST(LossMasses, WhatIsLeftOutOfAWindowCountsAgainstTheClaim) {
  const std::vector<WeightedPair> step = phase_pairs(Phase{1e-3, 0.5, 1}, Adjacency::kZeroOut)[0];
  std::vector<LossGrid::Kind> kinds;
  kinds.push_back({LossMesh::of(step, 1e-20, 1e9).value(), 1000});
  LossGrid grid(std::move(kinds), {.delta = 1e-5}, 2e-4);
  grid.refine(0.1, 1 << 12);
  grid.aim(1, 1e-5);
  grid.refine(0.1, 1 << 14);
  const LossMasses above = grid.pessimistic()[0], below = grid.optimistic()[0];
  EXPECT_GT(above.at_infinity, 1e-13) << "a part of P was moved to infinite loss";
  EXPECT_NEAR(sum_of(above.mass) + above.at_infinity, 1, 1e-13);
  EXPECT_EQ(below.at_infinity, 0);
  double q = 0;
  for (std::size_t i = 0; i < above.mass.size(); ++i) q += above.mass[i] * std::exp(-above.loss[i]);
  EXPECT_NEAR(q, 1, 1e-12) << "and Q stays";
}

}  // namespace
}  // namespace sfumato
