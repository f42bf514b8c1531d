#include "sfumato/privacy/dominating_pair.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <complex>

#include "sfumato/core/error.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

constexpr double kPi = 3.14159265358979323846;

// D_order(P || Q) by definition, E_Q[(P/Q)^order] with 40 digits in mpmath 1.3: Gauss-Legendre with
// 24 nodes on panels of width min(sigma, 2 sigma^2) over the modes and 14 sigma of tails.
struct HighPrecision {
  double sample_rate, noise_multiplier, order, divergence;
};

constexpr HighPrecision kRemove[] = {
    {0.01, 1, 1.01, 8.4670569136370434e-5}, {0.01, 1, 7.78, 0.00084341927586340515},
    {1e-7, 0.5, 1.5, 4.01965907875702e-13}, {1e-6, 2, 27, 3.834372929501665e-12},
    {0.5, 0.1, 1.1, 47.416165454034832},    {0.999, 3, 64.5, 3.5823179541561816},
    {0.001, 0.1, 64.5, 3217.9834611733174}, {0.256, 6, 2.5, 0.0023115392872316549},
    {0.2, 0.5, 1.6, 0.53094400158796614},   {1e-4, 100, 300.25, 1.5013295426465193e-10},
    {0.3, 0.05, 3.3, 658.27256075901061},
};

constexpr HighPrecision kReplaceOne[] = {
    {0.01, 1, 3.5, 0.00080521983101544789},   {0.5, 0.3, 20.5, 113.8533428796294},
    {0.999, 1, 6.5, 9.7247308042443836},      {0.04, 1.5, 3.9, 0.0056284292819610009},
    {1e-5, 0.7, 1.1, 8.3212475828423469e-10}, {0.99, 0.1, 8.25, 417.09373359691342},
    {0.3, 10, 100.5, 0.18689441563249555},
};

struct GroupHighPrecision {
  double sample_rate, noise_multiplier, order;
  std::int64_t records;
  double removed, added;
};

constexpr GroupHighPrecision kGroup[] = {
    {0.01, 1, 3.5, 2, 0.0013401444750818311, 0.0010143144654724057},
    {0.1, 4, 10.5, 5, 0.12259333644177255, 0.065463888415590513},
    {0.5, 2, 7.25, 3, 5.7768134229959841, 0.9111178367424001},
    {0.9, 0.5, 30.5, 3, 548.67320382431556, 6.7545676780809215},
    {0.001, 3, 20.5, 10, 41.268901583044253, 0.00011752612158931415},
};

TEST(RenyiDivergence, AgreesWithHighPrecision) {
  for (const auto& row : kRemove) {
    const auto pairs = dominating_pairs(row.sample_rate, Adjacency::kAddRemove);
    ASSERT_EQ(pairs.size(), 1);
    EXPECT_NEAR(renyi_divergence(pairs[0], row.noise_multiplier, row.order) / row.divergence, 1,
                1e-12);
  }
  for (const auto& row : kReplaceOne) {
    const auto pairs = dominating_pairs(row.sample_rate, Adjacency::kReplaceOne);
    ASSERT_EQ(pairs.size(), 1);
    EXPECT_NEAR(renyi_divergence(pairs[0], row.noise_multiplier, row.order) / row.divergence, 1,
                1e-12);
  }
  for (const auto& row : kGroup) {
    const auto pairs = dominating_pairs(row.sample_rate, Adjacency::kZeroOut, row.records);
    ASSERT_EQ(pairs.size(), 2);
    EXPECT_NEAR(renyi_divergence(pairs[0], row.noise_multiplier, row.order) / row.removed, 1,
                1e-12);
    EXPECT_NEAR(renyi_divergence(pairs[1], row.noise_multiplier, row.order) / row.added, 1, 1e-12);
  }
}

TEST(RenyiDivergence, AgreesWithTheBinomialSumAtIntegerOrders) {
  for (const double q : {1e-7, 1e-3, 0.04, 0.3, 0.9}) {
    for (const double sigma : {0.1, 0.3, 0.8, 1.5, 6.0, 100.0}) {
      for (const std::int64_t order : {2, 3, 5, 16, 63, 256, 1024}) {
        const auto pair = dominating_pairs(q, Adjacency::kAddRemove)[0];
        const double sum = sampled_gaussian_rdp_at_integer(q, sigma, order);
        EXPECT_NEAR(renyi_divergence(pair, sigma, static_cast<double>(order)) / sum, 1, 1e-11)
            << "q " << q << " sigma " << sigma << " order " << order;
      }
    }
  }
}

