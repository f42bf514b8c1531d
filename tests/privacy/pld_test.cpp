#include "sfumato/privacy/pld.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "privacy/prv.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/dominating_pair.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr auto kZeroOut = Adjacency::kZeroOut;
constexpr auto kReplaceOne = Adjacency::kReplaceOne;
using Events = std::vector<PrivacyEvent>;

double phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// delta(epsilon) of one step in closed form: where P > e^epsilon Q is a half line.
double one_step_delta(double q, double sigma, double epsilon) {
  const double ratio = 1 + std::expm1(epsilon) / q;
  if (ratio <= 0) return -std::expm1(epsilon);
  const double x = sigma * sigma * std::log(ratio) + 0.5;
  const double p_above = (1 - q) * phi(-x / sigma) + q * phi((1 - x) / sigma);
  return p_above - std::exp(epsilon) * phi(-x / sigma);
}

TEST(Pld, OneStepIsTheClosedForm) {
  PldOptions fine;
  fine.tolerance = 2e-3;
  for (const double q : {1e-4, 0.01, 0.9}) {
    for (const double sigma : {0.4, 5.0}) {
      for (const double epsilon : {0.0, 0.01, 3.0}) {
        const double exact = one_step_delta(q, sigma, epsilon);
        if (exact < 1e-12) continue;
        EXPECT_GE(delta_from_rdp(Events{Phase{q, sigma, 1}}, epsilon, kZeroOut).delta, exact);
        const auto delta = delta_from_pld(Events{Phase{q, sigma, 1}}, epsilon, kZeroOut, fine);
        EXPECT_LE(delta.lower, exact * (1 + 1e-9)) << q << " " << sigma << " " << epsilon;
        EXPECT_GE(delta.upper, exact * (1 - 1e-9)) << q << " " << sigma << " " << epsilon;
        EXPECT_NEAR(delta.upper / exact, 1, 1e-2) << q << " " << sigma << " " << epsilon;
        EXPECT_NEAR(delta.lower / exact, 1, 1e-2) << q << " " << sigma << " " << epsilon;
      }
    }
  }
}

TEST(Pld, FullBatchIsTheGaussianMechanism) {
  for (const double delta : {1e-2, 1e-5, 1e-12, 1e-20}) {
    const auto found = epsilon_from_pld(Events{Phase{1, 4, 16}}, delta, kZeroOut);
    EXPECT_NEAR(found.upper, gaussian_epsilon(1, delta), 1e-9);
    EXPECT_NEAR(gaussian_delta(1, found.upper) / delta, 1, 1e-6);
    const auto twice = epsilon_from_pld(Events{Phase{1, 8, 16}}, delta, kReplaceOne);
    EXPECT_NEAR(twice.upper, found.upper, 1e-9) << "replace-one moves the sum by two clip norms";
  }
  EXPECT_NEAR(gaussian_epsilon(1, 1e-12), 7.2384944, 1e-7);
  EXPECT_NEAR(gaussian_delta(1, 1), 0.126936, 1e-6);
  EXPECT_NEAR(gaussian_mu(gaussian_epsilon(0.7, 1e-6), 1e-6), 0.7, 1e-9);
}

/// The same Gaussian by discretisation: a second full-batch phase that is sampled "almost surely".
TEST(Pld, DiscretisedGaussianAgreesWithTheClosedForm) {
  for (const double delta : {1e-3, 1e-9, 1e-20}) {
    const auto found = epsilon_from_pld(Events{Phase{1 - 1e-15, 3, 9}}, delta, kZeroOut);
    const double exact = gaussian_epsilon(1, delta);
    EXPECT_LE(found.lower, exact + 1e-6);
    EXPECT_GE(found.upper, exact - 1e-6);
    EXPECT_LT(found.upper - found.lower, 5e-4);
  }
}

struct Row {
  Events events;
  double delta, pld, tolerance;
  Adjacency adjacency = Adjacency::kAddRemove;
};

