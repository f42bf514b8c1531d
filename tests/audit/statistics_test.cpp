// Lower bounds on epsilon against published reference values, brute force and simulation.
#include "sfumato/audit/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

/// Phi^-1((i + 1/2) / n) + shift: a normal sample without randomness.
std::vector<double> normal_scores(int n, double shift) {
  std::vector<double> scores;
  for (int i = 0; i < n; ++i) scores.push_back(normal_quantile((i + 0.5) / n) + shift);
  return scores;
}

// jax_privacy tests/auditing_test.py, test_epsilon_one_run_close: all corners of the ROC hull,
// alpha 0.05 shared among them, delta 1e-6.
TEST(OneRun, ReferenceValues) {
  const std::vector<double> out = normal_scores(10000, 0);
  const double expected[][3] = {
      {0, 0, 0}, {1, 1.13346, 2.164749}, {2, 2.311945, 4.7218075}, {4, 4.395568, 9.133752}};
  for (const auto& [shift, steinke, fdp] : expected) {
    const std::vector<double> in = normal_scores(10000, shift);
    const auto bound = [&](OneRunMethod method) {
      return one_run_bound(in, out, 1e-6, 0.05, method, GuessRule::kHull).epsilon;
    };
    EXPECT_NEAR(bound(OneRunMethod::kSteinke), steinke, 1e-5 * steinke) << shift;
    EXPECT_NEAR(bound(OneRunMethod::kFdp), fdp, 1e-5 * fdp) << shift;
  }
}

// Saturation: perfectly separated canaries at confidence 0.95 and delta 1e-5.
TEST(OneRun, WhatCanBeAttained) {
  const auto attainable = [](int64_t m, OneRunMethod method) {
    return attainable_one_run_epsilon(m, 1e-5, 0.05, method);
  };
  // With alpha shared among eight looks it is somewhat less than 4.5 and 5.4 of a single look.
  EXPECT_NEAR(attainable(1000, OneRunMethod::kSteinke), 4.5, 0.7);
  EXPECT_NEAR(attainable(5000, OneRunMethod::kSteinke), 5.4, 0.7);
  EXPECT_NEAR(one_run_epsilon(1000, 500, 500, 1e-5, 0.05), 4.5, 0.7);
  EXPECT_GT(attainable(5000, OneRunMethod::kFdp), attainable(1000, OneRunMethod::kFdp));
  EXPECT_GT(attainable(1000, OneRunMethod::kFdp), attainable(1000, OneRunMethod::kSteinke));
}

TEST(OneRun, PValueIsTheSumOfItsDefinition) {
  for (const int64_t guesses : {1, 10, 60}) {
    for (int64_t correct = 0; correct <= guesses; correct += 3) {
      for (const double epsilon : {0.0, 0.5, 3.0}) {
        for (const double delta : {0.0, 1e-6, 1e-3, 0.1}) {
          const double q = 1 / (1 + std::exp(-epsilon));
          double beta = 0, best = 0, sum = 0;
          for (int64_t k = correct; k <= guesses; ++k)
            beta += std::exp(binomial_log_pmf(guesses, q, k));
          for (int64_t i = 1; i <= correct; ++i) {
            sum += std::exp(binomial_log_pmf(guesses, q, correct - i));
            best = std::max(best, sum / static_cast<double>(i));
          }
          EXPECT_NEAR(one_run_p_value(100, guesses, correct, epsilon, delta),
                      std::min(1.0, beta + 200 * delta * best), 1e-12)
              << guesses << " " << correct << " " << epsilon << " " << delta;
        }
      }
    }
  }
}

TEST(OneRun, TheBoundIsWhereThePValueReachesAlpha) {
  const double epsilon = one_run_epsilon(2000, 250, 230, 1e-5, 0.01);
  EXPECT_GT(epsilon, 1);
  EXPECT_NEAR(one_run_p_value(2000, 250, 230, epsilon, 1e-5), 0.01, 1e-9);
  EXPECT_EQ(one_run_epsilon(2000, 250, 120, 1e-5, 0.01), 0);
  EXPECT_EQ(one_run_epsilon(2000, 250, 230, 1e-5, 0.01, 40), 40) << "the floor";
}

TEST(OneRun, PreRegisteredNumbersOfGuesses) {
  EXPECT_EQ(pre_registered_guesses(5000),
            (std::vector<int64_t>{2500, 1250, 625, 312, 156, 78, 39, 19}));
  EXPECT_EQ(pre_registered_guesses(5), (std::vector<int64_t>{2, 1}));
}

