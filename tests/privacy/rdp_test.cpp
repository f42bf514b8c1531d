#include "sfumato/privacy/rdp.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "privacy/to_events.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

using test::to_events;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Adjacency kAddRemove = Adjacency::kAddRemove;
constexpr Adjacency kReplaceOne = Adjacency::kReplaceOne;

double epsilon(const std::vector<Phase>& phases, double delta, Adjacency adjacency = kAddRemove) {
  return epsilon_from_rdp(to_events(phases), delta, adjacency).epsilon;
}

double log_uniform(int lowest_milli, int highest_milli) {
  return std::pow(10.0, 0.001 * *rc::gen::inRange(lowest_milli, highest_milli));
}

/// E_{N(0,sigma^2)}[(1 - q + q e^((2x-1)/2 sigma^2))^order] by Simpson's rule in long double.
double rdp_by_definition(double q, double sigma, double order) {
  const long double low = -12 * sigma;
  const long double high = std::max(order, 2.0) + 12 * sigma;
  constexpr int kIntervals = 40'000;
  const long double step = (high - low) / kIntervals;
  long double sum = 0;
  for (int i = 0; i <= kIntervals; ++i) {
    const long double x = low + i * step;
    const long double ratio = 1 - q + q * std::exp((2 * x - 1) / (2.0L * sigma * sigma));
    const long double density =
        std::exp(-x * x / (2.0L * sigma * sigma)) / (sigma * std::sqrt(2 * std::acos(-1.0L)));
    sum += (i == 0 || i == kIntervals ? 1
            : i % 2                   ? 4
                                      : 2) *
           density * std::pow(ratio, static_cast<long double>(order));
  }
  return static_cast<double>(std::log(sum * step / 3) / (order - 1));
}

TEST(SampledGaussianRdp, EqualsTheIntegralThatDefinesIt) {
  for (const double q : {0.01, 0.2, 0.7})
    for (const double sigma : {0.6, 1.0, 4.0})
      for (const double order : {1.5, 2.0, 3.7, 12.0})
        EXPECT_NEAR(
            sampled_gaussian_rdp(q, sigma, order, kAddRemove) / rdp_by_definition(q, sigma, order),
            1, 1e-9)
            << q << " " << sigma << " " << order;
}

// 50 steps of q = 0.01, sigma = 2.5: the values that TensorFlow Privacy and
// google/differential-privacy test. At order 1.5 the latter now has 6.70579741e-4, from a series
// that only bounds the integral; the exact value (mpmath, 40 digits) is the former's.
TEST(SampledGaussianRdp, PublishedOrders) {
  RdpAccountant accountant(kAddRemove);
  accountant.add(Phase{0.01, 2.5, 50});
  const std::pair<double, double> rows[] = {{1.5, 6.5007e-4},
                                            {2.5, 1.08548710e-3},
                                            {5, 2.18075656e-3},
                                            {50, 2.38460375e-2},
                                            {100, 167.416308}};
  for (const auto& [order, rdp] : rows) EXPECT_NEAR(accountant.rdp(order) / rdp, 1, 1e-4);
  EXPECT_EQ(accountant.rdp(kInfinity), kInfinity);
}

TEST(SampledGaussianRdp, SpecialCases) {
  EXPECT_EQ(sampled_gaussian_rdp(0, 1, 2, kAddRemove), 0);
  EXPECT_EQ(sampled_gaussian_rdp(0, 0, 2, kAddRemove), 0);
  EXPECT_EQ(sampled_gaussian_rdp(0.5, kInfinity, 2, kAddRemove), 0);
  EXPECT_EQ(sampled_gaussian_rdp(0.5, 0, 2, kAddRemove), kInfinity);
  EXPECT_EQ(sampled_gaussian_rdp(0.5, 1, kInfinity, kAddRemove), kInfinity);
  EXPECT_DOUBLE_EQ(sampled_gaussian_rdp(1, 2, 3.5, kAddRemove), 3.5 / 8);
  EXPECT_DOUBLE_EQ(sampled_gaussian_rdp(1, 2, 3.5, kReplaceOne), 4 * 3.5 / 8);
  EXPECT_DOUBLE_EQ(sampled_gaussian_rdp(1, 2, 3.5, kAddRemove, 3), 9 * 3.5 / 8);
  // Almost certain sampling tends to certain sampling.
  EXPECT_NEAR(sampled_gaussian_rdp(1 - 1e-12, 2, 3.5, kAddRemove), 3.5 / 8, 1e-9);
  EXPECT_NEAR(sampled_gaussian_rdp(1 - 1e-12, 2, 3.5, kReplaceOne), 3.5 / 2, 1e-9);
}