// By dp_accounting (connect-the-dots, grid 1e-4 or 2e-5) and, for 1e-12 and below, by an
// independent tilted transform. Published rows as their tests state them.
TEST(Pld, ReferenceValues) {
  const Row rows[] = {
      {{Phase{0.01, 1, 1000}}, 1e-5, 1.828240, 1e-4},
      {{Phase{0.01, 1, 10000}}, 1e-5, 6.187716, 3e-4},
      {{Phase{0.01, 0.5, 1000}}, 1e-5, 13.360823, 3e-4},
      {{Phase{0.01, 0.4, 100}}, 1e-5, 12.224574, 3e-4},
      {{Phase{0.04, 1.5, 2250}}, 1e-5, 6.768781, 2e-4},
      {{Phase{0.1, 3, 512}}, 1e-6, 3.769686, 1e-4},
      {{Phase{0.256, 6, 5000}}, 1e-5, 16.959550, 3e-4},
      {{Phase{0.08192, 10, 2500}}, 1e-5, 1.606211, 1e-4},
      {{Phase{0.5, 20, 2000}}, 1e-5, 4.990553, 2e-4},
      {{Phase{0.001, 1, 100000}}, 1e-6, 1.861052, 4e-4},
      {{Phase{0.01, 1, 500}, Phase{0.02, 1.5, 500}}, 1e-5, 1.897479, 1e-4},
      {{Phase{1, 5, 1}, Phase{0.05, 2, 400}, Phase{0.01, 1.2, 3000}}, 1e-6, 3.869820, 1e-4},
      {{Phase{0.01, 1, 1000}}, 1e-8, 2.697869, 2e-4},
      {{Phase{0.01, 1, 1000}}, 1e-12, 3.914300, 2e-4},
      {{Phase{0.01, 1, 1000}}, 1e-20, 6.361700, 1.1e-3},
      {{Phase{0.01, 1, 1000}}, 1e-5, 2.843, 1e-3, kReplaceOne},
      {{Phase{0.04, 1.5, 2250}}, 1e-5, 13.488, 1e-3, kReplaceOne},
      {{Phase{0.01, 0.7, 120}}, 1e-5, 2.4612381, 1e-4},
      {{Phase{0.01, 0.35, 120}}, 1e-5, 18.6977407, 1e-3},
      {{Phase{1, 0.7, 2}}, 1e-5, 10.1224946, 1e-5},
      {{Phase{1, 0.35, 2}}, 1e-5, 24.7160779, 1e-5},
      {{Phase{0.0064, 1, 782}}, 1e-6, 1.199, 6e-4},
      {{Phase{1, 1, 5}}, 1e-6, 12.595, 6e-4},
      {{Phase{0.5, 1, 3, 1, Truncation{4, 2}}, Phase{0.5, 1, 2, 1, Truncation{3, 2}}},
       1e-6,
       17.904330,
       1e-4,
       kZeroOut},
      {{Phase{1024.0 / 60000, 1, 1000, 1, Truncation{60000, 1100}}}, 1e-5, 6.021, 1e-3, kZeroOut},
      {{Phase{1024.0 / 60000, 1, 1000, 1, Truncation{60000, 1200}}}, 1e-5, 3.27431, 3e-4, kZeroOut},
  };
  for (const Row& row : rows) {
    const PldBracket found = epsilon_from_pld(row.events, row.delta, row.adjacency);
    std::string name;
    for (const PrivacyEvent& event : row.events) name += to_text(event) + " ";
    EXPECT_NEAR(found.upper, row.pld, row.tolerance) << name << row.delta;
    EXPECT_LE(found.lower, row.pld + row.tolerance / 2) << name << row.delta;
    EXPECT_LT(found.upper - found.lower, 1.5e-3) << name << row.delta;
  }
  EXPECT_NEAR(delta_from_pld(Events{Phase{0.2, 0.5, 3}}, 1, kZeroOut).upper, 0.15594, 1e-3);
  EXPECT_NEAR(delta_from_pld(Events{Phase{1, 4, 40}}, 10, kZeroOut).upper, 3.33762759e-9, 1e-15);
}