// Exact randomised response, the worst case of (epsilon, 0): the bound exceeds the truth in at most
// the promised share of audits.
TEST(OneRun, TheBoundIsRarelyAboveTheTruth) {
  constexpr double kEpsilon = 1, kAlpha = 0.2;
  std::mt19937_64 random(7);
  std::bernoulli_distribution coin(0.5), truthful(1 / (1 + std::exp(-kEpsilon)));
  int wrong = 0;
  for (int audit = 0; audit < 300; ++audit) {
    std::vector<double> scores;
    std::vector<bool> is_in;
    for (int i = 0; i < 400; ++i) {
      is_in.push_back(coin(random));
      scores.push_back(truthful(random) == is_in.back() ? 1.0 : 0.0);
    }
    wrong += one_run_bound(scores, is_in, 1e-6, kAlpha, OneRunMethod::kSteinke).epsilon > kEpsilon;
  }
  EXPECT_LE(wrong, 300 * kAlpha);
}

TEST(OneRun, EqualScoresAndNaNTellNothing) {
  std::vector<double> scores(512, 1.0);
  std::vector<bool> is_in;
  for (int i = 0; i < 512; ++i) is_in.push_back(i % 2 == 0);
  EXPECT_EQ(one_run_bound(scores, is_in, 1e-6, 0.05, OneRunMethod::kSteinke).epsilon, 0);
  for (int i = 0; i < 512; ++i)
    if (is_in[static_cast<size_t>(i)]) scores[static_cast<size_t>(i)] = std::nan("");
  EXPECT_EQ(one_run_bound(scores, is_in, 1e-6, 0.05, OneRunMethod::kSteinke).epsilon, 0);
}

TEST(OneRun, ImpossibleCountsAreRefused) {
  EXPECT_THROW(one_run_epsilon(10, 11, 5, 1e-6, 0.05), UsageError);
  EXPECT_THROW(one_run_epsilon(10, 5, 6, 1e-6, 0.05), UsageError);
  EXPECT_THROW(one_run_epsilon(10, 5, 5, 1e-6, 0), UsageError);
  EXPECT_THROW(one_run_epsilon(10, 5, 5, 1, 0.05), UsageError);
  EXPECT_THROW(fdp_one_run_epsilon(10, 5, 5, 0, 0.05), UsageError);
}

// The Gaussian mechanism of sigma 1 at delta 1e-5 costs 4.377178.
TEST(GaussianDp, EpsilonDeltaAndMuAgree) {
  EXPECT_NEAR(gaussian_epsilon(1, 1e-5), 4.377178, 1e-6);
  EXPECT_NEAR(gaussian_delta(1, 1), 0.126936, 1e-6);
  for (const double mu : {1e-3, 0.3, 1.0, 7.0})
    for (const double delta : {1e-12, 1e-6, 1e-4})
      EXPECT_NEAR(gaussian_mu(gaussian_epsilon(mu, delta), delta), mu, 1e-9 * mu + 1e-9)
          << mu << " " << delta;
  EXPECT_EQ(gaussian_epsilon(0, 1e-6), 0);
  EXPECT_TRUE(std::isinf(gaussian_epsilon(std::numeric_limits<double>::infinity(), 1e-6)));
}

TEST(ManyRuns, ClopperPearsonEpsilonOfCounts) {
  // 100 of 1000 missed, 20 of 1000 falsely accused; scipy's bounds at 0.025 each.
  const ErrorCounts counts{1000, 100, 1000, 20};
  const ErrorRates rates = upper_error_rates(counts, 0.05);
  EXPECT_NEAR(binomial_lower_tail(1000, rates.false_negative, 100), 0.025, 1e-9);
  EXPECT_NEAR(binomial_lower_tail(1000, rates.false_positive, 20), 0.025, 1e-9);
  EXPECT_NEAR(clopper_pearson_epsilon(counts, 1e-5, 0.05),
              std::log((1 - rates.false_negative - 1e-5) / rates.false_positive), 1e-12);
  EXPECT_EQ(clopper_pearson_epsilon({1000, 500, 1000, 500}, 1e-5, 0.05), 0);
  // The other direction of the guess: few misses, many false accusations.
  EXPECT_GT(clopper_pearson_epsilon({1000, 1, 1000, 600}, 1e-5, 0.05), 3);
}

TEST(ManyRuns, MuOfCountsBracketsTheTruth) {
  // Two unit normals two apart, threshold between them: error rates of Phi(-1) each.
  const auto errors = static_cast<int64_t>(std::lround(100000 * normal_cdf(-1)));
  const MuEstimate mu = estimate_mu({100000, errors, 100000, errors}, 0.05);
  EXPECT_NEAR(mu.estimate, 2, 1e-3);
  EXPECT_LT(mu.lower, 2);
  EXPECT_GT(mu.upper, 2);
  EXPECT_NEAR(mu.upper - mu.lower, 0.04, 0.02);
  EXPECT_TRUE(std::isinf(estimate_mu({100, 0, 100, 0}, 0.05).upper));
}

}  // namespace
}  // namespace sfumato