TEST(SampledGaussianRdp, ZeroOutEqualsAddRemoveAndReplaceOneCostsMore) {
  for (const double q : {1e-4, 0.05, 0.6, 1.0}) {
    for (const double order : {1.1, 3.0, 20.5}) {
      const double one = sampled_gaussian_rdp(q, 1.3, order, kAddRemove);
      EXPECT_EQ(sampled_gaussian_rdp(q, 1.3, order, Adjacency::kZeroOut), one);
      EXPECT_GT(sampled_gaussian_rdp(q, 1.3, order, kReplaceOne), one);
      EXPECT_LE(sampled_gaussian_rdp(q, 1.3, order, kReplaceOne), 4 * order / (2 * 1.3 * 1.3));
    }
  }
}

TEST(GroupRdp, LiesBetweenOneRecordAndOneLargeRecord) {
  for (const double q : {0.001, 0.05, 0.6}) {
    for (const std::int64_t m : {2, 3, 8}) {
      for (const double order : {1.2, 2.0, 5.5, 17.0}) {
        const double sigma = 4;
        const auto records = static_cast<double>(m);
        const double group = sampled_gaussian_rdp(q, sigma, order, kAddRemove, m);
        // At least one of m records is sampled with probability 1 - (1-q)^m; then the sum moves by
        // at most m.
        const double any = -std::expm1(records * std::log1p(-q));
        EXPECT_GT(group, sampled_gaussian_rdp(q, sigma, order, kAddRemove, m - 1));
        EXPECT_LE(group, sampled_gaussian_rdp(any, sigma / records, order, kAddRemove));
      }
    }
  }
}

TEST(Conversion, PublishedExample) {
  EXPECT_NEAR(epsilon_at_order(1.1, 32, 1e-5), 1.32783806176, 1e-9);
  const double ln_delta = ln_delta_at_order(1.1, 32, epsilon_at_order(1.1, 32, 1e-5));
  EXPECT_NEAR(ln_delta, std::log(1e-5), 1e-12);
}

// Values of Opacus and tensorflow_privacy at the order that their grids chose.
TEST(Conversion, PublishedEpsilonsAtTheirOrders) {
  const auto at = [](const Phase& phase, double order, double delta) {
    RdpAccountant accountant(kAddRemove);
    accountant.add(phase);
    return epsilon_at_order(accountant.rdp(order), order, delta);
  };
  EXPECT_NEAR(at({0.04, 1.5, 2250}, 3.9, 1e-5), 7.32911117143, 5e-8);
  EXPECT_NEAR(at({0.0025, 1.3, 6000}, 19, 1e-5), 0.7242234026109595, 5e-8);
  EXPECT_NEAR(at({0.001, 1, 30000}, 13, 1e-7), 1.4154988495444842, 5e-8);
  EXPECT_NEAR(at({1.024e-5, 0.1, 976563}, 1.25, 1e-7), 5907982.3113984, 1);
}

/// Smallest epsilon by the same conversion over a grid of orders so fine that it is the infimum.
double gaussian_epsilon_by_scan(double mu_squared, double delta) {
  double best = kInfinity;
  for (double s = -6; s < 14; s += 1e-4) {
    const double order = 1 + std::exp(s);
    best = std::min(best, epsilon_at_order(order * mu_squared / 2, order, delta));
  }
  return best;
}

TEST(RdpEpsilon, FullBatchIsTheGaussianMechanism) {
  for (const double sigma : {0.5, 1.0, 4.0, 30.0}) {
    for (const double delta : {1e-3, 1e-5, 1e-9}) {
      const std::vector<Phase> phases = {{1, sigma, 7}};
      const double mu = std::sqrt(7.0) / sigma;
      const double ours = epsilon(phases, delta);
      const double by_scan = gaussian_epsilon_by_scan(mu * mu, delta);
      EXPECT_LE(ours, by_scan * (1 + 1e-6));
      EXPECT_GE(ours, by_scan * 0.99) << "the exact conversion gains little here";
      EXPECT_LT(gaussian_delta(mu, ours), delta);
      EXPECT_NEAR(epsilon(phases, delta, kReplaceOne), epsilon({{1, sigma / 2, 7}}, delta), 1e-12);
    }
  }
}