TEST(Pld, PrvAccountantAgrees) {
  const Phase phases[] = {{0.01, 1, 1000}, {0.05, 2, 400}, {0.2, 0.8, 30}, {0.001, 0.7, 5000}};
  for (const Phase& phase : phases) {
    const auto pld = epsilon_from_pld(Events{phase}, 1e-6, kZeroOut);
    const double prv = prv_epsilon(phase, 1e-6);
    EXPECT_NEAR(pld.upper, prv, 3e-4) << to_text(phase);
    EXPECT_LT(pld.lower, prv + 5e-5) << to_text(phase);
    EXPECT_GT(pld.upper, prv - 1e-4) << to_text(phase);
  }
}

/// Two steps of any pair by brute force: a plain double sum over finely cut outcomes, P's excess
/// over e^epsilon Q. Post-processing both ways, so it must come out between the two ends.
double two_step_delta(const DominatingPair& pair, double sigma, double epsilon) {
  constexpr int kCells = 3000;
  constexpr double kFar = 11;
  std::vector<double> p(kCells), q(kCells);
  const auto mass = [&](const GaussianMixture& mixture, double from, double to) {
    double sum = 0;
    for (std::size_t j = 0; j < mixture.centres.size(); ++j) {
      const double a = (from - mixture.centres[j]) / sigma, b = (to - mixture.centres[j]) / sigma;
      // On the side where the normal tail is small, so that differences keep their digits.
      sum += std::exp(mixture.ln_weights[j]) * (a > 0 ? phi(-a) - phi(-b) : phi(b) - phi(a));
    }
    return sum;
  };
  const double low = -2 - kFar * sigma, high = 3 + kFar * sigma;
  for (int i = 0; i < kCells; ++i) {
    const double from = low + (high - low) * i / kCells, to = low + (high - low) * (i + 1) / kCells;
    p[i] = mass(pair.first, from, to);
    q[i] = mass(pair.second, from, to);
  }
  double delta = 0;
  for (int i = 0; i < kCells; ++i)
    for (int j = 0; j < kCells; ++j)
      delta += std::max(0.0, p[i] * p[j] - std::exp(epsilon) * q[i] * q[j]);
  return delta;
}

TEST(Pld, BothDirectionsByBruteForceOverTwoSteps) {
  const struct {
    double q, sigma;
    Adjacency adjacency;
    std::int64_t records;
  } cases[] = {{0.3, 0.8, kZeroOut, 1}, {0.05, 0.6, kReplaceOne, 1}, {0.2, 1.5, kZeroOut, 3}};
  for (const auto& c : cases) {
    for (const double epsilon : {0.05, 1.0}) {
      double exact = 0;
      for (const DominatingPair& pair : both_directions(c.q, c.adjacency, c.records))
        exact = std::max(exact, two_step_delta(pair, c.sigma, epsilon));
      const auto found =
          delta_from_pld(Events{Phase{c.q, c.sigma, 2, c.records}}, epsilon, c.adjacency);
      EXPECT_LE(found.lower, exact * (1 + 2e-4)) << c.q << " " << epsilon;
      EXPECT_GE(found.upper, exact * (1 - 1e-9)) << c.q << " " << epsilon;
      EXPECT_NEAR(found.upper / exact, 1, 2e-3) << c.q << " " << epsilon;
    }
  }
}

