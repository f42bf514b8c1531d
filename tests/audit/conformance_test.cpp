// The conformance audit passes production and raises the alarm for every defect.
#include "sfumato/audit/conformance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "audit/faulty_mechanisms.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSeed = 1;

/// Audits M, made for `made` (default: the claim), against the claim.
template <typename M, typename... Arguments>
ConformanceReport audit(const MechanismPlan& claim, const MechanismPlan& made,
                        Arguments... arguments) {
  LayerProbe network(clip_options(made));
  M mechanism(made, network.source(), kSeed, arguments...);
  return audit_conformance(mechanism, network, claim);
}

template <typename M, typename... Arguments>
ConformanceReport audit(Arguments... arguments) {
  const MechanismPlan plan = default_audit_plan();
  return audit<M>(plan, plan, arguments...);
}

TEST(Conformance, ProductionPasses) {
  for (const uint64_t seed : {1, 2, 3})
    EXPECT_THAT(audit_conformance(default_audit_plan(), seed).failures(), IsEmpty()) << seed;
}

TEST(Conformance, ProductionPassesWithOtherPlans) {
  MechanismPlan plan = default_audit_plan();
  plan.sample_rate = 0.3;
  plan.noise_multiplier = 0.4;
  plan.clip_norm_l2 = 0.02;
  plan.expected_batch_size = 500;
  plan.clipping = Clipping::kPerLayer;
  EXPECT_THAT(audit_conformance(plan, kSeed).failures(), IsEmpty());
  plan.sample_rate = 0.004;
  plan.noise_multiplier = 15;
  plan.clip_norm_l2 = 30;
  plan.clipping = Clipping::kAutomatic;
  EXPECT_THAT(audit_conformance(plan, kSeed).failures(), IsEmpty());
  plan.sample_rate = 1;
  plan.clipping = Clipping::kFlat;
  EXPECT_THAT(audit_conformance(plan, kSeed).failures(), IsEmpty());
}

TEST(Conformance, ProductionPassesWithKeysOfTheSystem) {
  EXPECT_THAT(audit_conformance(default_audit_plan()).failures(), IsEmpty());
}

TEST(Conformance, AllSixGroupsAreThere) {
  const ConformanceReport report = audit_conformance(default_audit_plan(), kSeed);
  std::set<std::string> groups;
  double statistical = 0;
  for (const ConformanceCheck& check : report.checks) {
    groups.insert(check.group);
    statistical += check.p_value.has_value();
    EXPECT_NE(check.p_value.has_value(), check.bound.has_value()) << check.name;
  }
  EXPECT_EQ(groups, (std::set<std::string>{"noise", "sampling", "bound", "divisor", "draws",
                                           "neighbours"}));
  EXPECT_DOUBLE_EQ(report.level * statistical, 1e-6);
  EXPECT_TRUE(report.conforms());
  EXPECT_THAT(to_text(report), HasSubstr("Verdict: consistent"));
  EXPECT_EQ(to_json(report)["checks"].size(), report.checks.size());
}

TEST(Conformance, NoiseOffRaisesTheAlarm) {
  const ConformanceReport report = audit<NoiseOff>();
  EXPECT_FALSE(report.conforms());
  EXPECT_THAT(report.failures(), Contains(HasSubstr("variance over (sigma C)^2")));
  EXPECT_THAT(to_text(report), HasSubstr("Verdict: CONTRADICTS"));
}

TEST(Conformance, LessNoiseRaisesTheAlarm) {
  const MechanismPlan claim = default_audit_plan();
  for (const double factor : {0.5, 0.99, 1.01}) {
    MechanismPlan made = claim;
    made.noise_multiplier *= factor;
    EXPECT_THAT(audit<ProductionMechanism>(claim, made).failures(),
                Contains(HasSubstr("variance over (sigma C)^2")))
        << factor;
  }
}

TEST(Conformance, AClipNormTwiceAsLargeRaisesTheAlarm) {
  const MechanismPlan claim = default_audit_plan();
  MechanismPlan made = claim;
  made.clip_norm_l2 *= 2;
  made.noise_multiplier /= 2;  // so that the noise is that of the claim
  const std::vector<std::string> failures = audit<ProductionMechanism>(claim, made).failures();
  EXPECT_THAT(failures, Contains(HasSubstr("one record less")));
  EXPECT_THAT(failures, Contains(HasSubstr("contribution over C")));
}

TEST(Conformance, DrawsClippedApartRaiseTheAlarm) {
  EXPECT_THAT(audit<DrawsClippedApart>().failures(), Contains(HasSubstr("each clipped once")));
}