/// The smallest exact conversion over all orders, by scans around the best one, each finer than the
/// one before.
double epsilon_by_scans(const Phase& phase, double delta, Adjacency adjacency) {
  double best = kInfinity, at = 4, reach = 6;  // s = ln(order - 1)
  for (; reach > 1e-8; reach /= 20) {
    const double middle = at;
    for (int i = -100; i <= 100; ++i) {
      const double s = middle + reach * i / 100, order = 1 + std::exp(s);
      const double rdp = static_cast<double>(phase.steps) *
                         sampled_gaussian_rdp(phase.sample_rate, phase.noise_multiplier, order,
                                              adjacency, phase.records_per_unit);
      const double value = exact_epsilon_at_order(rdp, order, delta);
      if (value < best) {
        best = value;
        at = s;
      }
    }
  }
  return best;
}

// Where q is tiny the RDP jumps by orders of magnitude between neighbours of a coarse lattice, and
// the best order lies at the foot of that.
TEST(RdpEpsilon, IsThatOfTheBestRealOrder) {
  const double q = 2.3625731228224037e-05, sigma = 4.0498316929632416, delta = 1.33e-9;
  for (const Adjacency adjacency : {kAddRemove, kReplaceOne})
    for (const Phase& phase : {Phase{q, sigma, 2489}, Phase{q, sigma, 2614}, Phase{1e-4, 1, 100},
                               Phase{0.01, 1, 1000}, Phase{0.2, 5, 300}}) {
      const double scanned = epsilon_by_scans(phase, delta, adjacency);
      const double ours = epsilon({phase}, delta, adjacency);
      EXPECT_NEAR(ours / scanned, 1, 1e-6) << to_text(PrivacyEvent(phase));
    }
  EXPECT_GT(epsilon({{q, sigma, 2614}}, delta, kReplaceOne),
            epsilon({{q, sigma, 2489}}, delta, kReplaceOne));
}

TEST(RdpDelta, InvertsEpsilonAndStaysAboveTheExactValue) {
  for (const double delta : {1e-3, 1e-6, 1e-12}) {
    const std::vector<Phase> phases = {{0.01, 1, 1000}};
    const double target = epsilon(phases, delta);
    EXPECT_NEAR(delta_from_rdp(to_events(phases), target, kAddRemove).delta / delta, 1, 1e-3);
  }
  const std::vector<Phase> three = {{1, std::sqrt(3.0), 3}};
  const double delta_at_one = delta_from_rdp(to_events(three), 1, kAddRemove).delta;
  EXPECT_GT(delta_at_one, 0.126936);
  EXPECT_LT(delta_at_one, 0.3);
  const std::vector<Phase> forty = {{1, 4, 40}};
  EXPECT_GT(delta_from_rdp(to_events(forty), 10, kAddRemove).delta, 3.33762759e-9);
  EXPECT_LT(delta_from_rdp(to_events(forty), 10, kAddRemove).delta, 3e-8);
  const std::vector<Phase> subsampled = {{0.2, 0.5, 3}};
  EXPECT_GT(delta_from_rdp(to_events(subsampled), 1, kAddRemove).delta, 0.15594 - 1e-3);
  EXPECT_EQ(delta_from_rdp(to_events(std::vector<Phase>{}), 1, kAddRemove).delta, 0);
  EXPECT_EQ(delta_from_rdp(to_events(std::vector<Phase>{{0.1, 0, 1}}), 1, kAddRemove).delta, 1);
}