/// For steps alone the removal of a record is the worse direction. Beside randomised response it is
/// not: with loss +-a of probability p and 1-p, delta(e) = p delta_1(e-a) + (1-p) delta_1(e+a), and
/// at negative arguments the order of the two is reversed.
TEST(Pld, TheDirectionThatIsWorseCounts) {
  const double q = 0.3, sigma = 0.7, a = 2, epsilon = 1;
  const auto removal = [&](double e) { return one_step_delta(q, sigma, e); };
  const auto addition = [&](double e) { return 1 + std::exp(e) * (removal(-e) - 1); };
  const auto composed = [&](const std::function<double(double)>& delta) {
    const double p = 1 / (1 + std::exp(-a));
    return p * delta(epsilon - a) + (1 - p) * delta(epsilon + a);
  };
  ASSERT_GT(composed(addition), composed(removal) * 1.01);
  const Events events = {Phase{q, sigma, 1}, ApproximateRelease{a, 0}};
  const auto found = delta_from_pld(events, epsilon, kZeroOut);
  EXPECT_GE(found.upper, composed(addition));
  EXPECT_LE(found.lower, composed(addition));
  EXPECT_NEAR(found.upper / composed(addition), 1, 2e-3);
}

TEST(Pld, ApproximateMechanismsComposeExactly) {
  // k-fold randomised response: delta by the binomial sum (Kairouz, Oh, Viswanath 2015).
  const double e = 0.3;
  const int k = 12;
  const double epsilon = 1.0;
  double exact = 0, choose = 1;
  const double p = 1 / (1 + std::exp(-e));
  for (int i = 0; i <= k; ++i) {
    const double loss = e * (2 * i - k);
    if (loss > epsilon)
      exact += choose * std::pow(p, i) * std::pow(1 - p, k - i) * -std::expm1(epsilon - loss);
    choose *= static_cast<double>(k - i) / (i + 1);
  }
  const auto found = delta_from_pld(Events{ApproximateRelease{e, 0, k}}, epsilon, kZeroOut);
  EXPECT_GE(found.upper, exact * (1 - 1e-12));
  EXPECT_LE(found.lower, exact);
  EXPECT_NEAR(found.upper / exact, 1, 2e-3);
  // Their deltas add up as failures, and beyond them nothing is finite.
  const Events failing = {ApproximateRelease{0.1, 1e-6, 5}};
  EXPECT_EQ(epsilon_from_pld(failing, 4e-6, kZeroOut).upper, kInfinity);
  EXPECT_LT(epsilon_from_pld(failing, 1e-4, kZeroOut).upper, 0.6);
  EXPECT_GE(delta_from_pld(failing, 1, kZeroOut).upper, -std::expm1(5 * std::log1p(-1e-6)));
}

TEST(Pld, ExtremesAreAnswered) {
  EXPECT_EQ(epsilon_from_pld(Events{}, 1e-5, kZeroOut).upper, 0);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{0, 1, 1000}}, 1e-5, kZeroOut).upper, 0);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{0.1, 1, 0}}, 1e-5, kZeroOut).upper, 0);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{0.1, kInfinity, 9}}, 1e-5, kZeroOut).upper, 0);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{0.1, 0, 1}}, 1e-5, kZeroOut).upper, kInfinity);
  EXPECT_EQ(epsilon_from_pld(Events{GaussianRelease{1, 0}}, 1e-5, kZeroOut).upper, kInfinity);
  EXPECT_EQ(delta_from_pld(Events{Phase{0.1, 0, 1}}, 1, kZeroOut).upper, 1);
  EXPECT_LE(delta_from_pld(Events{Phase{0.01, 0, 1}}, 1, kZeroOut).lower, 0.01);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{1e-9, 1, 1}}, 1e-5, kZeroOut).upper, 0);
  // Tiny noise: finite and no worse than RDP. Huge noise: next to nothing.
  const Events loud = {Phase{1.024e-5, 0.1, 976563}};
  const auto found = epsilon_from_pld(loud, 1e-7, kZeroOut);
  EXPECT_LE(found.upper, epsilon_from_rdp(loud, 1e-7, kZeroOut).epsilon);
  EXPECT_LT(epsilon_from_pld(Events{Phase{0.01, 1e4, 1000}}, 1e-5, kZeroOut).upper, 1e-3);
  EXPECT_THROW(epsilon_from_pld(Events{Phase{0.1, 1, 1}}, 0, kZeroOut), UsageError);
  EXPECT_THROW(delta_from_pld(Events{Phase{0.1, 1, 1}}, -1, kZeroOut), UsageError);
}

