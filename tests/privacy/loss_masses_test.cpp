// Cells of the privacy loss on the two sides of the bracket: what is split, and what tails become.
// And what many of them compose to.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "src/privacy/composed_loss.h"
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

// Many equal releases with two losses each: the total is binomial, and delta a sum in closed form.
constexpr double kCoins = 100'000, kCoinStep = 97,
                 kCoinWidth = 0.05 / kCoinStep;  // losses 0.05 nats apart
constexpr double kCoinLow = -48 * kCoinWidth;
const double kMean = kCoins * (kCoinLow + kCoinStep * kCoinWidth / 2);
const double kDeviation = std::sqrt(kCoins) * kCoinStep * kCoinWidth / 2;

LossMasses coin() {
  return {{kCoinLow, kCoinLow + kCoinStep * kCoinWidth}, {0.5, 0.5}, 0, kCoins, 0};
}

double binomial_delta(double epsilon) {
  double sum = 0;
  for (double heads = 0; heads <= kCoins; ++heads) {
    const double loss = kCoins * kCoinLow + heads * kCoinStep * kCoinWidth;
    if (loss <= epsilon || loss > kMean + 30 * kDeviation) continue;
    const double ln_p = std::lgamma(kCoins + 1) - std::lgamma(heads + 1) -
                        std::lgamma(kCoins - heads + 1) - kCoins * std::log(2.0);
    sum += std::exp(ln_p) * -std::expm1(epsilon - loss);
  }
  return sum;
}

ComposedLoss composed(bool pessimistic) {
  const std::vector<LossMasses> releases = {coin()};
  // At two standard deviations above the mean.
  return ComposedLoss::compose(releases, kCoinWidth, 2 / kDeviation, 1 << 22, pessimistic).value();
}

constexpr double kReference = 2e-9;  // relative rounding of lgamma

/// The losses of one release lie far apart, so that its transform is large at many frequencies, and
/// in a range too narrow to be met by samples.
TEST(ComposedLoss, HarmonicsBetweenSamplesCount) {
  const ComposedLoss above = composed(true), below = composed(false);
  ASSERT_TRUE(above.by_harmonics());
  ASSERT_TRUE(below.by_harmonics());
  for (double steps = 0; steps < 3; steps += 0.31) {
    const double epsilon = kMean + 2 * kDeviation + steps * kCoinStep * kCoinWidth;
    const double exact = binomial_delta(epsilon);
    EXPECT_GE(above.delta(epsilon), exact * (1 - kReference)) << steps;
    EXPECT_LE(below.delta(epsilon), exact * (1 + kReference)) << steps;
    EXPECT_LE(above.delta(epsilon) - below.delta(epsilon), 1e-5 * exact) << steps;
    EXPECT_NEAR(above.epsilon(exact), epsilon, 1e-4);
    EXPECT_GE(above.epsilon(exact), epsilon - 1e-7);
    EXPECT_LE(below.epsilon(exact), epsilon + 1e-7);
  }
}

/// Far from where the masses were tilted to, all that is left is rounding.
TEST(ComposedLoss, RoundingCountsAgainstTheClaim) {
  const ComposedLoss above = composed(true), below = composed(false);
  for (double deviations = -4; deviations < 10; deviations += 0.23) {
    const double epsilon = kMean + deviations * kDeviation, exact = binomial_delta(epsilon);
    EXPECT_GE(above.delta(epsilon), exact * (1 - kReference)) << deviations;
    EXPECT_LE(below.delta(epsilon), exact * (1 + kReference)) << deviations;
  }
}

/// A few releases are transformed at all points, and added up from the top.
TEST(ComposedLoss, FewReleasesAreTransformedAtAllPoints) {
  LossMasses few = coin();
  few.count = 2;
  const std::vector<LossMasses> releases = {few};
  const auto above = ComposedLoss::compose(releases, kCoinWidth, 1, 1 << 20, true).value();
  const auto below = ComposedLoss::compose(releases, kCoinWidth, 1, 1 << 20, false).value();
  EXPECT_FALSE(above.by_harmonics());
  const double top =
      2 * (kCoinLow + kCoinStep * kCoinWidth);  // with probability 1/4; 0.05 less: 1/2; then 1/4
  for (const double epsilon : {-0.06, -0.01, 0.0, 0.005, 0.03, 0.05}) {
    double exact = 0.25 * std::max(0.0, -std::expm1(epsilon - top));
    exact += 0.5 * std::max(0.0, -std::expm1(epsilon - top + 0.05));
    exact += 0.25 * std::max(0.0, -std::expm1(epsilon - top + 0.1));
    EXPECT_NEAR(above.delta(epsilon), exact, 1e-9) << epsilon;
    EXPECT_NEAR(below.delta(epsilon), exact, 1e-9) << epsilon;
    EXPECT_GE(above.delta(epsilon), exact) << epsilon;
    EXPECT_LE(below.delta(epsilon), exact) << epsilon;
    if (epsilon <= 0 || exact <= 0) continue;
    EXPECT_NEAR(above.epsilon(exact), epsilon, 1e-8);
  }
}

}  // namespace
}  // namespace sfumato