/// The largest p - e^epsilon q, or ln((p - delta) / q), over the binary distributions that a Renyi
/// divergence permits, by scanning p and bisecting q.
double scan(double rdp, double order, const std::function<double(double, double)>& value) {
  double best = -kInfinity;
  const auto divergence = [&](double p, double q) {
    return std::log(std::pow(p, order) * std::pow(q, 1 - order) +
                    std::pow(1 - p, order) * std::pow(1 - q, 1 - order)) /
           (order - 1);
  };
  for (double logit = -30; logit < 12; logit += 0.002) {
    const double p = 1 / (1 + std::exp(-logit));
    double low = std::log(p) - 200, high = std::log(p);
    for (int i = 0; i < 60; ++i) {
      const double middle = 0.5 * (low + high);
      (divergence(p, std::exp(middle)) <= rdp ? high : low) = middle;
    }
    best = std::max(best, value(p, std::exp(high)));
  }
  return best;
}

TEST(Conversion, ExactOneIsTheJointRangeOfHypothesisTests) {
  for (const double order : {1.5, 4.0, 20.0}) {
    for (const double rdp : {1e-3, 0.1, 2.0}) {
      for (const double delta : {1e-2, 1e-6}) {
        const double ours = exact_epsilon_at_order(rdp, order, delta);
        const double scanned = scan(rdp, order, [&](double p, double q) {
          return p > delta ? std::log((p - delta) / q) : -kInfinity;
        });
        EXPECT_NEAR(ours, std::max(0.0, scanned), 1e-4 * (1 + ours)) << order << " " << rdp;
        EXPECT_LE(ours, std::max(0.0, epsilon_at_order(rdp, order, delta)));
        const double back = exact_delta_at_order(rdp, order, 0.3);
        const double by_scan =
            scan(rdp, order, [](double p, double q) { return p - std::exp(0.3) * q; });
        EXPECT_NEAR(back / std::max(by_scan, 1e-9), 1, 1e-2) << order << " " << rdp;
      }
    }
  }
}

TEST(RdpEpsilon, OtherMechanismsCompose) {
  // A Gaussian release is a full-batch phase with its ratio of noise to sensitivity.
  EXPECT_NEAR(
      epsilon_from_rdp(std::vector<PrivacyEvent>{GaussianRelease{3, 6, 5}}, 1e-5, kAddRemove)
          .epsilon,
      epsilon({{1, 2, 5}}, 1e-5), 1e-12);
  // Randomised response with 10 uses, delta 0: below 10 epsilon, above the best single bound.
  const std::vector<PrivacyEvent> ten = {ApproximateRelease{0.1, 0, 10}};
  const double composed = epsilon_from_rdp(ten, 1e-5, kAddRemove).epsilon;
  EXPECT_LT(composed, 1.0 + 1e-9);
  EXPECT_GT(composed, 0.5);
  const std::vector<PrivacyEvent> failing = {ApproximateRelease{0.1, 1e-6, 5}};
  EXPECT_EQ(epsilon_from_rdp(failing, 4e-6, kAddRemove).epsilon, kInfinity);
  EXPECT_LT(epsilon_from_rdp(failing, 1e-4, kAddRemove).epsilon, 0.6);
}

TEST(RdpEpsilon, NothingSpentCostsNothingAndNoNoiseEverything) {
  EXPECT_EQ(epsilon({}, 1e-5), 0);
  EXPECT_EQ(epsilon({{0.1, 1, 0}}, 1e-5), 0);
  EXPECT_EQ(epsilon({{0.1, 0, 0}}, 1e-5), 0);
  EXPECT_EQ(epsilon({{0, 1, 1000}}, 1e-5), 0);
  EXPECT_EQ(epsilon({{0.1, kInfinity, 1000}}, 1e-5), 0);
  EXPECT_EQ(epsilon({{1e-9, 1, 1}}, 1e-5), 0) << "total variation below delta";
  EXPECT_EQ(epsilon({{0.1, 0, 1}}, 1e-5), kInfinity);
  EXPECT_EQ(epsilon({{0.01, 1, 1000}, {0.1, 0, 1}}, 1e-5), kInfinity);
}