TEST(Pld, AMillionSteps) {
  const auto found = epsilon_from_pld(Events{Phase{0.001, 2, 1'000'000}}, 1e-6, kZeroOut);
  EXPECT_NEAR(found.upper, 2.420854, 1e-3);
  EXPECT_GE(found.upper, 2.4208);
  EXPECT_LE(found.lower, 2.420854);
  EXPECT_LE(found.upper, found.lower * 1.001);
}

/// What grids of equal cells had no answer for, or a slow one: rare large losses among millions of
/// tiny ones, tiny deltas, many kinds of steps.
TEST(Pld, BracketsAreNarrowWhereSingleReleasesDecide) {
  const struct {
    Events events;
    double delta, epsilon;  // epsilon: by an independent accountant, 0 where none was at hand
    Adjacency adjacency = kZeroOut;
  } cases[] = {
      {{Phase{1e-7, 0.5, 1'000'000}}, 1e-18, 2.560},
      {{Phase{1e-5, 1, 10'000'000}}, 1e-7, 0.1767},
      {{Phase{1e-5, 0.8, 10'000'000}}, 1e-6, 0},
      {{Phase{1e-4, 0.8, 1'000'000}}, 1e-7, 0.9127},
      {{Phase{0.001, 1, 500}}, 1e-9, 0.38322, kReplaceOne},
      {{Phase{0.00033, 4, 10000}}, 1.1e-18, 0},
      {{Phase{0.01, 1, 500}, Phase{0.02, 1.5, 500}, Phase{0.03, 2, 700}, Phase{0.001, 0.7, 5000},
        Phase{0.1, 4, 800}, Phase{0.005, 0.6, 300}},
       1e-6,
       10.22994,
       kReplaceOne},
  };
  for (const auto& c : cases) {
    const PldBracket found = epsilon_from_pld(c.events, c.delta, c.adjacency);
    EXPECT_LE(found.upper, found.lower * 1.01) << to_text(c.events[0]) << " " << found.lower;
    if (c.epsilon == 0) continue;
    EXPECT_LE(found.lower, c.epsilon * (1 + 1e-3)) << to_text(c.events[0]);
    EXPECT_GE(found.upper, c.epsilon * (1 - 1e-3)) << to_text(c.events[0]);
  }
}

TEST(Pld, TruncationNeedsAPublicNumberOfRecords) {
  const Events cut = {Phase{0.1, 1, 10, 1, Truncation{100, 20}}};
  EXPECT_THROW(epsilon_from_pld(cut, 1e-5, Adjacency::kAddRemove), PrivacyError);
  EXPECT_NEAR(epsilon_from_pld(cut, 1e-5, kZeroOut).upper, 4.275244, 3e-4) << "dp_accounting";
  const double plain = epsilon_from_pld(Events{Phase{0.1, 1, 10}}, 1e-5, kZeroOut).upper;
  EXPECT_GT(epsilon_from_rdp(cut, 1e-5, kZeroOut).epsilon, 4.275);
  // Beyond six standard deviations nothing is ever cut.
  const Events wide = {Phase{0.1, 1, 10, 1, Truncation{100, 60}}};
  EXPECT_NEAR(epsilon_from_pld(wide, 1e-5, kZeroOut).upper, plain, 1e-4);
}

double ln_normal_tail(double z) { return ln_normal_cdf(-z); }

