// The canary audit: consistent on production, a contradiction on what leaks more than it claims.
#include "sfumato/audit/canaries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "audit/faulty_mechanisms.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::Not;

MechanismPlan plan_of(double q, double sigma, int64_t steps) {
  MechanismPlan plan = default_audit_plan();
  plan.sample_rate = q;
  plan.noise_multiplier = sigma;
  plan.steps = steps;
  return plan;
}

/// Audits M, made for `made`, against `claim`.
template <typename M>
CanaryReport canary_audit(const MechanismPlan& claim, const MechanismPlan& made, int64_t canaries) {
  CanaryProbe network(canaries, clip_options(made));
  M mechanism(made, network.source(), 1);
  CanaryOptions options;
  options.canaries = canaries;
  return audit_canaries(mechanism, network, claim, options, 2);
}

TEST(Canaries, ProductionIsConsistentWithItsClaim) {
  for (const uint64_t seed : {1, 2, 3}) {
    for (const MechanismPlan& plan :
         {plan_of(0.05, 0.8, 100), plan_of(1, 2, 10), plan_of(0.3, 3, 60)}) {
      CanaryOptions options;
      options.canaries = 2000;
      const CanaryReport report = audit_canaries(plan, options, seed);
      EXPECT_FALSE(report.contradicts()) << to_text(report);
      EXPECT_LT(report.steinke.epsilon, report.claim.epsilon);
      EXPECT_LT(report.fdp.epsilon, report.claim.epsilon);
      EXPECT_LT(report.independent_epsilon, report.claim.epsilon);
      EXPECT_FALSE(report.mu_beyond_claim()) << to_text(report);
      EXPECT_LE(report.steinke.epsilon, report.attainable_steinke);
    }
  }
}

// The audit is not vacuous: of what a Gaussian mechanism leaks it finds all but the sampling error.
TEST(Canaries, TheEstimateOfMuIsThatOfTheGaussianMechanism) {
  const CanaryReport report =
      canary_audit<ProductionMechanism>(plan_of(1, 2, 16), plan_of(1, 2, 16), 5000);
  EXPECT_NEAR(report.claimed_mu, 2, 0.01) << "sqrt(16) / 2";
  EXPECT_NEAR(report.mu.estimate, 2, 0.2);
  EXPECT_LT(report.mu.lower, 2);
  EXPECT_GT(report.mu.upper, 2);
  EXPECT_GT(report.steinke.epsilon, 1);
  EXPECT_GT(report.fdp.epsilon, 2);
}

TEST(Canaries, NoiseOffContradicts) {
  const MechanismPlan plan = plan_of(0.05, 0.8, 100);
  const CanaryReport report = canary_audit<NoiseOff>(plan, plan, 2000);
  EXPECT_TRUE(report.contradicts());
  EXPECT_TRUE(report.mu_beyond_claim());
  EXPECT_THAT(to_text(report), HasSubstr("CONTRADICTS"));
  // With perfect separation every pre-registered guess is right. At 100 steps some canaries that
  // are in are never sampled, so the largest number of guesses is not.
  EXPECT_EQ(report.steinke.correct, report.steinke.guesses);
}

// One run alone cannot refute this (the bounds stay below the claim); the profile test can.
TEST(Canaries, HalfTheNoiseContradicts) {
  const MechanismPlan claim = plan_of(0.05, 0.8, 400), made = plan_of(0.05, 0.4, 400);
  CanaryProbe network(5000, {Clipping::kFlat, 1.0, 0.01});
  ProductionMechanism mechanism(made, network.source(), 1);
  const CanaryReport report = audit_canaries(mechanism, network, claim, {}, 2);
  EXPECT_NEAR(report.claim.epsilon, 10.73, 0.1);
  EXPECT_LT(report.steinke.epsilon, report.claim.epsilon);
  EXPECT_TRUE(report.profile.contradicts());
  EXPECT_TRUE(report.contradicts());
  EXPECT_TRUE(report.mu_beyond_claim());
  EXPECT_GT(gaussian_epsilon(report.mu.lower, 1e-5), report.claim.epsilon);
  EXPECT_THAT(to_text(report), HasSubstr("BEYOND THE CLAIM"));
}

TEST(Canaries, AClipNormTwiceAsLargeContradicts) {
  const MechanismPlan claim = plan_of(0.1, 1, 200);
  MechanismPlan made = claim;
  made.clip_norm_l2 *= 2;
  made.noise_multiplier /= 2;  // so that the noise is that of the claim
  EXPECT_TRUE(canary_audit<ProductionMechanism>(claim, made, 5000).contradicts());
}

TEST(Canaries, TheProfileTestKnowsWhatAGaussianMechanismAllows) {
  // Error rates of mu = 1 at many thresholds, from a million outcomes each: exactly what the
  // mechanism shows, and what mu = 0.9 would not.
  for (const double threshold : {-0.5, 0.0, 0.5, 1.0, 1.5}) {
    const auto count = [](double p) { return static_cast<int64_t>(std::lround(p * 1e6)); };
    const ErrorCounts counts{1'000'000, count(std::erfc(-(threshold - 1) / std::sqrt(2)) / 2),
                             1'000'000, count(std::erfc(threshold / std::sqrt(2)) / 2)};
    const PrivacyEvent truth[] = {Phase{1, 1, 1}}, less[] = {Phase{1, 1 / 0.9, 1}};
    EXPECT_FALSE(test_profile(counts, truth, gaussian_epsilon(1, 1e-5), 1e-6).contradicts());
    EXPECT_TRUE(test_profile(counts, less, gaussian_epsilon(0.9, 1e-5), 1e-6).contradicts());
  }
}

TEST(Canaries, ASmallBoundIsNeitherEvidenceNorTheTrueEpsilon) {
  CanaryOptions options;
  options.canaries = 500;
  const CanaryReport report = audit_canaries(plan_of(0.05, 0.8, 50), options, 4);
  const std::string text = to_text(report);
  EXPECT_THAT(text, HasSubstr("consistent with the claim"));
  EXPECT_THAT(text, HasSubstr("no evidence of a mistake"));
  EXPECT_THAT(text, HasSubstr("not the true epsilon"));
  EXPECT_THAT(text, Not(HasSubstr("CONTRADICTS")));
  const auto json = to_json(report);
  EXPECT_EQ(json["verdict"], "consistent");
  EXPECT_EQ(json["canaries"], 500);
  EXPECT_GT(json["one_run"]["attainable"], json["one_run"]["epsilon_lower"]);
}

TEST(Canaries, BadOptionsAreRefused) {
  CanaryOptions options;
  options.canaries = 3;
  EXPECT_THROW(audit_canaries(plan_of(0.05, 1, 10), options, 1), UsageError);
  options.canaries = 100;
  options.confidence = 1;
  EXPECT_THROW(audit_canaries(plan_of(0.05, 1, 10), options, 1), UsageError);
  options.confidence = 0.95;
  options.delta = 0;
  EXPECT_THROW(audit_canaries(plan_of(0.05, 1, 10), options, 1), UsageError);
  options.delta = 1e-5;
  MechanismPlan plan = plan_of(0.05, 1, 10);
  plan.is_private = false;
  EXPECT_THROW(audit_canaries(plan, options, 1), UsageError);
}

}  // namespace
}  // namespace sfumato