TEST(Conformance, TheRealisedBatchAsDivisorRaisesTheAlarm) {
  EXPECT_THAT(audit<RealisedDivisor>().failures(), Contains(HasSubstr("times the expected batch")));
}

TEST(Conformance, AnEmptyBatchThatIsSkippedRaisesTheAlarm) {
  const std::vector<std::string> failures = audit<EmptyBatchSkipped>().failures();
  EXPECT_THAT(failures, Contains(HasSubstr("variance of empty batches")));
  EXPECT_THAT(failures, Contains(HasSubstr("not charged")));
}

TEST(Conformance, ANaNThatIsKeptRaisesTheAlarm) {
  EXPECT_THAT(audit<NaNKept>().failures(), Contains(HasSubstr("an example that is NaN")));
}

TEST(Conformance, ShuffledEpochsRaiseTheAlarm) {
  const std::vector<std::string> failures = audit<ShuffledEpochs>().failures();
  EXPECT_THAT(failures, Contains(HasSubstr("batch sizes")));
  EXPECT_THAT(failures, Contains(HasSubstr("inclusions of records")));
  EXPECT_THAT(audit<FixedSizeBatches>().failures(), Contains(HasSubstr("batch sizes")));
}

TEST(Conformance, NoiseUsedTwiceRaisesTheAlarm) {
  EXPECT_THAT(audit<NoiseReused>(int64_t{1}).failures(),
              Contains(HasSubstr("correlation of neighbouring steps")));
  EXPECT_THAT(audit<NoiseReused>(int64_t{50}).failures(),
              Contains(HasSubstr("most alike two steps")));
  EXPECT_THAT(audit<StreamsReplayedOnResume>().failures(),
              Contains(HasSubstr("taken again by a resumed session")));
}

TEST(Conformance, ASampleRateFivePercentOffRaisesTheAlarm) {
  const MechanismPlan claim = default_audit_plan();
  for (const double factor : {1.05, 0.95}) {
    MechanismPlan made = claim;
    made.sample_rate *= factor;
    EXPECT_THAT(audit<ProductionMechanism>(claim, made).failures(),
                Contains(HasSubstr("rate of inclusion")))
        << factor;
  }
}

TEST(Conformance, StepsWithoutAChargeRaiseTheAlarm) {
  EXPECT_THAT(audit<EverySecondStepCharged>().failures(), Contains(HasSubstr("not charged")));
}

std::unique_ptr<Config> smoke_config(std::vector<std::string> overrides = {}) {
  const std::filesystem::path configs = test::source_folder() / "configs";
  overrides.push_back("model.config=" + (configs / "networks/smoke_unet.json").string());
  return load_config(configs / "smoke.yaml", overrides);
}

TEST(Conformance, TheNetworkOfAConfigurationPasses) {
  for (const std::string clipping : {"flat", "per_layer", "automatic"}) {
    const ConformanceReport report =
        audit_conformance(*smoke_config({"mechanism.clipping=" + clipping}));
    EXPECT_THAT(report.failures(), IsEmpty()) << clipping;
    EXPECT_TRUE(std::any_of(report.checks.begin(), report.checks.end(),
                            [](const auto& check) { return check.subject == "network"; }));
    EXPECT_EQ(report.plan.sample_rate, 0.0032);
  }
}

TEST(Conformance, TheNetworkOfAConfigurationWithAnotherClipNormRaisesTheAlarm) {
  // Gradients of a fresh network have norms of about 1: both clip norms are below.
  MechanismPlan claim = default_audit_plan(), made = claim;
  claim.clip_norm_l2 = 0.01;
  made.clip_norm_l2 = 0.02;
  ConfiguredProbe network(*smoke_config(), made);
  ProductionMechanism mechanism(made, network.source(), kSeed);
  ConformanceAudit audit(claim);
  audit.check_gradients(mechanism, network, "network");
  audit.check_release(mechanism, network, "network");
  const std::vector<std::string> failures = audit.report().failures();
  EXPECT_THAT(failures, Contains(HasSubstr("one record less")));
  EXPECT_THAT(failures, Contains(HasSubstr("variance over (sigma C)^2")));
}

TEST(Conformance, APlanWithoutPrivacyIsRefused) {
  MechanismPlan plan = default_audit_plan();
  plan.is_private = false;
  EXPECT_THROW(audit_conformance(plan, kSeed), UsageError);
}

}  // namespace
}  // namespace sfumato