/// A lower bound of epsilon that needs no accountant: the event that the output of some step lies
/// above c. P is exact, Q at most the sum over the steps.
double epsilon_by_threshold(double q, double sigma, double steps, double delta) {
  double best = 0;
  for (int i = 0; i <= 400; ++i) {
    const double c = -2 * sigma + (1 + 8 * sigma) * i / 400;
    const double p_one = (1 - q) * phi(-c / sigma) + q * phi((1 - c) / sigma);
    const double p = p_one < 1 ? -std::expm1(steps * std::log1p(-p_one)) : 1;
    const double ln_q = std::min(0.0, ln_normal_tail(c / sigma) + std::log(steps));
    if (p > delta) best = std::max(best, std::log(p - delta) - ln_q);
  }
  return best;
}

TEST(Pld, NeverBelowAThresholdTestEvenWithHardlyAnyNoise) {
  const struct {
    double q, sigma;
    std::int64_t steps;
    double delta;
  } cases[] = {{0.01, 0.02, 12, 1e-5},         {0.029, 0.0316, 1505, 3.8e-5},
               {0.00031, 0.0335, 10699, 5e-4}, {0.5, 0.001, 12, 1e-5},
               {0.5, 0.05, 1000, 1e-5},        {0.04, 0.01, 100, 1e-5},
               {0.5, 0.1, 30000, 1e-5},        {0.9, 0.05, 1000, 1e-5}};
  for (const auto& c : cases) {
    const Events events = {Phase{c.q, c.sigma, c.steps}};
    PldOptions quick;
    quick.points = 1 << 13;
    quick.max_points = 1 << 17;
    const double least = epsilon_by_threshold(c.q, c.sigma, static_cast<double>(c.steps), c.delta);
    const double one_step =
        epsilon_from_pld(Events{Phase{c.q, c.sigma, 1}}, c.delta, kZeroOut, quick).lower;
    for (const auto adjacency : {kZeroOut, kReplaceOne}) {
      const PldBracket found = epsilon_from_pld(events, c.delta, adjacency, quick);
      EXPECT_GE(found.upper, least) << to_text(events[0]);
      EXPECT_GE(found.upper, one_step) << to_text(events[0]);
      EXPECT_GE(found.upper, found.lower);
    }
    // delta at an epsilon that is certainly too small cannot be small.
    EXPECT_GE(delta_from_pld(events, least / 2, kZeroOut, quick).upper, c.delta);
  }
  // All losses of the second direction are one number but for their last bits.
  const auto alike = epsilon_from_pld(Events{Phase{0.01, 0.05, 100}}, 1e-5, kZeroOut);
  EXPECT_LE(alike.upper, alike.lower * 1.001);
  EXPECT_NEAR(alike.upper, 1463.01, 0.05);
  EXPECT_EQ(epsilon_from_pld(Events{Phase{0.5, 1e-300, 12}}, 1e-5, kZeroOut).upper, kInfinity);
  const Events joined = {Phase{0.01, 5, 1}, GaussianRelease{1, 0.0005}};
  EXPECT_GE(epsilon_from_pld(joined, 1e-5, kZeroOut).upper, gaussian_epsilon(2000, 1e-5));
}

RC_GTEST_PROP(Pld, NeverBelowAThresholdTest, ()) {
  const double q = std::pow(10.0, -0.001 * *rc::gen::inRange(50, 5000));
  const double sigma = std::pow(10.0, 0.001 * *rc::gen::inRange(-2000, 300));
  const auto steps = *rc::gen::inRange<std::int64_t>(1, 3000);
  const double delta = std::pow(10.0, -*rc::gen::inRange(2, 12));
  PldOptions quick;  // a coarse claim must be true as well
  quick.points = 1 << 13;
  quick.max_points = 1 << 16;
  const auto found = epsilon_from_pld(Events{Phase{q, sigma, steps}}, delta, kZeroOut, quick);
  RC_ASSERT(found.upper >= epsilon_by_threshold(q, sigma, static_cast<double>(steps), delta));
  RC_ASSERT(found.lower <= found.upper);
}