/// A sampled user's possible contributions in the plane, each with its probability.
struct PlanarMixture {
  std::vector<double> weights;
  std::vector<std::complex<double>> centres;
  double density(std::complex<double> x, double sigma) const {
    double sum = 0;
    for (std::size_t j = 0; j < weights.size(); ++j)
      sum += weights[j] * std::exp(-std::norm(x - centres[j]) / (2 * sigma * sigma));
    return sum / (2 * kPi * sigma * sigma);
  }
};

double planar_divergence(const PlanarMixture& p, const PlanarMixture& q, double sigma,
                         double order) {
  const double reach = 2 * order + 9 * sigma;
  const double step = sigma / 5;
  double sum = 0;
  for (double x = -reach; x <= reach; x += step) {
    for (double y = -reach; y <= reach; y += step) {
      const double dq = q.density({x, y}, sigma);
      const double dp = p.density({x, y}, sigma);
      if (dq > 1e-280 && dp > 1e-280) sum += std::pow(dp / dq, order) * dq;
    }
  }
  return std::log(sum * step * step) / (order - 1);
}

// The claim behind the pairs: no other contributions of norm at most 1 are worse.
TEST(DominatingPair, ReplaceOneCoversEveryTwoContributions) {
  for (const double q : {0.05, 0.5, 0.9}) {
    const double sigma = 1.2;
    const double order = 2.5;
    const double claimed = sampled_gaussian_rdp(q, sigma, order, Adjacency::kReplaceOne);
    const auto world = [&](std::complex<double> c) { return PlanarMixture{{1 - q, q}, {0, c}}; };
    for (const double angle : {0.0, 0.5, 1.0}) {
      for (const double norm : {0.0, 0.5, 1.0}) {
        const double actual =
            planar_divergence(world(1), world(std::polar(norm, kPi * angle)), sigma, order);
        EXPECT_LE(actual, claimed * (1 + 1e-9)) << q << " " << angle << " " << norm;
        if (norm == 1 && angle == 1) {
          EXPECT_NEAR(actual / claimed, 1, 1e-9);
        }
      }
    }
  }
}

TEST(DominatingPair, GroupCoversEveryContributionOfTwoRecords) {
  for (const double q : {0.05, 0.5, 0.9}) {
    const double sigma = 1.5;
    const double order = 2.5;
    const double claimed = sampled_gaussian_rdp(q, sigma, order, Adjacency::kZeroOut, 2);
    for (const double angle : {0.0, 0.25, 1.0}) {
      for (const double norm : {0.3, 1.0}) {
        const std::complex<double> second = std::polar(norm, kPi * angle);
        const PlanarMixture with{{(1 - q) * (1 - q), q * (1 - q), q * (1 - q), q * q},
                                 {0, 1, second, 1.0 + second}};
        const PlanarMixture without{{1}, {0}};
        const double actual = std::max(planar_divergence(with, without, sigma, order),
                                       planar_divergence(without, with, sigma, order));
        EXPECT_LE(actual, claimed * (1 + 1e-9)) << q << " " << angle << " " << norm;
        if (norm == 1 && angle == 0) {
          EXPECT_NEAR(actual / claimed, 1, 1e-9);
        }
      }
    }
  }
}

TEST(DominatingPair, ReplaceOneWithSeveralRecordsIsRefused) {
  EXPECT_THROW(dominating_pairs(0.1, Adjacency::kReplaceOne, 2), PrivacyError);
}

RC_GTEST_PROP(RenyiDivergence, StaysBetweenZeroAndNoSubsamplingAndGrowsWithTheOrder, ()) {
  const double q = std::pow(10.0, -0.001 * *rc::gen::inRange(1, 8000));
  const double sigma = std::pow(10.0, 0.001 * *rc::gen::inRange(-1500, 3000));
  const double order = 1 + std::pow(10.0, 0.001 * *rc::gen::inRange(-2000, 3000));
  const auto records = *rc::gen::inRange<std::int64_t>(1, 5);
  const auto adjacency = records == 1
                             ? *rc::gen::element(Adjacency::kAddRemove, Adjacency::kReplaceOne)
                             : Adjacency::kZeroOut;
  const double distance =
      sensitivity_in_clip_norms(adjacency) * static_cast<double>(records) / sigma;
  for (const DominatingPair& pair : dominating_pairs(q, adjacency, records)) {
    const double value = renyi_divergence(pair, sigma, order);
    RC_ASSERT(value >= 0);
    RC_ASSERT(value <= order * distance * distance / 2 * (1 + 1e-12));
    RC_ASSERT(renyi_divergence(pair, sigma, order * 1.01) >= value * (1 - 1e-11));
    RC_ASSERT(renyi_divergence(pair, sigma * 1.01, order) <= value * (1 + 1e-11));
  }
}

}  // namespace
}  // namespace sfumato