TEST(RdpEpsilon, BadNumbersAreRefused) {
  const double nan = std::nan("");
  const Phase bad[] = {{-0.1, 1, 1},  {1.1, 1, 1},  {nan, 1, 1},    {0.1, -1, 1},
                       {0.1, nan, 1}, {0.1, 1, -1}, {0.1, 1, 1, 0}, {0.1, 1, 1, 1'000'000}};
  for (const Phase& phase : bad) EXPECT_THROW(epsilon({phase}, 1e-5), UsageError);
  for (const double delta : {0.0, 1.0, -1e-5, nan, 2.0})
    EXPECT_THROW(epsilon({{0.1, 1, 1}}, delta), UsageError);
  for (const double value : {-1.0, nan, kInfinity})
    EXPECT_THROW(delta_from_rdp(to_events(std::vector<Phase>{{0.1, 1, 1}}), value, kAddRemove),
                 UsageError);
  EXPECT_THROW(epsilon({{0.1, 1, 1, 2}}, 1e-5, kReplaceOne), PrivacyError);
  EXPECT_THROW(sampled_gaussian_rdp(0.1, 1, 1, kAddRemove), UsageError);
}

TEST(ParsePhase, ReadsOneFormAndShowsIt) {
  const Phase phase = parse_phase("0.01:1.1:1000");
  EXPECT_EQ(phase.sample_rate, 0.01);
  EXPECT_EQ(phase.noise_multiplier, 1.1);
  EXPECT_EQ(phase.steps, 1000);
  for (const char* text : {"", "0.01", "0.01:1", "0.01:1:", "a:1:2", "0.1:1:2:3", "0.1:1:2.5"}) {
    try {
      parse_phase(text);
      ADD_FAILURE() << "accepted '" << text << "'";
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("0.01:1.1:1000"));
    }
  }
}

TEST(RdpAccountant, AsksAfterEveryStepCheaplyAndEqualsTheWhole) {
  RdpAccountant accountant(kAddRemove);
  double previous = 0;
  for (int step = 1; step <= 2250; ++step) {
    accountant.add(Phase{0.04, 1.5, 1});
    const double now = accountant.epsilon(1e-5).epsilon;
    EXPECT_GE(now, previous);
    previous = now;
  }
  EXPECT_EQ(previous, epsilon({{0.04, 1.5, 2250}}, 1e-5));
}

TEST(RdpAccountant, StepsThatOverflowDoNotWrapRound) {
  RdpAccountant accountant(kAddRemove);
  accountant.add(Phase{0.01, 1, std::numeric_limits<std::int64_t>::max()});
  accountant.add(Phase{0.01, 1, 5});
  EXPECT_GT(accountant.epsilon(1e-5).epsilon, 1e12);
}

RC_GTEST_PROP(RdpEpsilon, GrowsWithRateAndStepsAndFallsWithNoiseAndDelta, ()) {
  const double q = log_uniform(-5000, 0);
  const double sigma = log_uniform(-500, 1500);
  const auto steps = static_cast<std::int64_t>(log_uniform(0, 5000));
  const double delta = log_uniform(-12000, -2000);
  const Adjacency adjacency = *rc::gen::element(kAddRemove, kReplaceOne);
  const double base = epsilon({{q, sigma, steps}}, delta, adjacency);
  const double slack = 1 + 1e-6;  // what the search for an order may lose
  RC_ASSERT(epsilon({{std::min(1.0, q * 1.1), sigma, steps}}, delta, adjacency) * slack >= base);
  RC_ASSERT(epsilon({{q, sigma, steps + 1 + steps / 20}}, delta, adjacency) * slack >= base);
  RC_ASSERT(epsilon({{q, sigma * 1.1, steps}}, delta, adjacency) <= base * slack);
  RC_ASSERT(epsilon({{q, sigma, steps}}, delta * 1.5, adjacency) <= base * slack);
  RC_ASSERT(epsilon({{q, sigma, steps}}, delta, kReplaceOne) * slack >=
            epsilon({{q, sigma, steps}}, delta, kAddRemove));
}

RC_GTEST_PROP(RdpEpsilon, SplittingAPhaseChangesNothing, ()) {
  const double q = log_uniform(-4000, 0);
  const double sigma = log_uniform(-300, 1000);
  const auto first = *rc::gen::inRange<std::int64_t>(0, 1000);
  const auto second = *rc::gen::inRange<std::int64_t>(0, 1000);
  RC_ASSERT(epsilon({{q, sigma, first}, {q, sigma, second}}, 1e-6) ==
            epsilon({{q, sigma, first + second}}, 1e-6));
}

}  // namespace
}  // namespace sfumato