// Answers are kept for a while: each question differs from the first in one thing that the answer
// depends on, and is asked when all others have been.
TEST(Pld, AnotherQuestionHasAnotherAnswer) {
  const Phase phase{0.02, 1.1, 300};
  const GaussianRelease release{3, 1, 1};
  const ApproximateRelease other{0.1, 1e-7, 1};
  PldOptions coarse;
  coarse.points = 1 << 10;
  coarse.sketch = true;
  struct Question {
    Events events;
    double delta = 1e-5;
    Adjacency adjacency = kZeroOut;
    PldOptions options = {};
  };
  const std::vector<Question> questions = {
      {{phase}},
      {{Phase{0.021, 1.1, 300}}},
      {{Phase{0.02, 1.2, 300}}},
      {{Phase{0.02, 1.1, 301}}},
      {{Phase{0.02, 1.1, 300, 2}}},
      {{phase}, 1e-6},
      {{phase}, 1e-5, kReplaceOne},
      {{phase}, 1e-5, kZeroOut, coarse},
      {{phase, release}},
      {{phase, GaussianRelease{2.5, 1, 1}}},
      {{phase, GaussianRelease{3, 1.25, 1}}},
      {{phase, GaussianRelease{3, 1, 2}}},
      {{phase, other}},
      {{phase, ApproximateRelease{0.2, 1e-7, 1}}},
      {{phase, ApproximateRelease{0.1, 1e-6, 1}}},
      {{phase, ApproximateRelease{0.1, 1e-7, 2}}},
  };
  std::vector<double> first;
  for (const Question& q : questions)
    first.push_back(epsilon_from_pld(q.events, q.delta, q.adjacency, q.options).upper);
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const Question& q = questions[i];
    EXPECT_EQ(epsilon_from_pld(q.events, q.delta, q.adjacency, q.options).upper, first[i]) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(first[i], first[j]) << i << " and " << j;
  }
  const double delta = delta_from_pld(questions[0].events, 1, kZeroOut).upper;
  EXPECT_NE(delta_from_pld(questions[0].events, 1.1, kZeroOut).upper, delta);
  EXPECT_EQ(delta_from_pld(questions[0].events, 1, kZeroOut).upper, delta);
  const Phase nonsense{0.02, std::nan(""), 300};
  for (int again = 0; again < 2; ++again)
    EXPECT_THROW((void)epsilon_from_pld(Events{nonsense}, 1e-5, kZeroOut), UsageError) << again;
}

TEST(Pld, TinyDeltasOfOneStepAreExact) {
  for (const double q : {0.01, 0.3}) {
    const auto found = epsilon_from_pld(Events{Phase{q, 1, 1}}, 1e-20, kZeroOut);
    EXPECT_LT(found.upper - found.lower, 1e-4);
    EXPECT_NEAR(found.upper, q == 0.01 ? 4.404189 : 8.175590, 1e-5);
  }
}

RC_GTEST_PROP(Pld, BracketsHoldAndCoarseGridsClaimMore, ()) {
  const double q = std::pow(10.0, -0.001 * *rc::gen::inRange(100, 3500));
  const double sigma = 0.01 * *rc::gen::inRange(50, 600);
  const auto steps = *rc::gen::inRange<std::int64_t>(1, 2000);
  const double delta = std::pow(10.0, -*rc::gen::inRange(3, 12));
  const auto adjacency = *rc::gen::element(kZeroOut, kReplaceOne);
  const Events events = {Phase{q, sigma, steps}};
  const PldBracket fine = epsilon_from_pld(events, delta, adjacency);
  PldOptions rough;
  rough.points = 1 << 11;
  rough.max_points = 1 << 15;
  const PldBracket coarse = epsilon_from_pld(events, delta, adjacency, rough);
  RC_ASSERT(fine.lower <= fine.upper);
  RC_ASSERT(coarse.upper >= fine.lower * (1 - 1e-9));
  RC_ASSERT(coarse.lower <= fine.upper * (1 + 1e-9));
  RC_ASSERT(fine.upper <= epsilon_from_rdp(events, delta, adjacency).epsilon);
}

}  // namespace
}  // namespace sfumato
