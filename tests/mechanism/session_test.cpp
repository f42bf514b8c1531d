// The one place where sampling, charge and noise meet. What comes out of it is looked at by
// audit/conformance_test.cpp; what training makes of it by train/trainer_test.cpp.
#include "sfumato/mechanism/session.h"

#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/nn/layers.h"
#include "sfumato/privacy/poisson_sampler.h"
#include "sfumato/run/witness.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::central_stage;
using test::error_message;
using testing::HasSubstr;

class Sessions : public ::testing::Test {
 protected:
  Sessions() {
    plan.sample_rate = 0.25;
    plan.noise_multiplier = 2;
    plan.steps = 5;
    plan.expected_batch_size = 10;
    plan.stages = {central_stage(0.5, 3, 2, 4)};
  }
  SessionPlace place() { return {folder / "ledger.jsonl", folder.path()}; }
  MechanismSession create() {
    return MechanismSession::create(plan, place(), SecureKey::insecure_for_tests(1));
  }
  MechanismSession resume(uint64_t seed, const Checkpoint* checkpoint = nullptr) {
    return MechanismSession::resume(plan, place(), SecureKey::insecure_for_tests(seed), checkpoint);
  }
  ClippedSum empty_sum() { return engine.take(); }

  test::TempFolder folder;
  MechanismPlan plan;
  Linear network{4, 3};
  GradientEngine engine{network.parameters(), {Clipping::kFlat, 1.0, 0.01}};
};

TEST_F(Sessions, SamplesAreThoseOfTheKeyAtTheRateOfThePlan) {
  const MechanismSession session = create();
  const SecureKey key = SecureKey::insecure_for_tests(1);
  const PoissonSampler training(key, 0.25);
  for (const int64_t step : {0, 3})
    EXPECT_EQ(session.sample(step, 1000), training.draw(step, 1000));
}

TEST_F(Sessions, AStageDrawsAnotherSampleForEveryRelease) {
  MechanismSession session = create();
  const SecureKey key = SecureKey::insecure_for_tests(1);
  const PoissonSampler stage = PoissonSampler::of_stage(key, 0.5, 0);
  for (const int64_t release : {0, 1}) {
    for (const int asked : {1, 2})
      EXPECT_EQ(session.sample(plan.stages[0], 1000), stage.draw(release, 1000)) << asked;
    (void)session.release(StatisticSum(1, 1, 4), plan.stages[0]);
  }
}

// The accountant composes stages as independent mechanisms: the release r of one must not tell who
// is in the release r of another.
TEST(SamplesOfStages, AreIndependentOfEachOther) {
  const StagePlan first{.name = "central_images", .event = Phase{0.1, 5, 10}},
      second{.name = "feature_classifier", .event = Phase{0.05, 3, 10}};
  test::Session session({first, second});
  constexpr int64_t kRecords = 100'000;
  for (int release = 0; release < 3; ++release) {
    const std::vector<int64_t> one = session.mechanism.sample(first, kRecords),
                               other = session.mechanism.sample(second, kRecords);
    std::vector<int64_t> both;
    std::ranges::set_intersection(one, other, std::back_inserter(both));
    const double expected = 0.1 * 0.05 * kRecords;
    EXPECT_NEAR(static_cast<double>(both.size()), expected, test::kQuantile * std::sqrt(expected));
    for (const StagePlan& stage : {first, second})
      (void)session.mechanism.release(StatisticSum(1, 1, stage.clip_norm_l2), stage);
  }
}

TEST_F(Sessions, EveryReleaseIsChargedAndNoneIsLeftInTheEnd) {
  MechanismSession session = create();
  double before = session.epsilon();
  for (int64_t step = 0; step < plan.steps; ++step) {
    EXPECT_EQ(session.steps_left(), plan.steps - step);
    (void)session.release(empty_sum(), step);
    EXPECT_EQ(verify_ledger(place().ledger).charged_steps, step + 1);
    EXPECT_GT(session.epsilon(), before);
    before = session.epsilon();
  }
  EXPECT_EQ(session.steps_left(), 0);
  EXPECT_EQ(before, plan.epsilon_after(plan.steps));
  EXPECT_THROW((void)session.release(empty_sum(), plan.steps), PrivacyError);
}

TEST_F(Sessions, ANoisyGradientHasTheNoiseOfThePlan) {
  // The sum is empty: what comes is noise of sigma C / b on 15 numbers, over 5 steps.
  MechanismSession session = create();
  double squares = 0;
  int64_t count = 0;
  for (int64_t step = 0; step < plan.steps; ++step)
    for (const at::Tensor& g : session.release(empty_sum(), step).gradients()) {
      squares += g.to(at::kDouble).square().sum().item<double>();
      count += g.numel();
    }
  const double expected = noise_stddev(2, 1, 10) / 10, n = static_cast<double>(count);
  EXPECT_NEAR(squares / n / (expected * expected), 1, test::kQuantile * std::sqrt(2 / n));
}

TEST_F(Sessions, ASumOfAnotherClipNormIsNotReleased) {
  MechanismSession session = create();
  for (const double clip : {2.0, 0.5, 1 + 1e-15}) {
    GradientEngine other(network.parameters(), {Clipping::kFlat, clip, 0.01});
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)session.release(other.take(), 0); }),
                HasSubstr("whose clip norm is 1"));
  }
  EXPECT_EQ(session.ledger().charged_steps(), 0) << "nothing was released";
  (void)session.release(empty_sum(), 0);
}

TEST_F(Sessions, AStageIsReleasedAsThePlanHasItOrNotAtAll) {
  MechanismSession session = create();
  const auto refused = [&](const StagePlan& stage, double clip) {
    return error_message<PrivacyError>(
        [&] { (void)session.release(StatisticSum(1, 1, clip), stage); });
  };
  EXPECT_THAT(refused(central_stage(0.5, 1e-3, 2, 4), 4), HasSubstr("plans no stage"));
  EXPECT_THAT(refused(central_stage(0.5, 3, 2, 1), 1), HasSubstr("plans no stage"));
  EXPECT_THAT(refused(test::histogram_stage(3), 1), HasSubstr("plans no stage"));
  EXPECT_THAT(refused(plan.stages[0], 100), HasSubstr("clipped to 100"));
  EXPECT_THROW((void)session.sample(central_stage(0.9, 3, 2, 4), 10), PrivacyError);
  EXPECT_EQ(session.ledger().charged_releases("central_images"), 0) << "nothing was released";
  EXPECT_EQ(session.release(StatisticSum(3, 5, 4), plan.stages[0]).size(), 15u);
  EXPECT_EQ(session.ledger().charged_releases("central_images"), 1);
}

TEST_F(Sessions, GoOnWithTheRecordsThatTheyBeganWith) {
  const std::string own(64, 'a'), other(64, 'b');
  SessionPlace where = place();
  where.data_manifest_hash = own;
  {
    MechanismSession session =
        MechanismSession::create(plan, where, SecureKey::insecure_for_tests(1));
    (void)session.release(StatisticSum(1, 1, 4), plan.stages[0]);
  }
  const std::string before = read_file(where.ledger);
  for (const std::string& found : {other, std::string()}) {
    where.data_manifest_hash = found;
    EXPECT_THAT(error_message<PrivacyError>([&] {
                  (void)MechanismSession::resume(plan, where, SecureKey::insecure_for_tests(2));
                }),
                HasSubstr("is not the one that the run"));
  }
  EXPECT_EQ(read_file(where.ledger), before);
  where.data_manifest_hash = own;
  EXPECT_NO_THROW(MechanismSession::resume(plan, where, SecureKey::insecure_for_tests(2)));
}

TEST_F(Sessions, AResumedSessionHasANewKeyAndTheFrozenPlan) {
  create().stop(0, "interrupted");
  EXPECT_THAT(error_message<PrivacyError>([&] { resume(1); }), HasSubstr("needs a new key"));
  plan.noise_multiplier = 1.5;
  EXPECT_THAT(error_message<PrivacyError>([&] { resume(2); }),
              HasSubstr("noise_multiplier: 2.0 in the run, 1.5 in the configuration"));
  plan.noise_multiplier = 2;
  MechanismSession session = resume(2);
  EXPECT_EQ(session.sample(0, 1000),
            PoissonSampler(SecureKey::insecure_for_tests(2), 0.25).draw(0, 1000));
  EXPECT_EQ(session.ledger().plan_hash(), plan.hash());
}

TEST_F(Sessions, OnlyACheckpointThatTheLedgerNotesIsResumedFrom) {
  Checkpoint saved;
  {
    MechanismSession session = create();
    (void)session.release(empty_sum(), 0);
    saved.step = 1;
    saved.groups = {tensor_group("model", {{"w", at::zeros({2})}})};
    session.checkpoint(saved);
  }
  Checkpoint other = saved;
  other.groups = {tensor_group("model", {{"w", at::zeros({2}).add(1)}})};
  EXPECT_THAT(error_message<PrivacyError>([&] { resume(2, &other); }),
              HasSubstr("its tensors (SHA-256"));
  other = saved;
  other.step = 2;
  EXPECT_THROW(resume(2, &other), PrivacyError);
  EXPECT_EQ(resume(2, &saved).steps_left(), plan.steps - 1);
}

TEST_F(Sessions, ALedgerOfAnOlderPlanVersionGoesOnWithItsHash) {
  plan.version = 0;
  create().stop(0, "interrupted");
  const std::string hash = verify_ledger(place().ledger).plan_hash;
  plan.version = kPlanVersion;
  MechanismSession session = resume(2);
  EXPECT_EQ(session.plan().version, 0);
  EXPECT_EQ(session.plan().hash(), hash);
  Checkpoint saved;
  session.checkpoint(saved);
  EXPECT_EQ(saved.state["plan_hash"], hash);
}

/// Of the central images, of which the plan releases two, for a store that must remember them.
class WitnessedSessions : public Sessions {
 protected:
  WitnessedSessions() {
    namespace fs = std::filesystem;
    fs::create_directories(uses().parent_path());
    MechanismSession::create(plan, in_store(false), SecureKey::insecure_for_tests(1))
        .stop(0, "test");
  }
  std::filesystem::path uses() const { return folder / "store/uses"; }
  SessionPlace in_store(bool must_be_witnessed) {
    SessionPlace out = place();
    out.store = folder / "store";
    out.data_manifest_hash = std::string(64, 'a');
    out.must_be_witnessed = must_be_witnessed;
    return out;
  }
  MechanismSession resume_in_store(bool must_be_witnessed) {
    return MechanismSession::resume(plan, in_store(must_be_witnessed), SecureKey::generate());
  }
  std::string refusal(MechanismSession& session) {
    return error_message<PrivacyError>(
        [&] { (void)session.release(StatisticSum(1, 1, 4), plan.stages[0]); });
  }
  std::int64_t remembered() const {
    const auto witness =
        read_witness(folder / "store", verify_ledger(folder / "ledger.jsonl").run_id);
    return witness->stage_charges.at("central_images");
  }
};

TEST_F(WitnessedSessions, DrawNoNoiseThatTheStoreDoesNotRemember) {
  MechanismSession session = resume_in_store(true);
  EXPECT_EQ(session.release(StatisticSum(1, 1, 4), plan.stages[0]).size(), 1u);
  EXPECT_EQ(remembered(), 1);
  std::filesystem::remove_all(uses());
  write_file_atomic(uses(), "in the way");  // as good as read-only, also for root
  EXPECT_THAT(refusal(session), HasSubstr("nothing is released"));
  EXPECT_EQ(session.ledger().charged_releases("central_images"), 2) << "charged, and lost";
  EXPECT_THAT(error_message<PrivacyError>([&] { resume_in_store(true); }),
              HasSubstr("nothing is released"));
}

TEST_F(WitnessedSessions, AreWrittenAtEveryRelease) {
  MechanismSession session = resume_in_store(true);
  for (const std::int64_t made : {1, 2}) {
    (void)session.release(StatisticSum(1, 1, 4), plan.stages[0]);
    EXPECT_EQ(remembered(), made);
  }
}

TEST_F(WitnessedSessions, AreNotBegunAnewWhereTheWitnessIsGone) {
  MechanismSession session = resume_in_store(true);
  std::filesystem::remove_all(uses());
  std::filesystem::create_directory(uses());
  EXPECT_THAT(refusal(session), HasSubstr("is gone"));
  EXPECT_THAT(error_message<PrivacyError>([&] { resume_in_store(true); }),
              HasSubstr("does not remember the run"));
}

TEST_F(WitnessedSessions, OfTrainingGoOnWithout) {
  MechanismSession session = resume_in_store(false);
  std::filesystem::remove_all(uses());
  write_file_atomic(uses(), "in the way");
  EXPECT_EQ(session.release(StatisticSum(1, 1, 4), plan.stages[0]).size(), 1u);
}

TEST_F(WitnessedSessions, ReleaseOneAtATime) {
  {
    const MechanismSession session = resume_in_store(true);
    WitnessKeeper copy(folder / "store", WitnessDuty::kRefuses);
    EXPECT_THAT(error_message<PrivacyError>(
                    [&] { (void)copy.check(verify_ledger(folder / "ledger.jsonl")); }),
                HasSubstr("another process releases something"));
  }
  WitnessKeeper later(folder / "store", WitnessDuty::kRefuses);
  EXPECT_NO_THROW((void)later.check(verify_ledger(folder / "ledger.jsonl")));
}

TEST_F(WitnessedSessions, AreRememberedByHeldOutImagesAfterTheCharge) {
  const std::filesystem::path held_out = folder / "held-out";
  std::filesystem::create_directory(held_out);
  SessionPlace where = in_store(true);
  where.held_out = held_out;
  MechanismSession session = MechanismSession::resume(plan, where, SecureKey::generate());
  const std::string id = session.ledger().run_id();
  (void)session.release(StatisticSum(1, 1, 4), plan.stages[0]);
  EXPECT_EQ(read_witness(held_out, id)->stage_charges.at("central_images"), 1);
  std::filesystem::remove_all(held_out / "uses");
  EXPECT_THAT(refusal(session), HasSubstr("nothing is released"));
}

TEST_F(WitnessedSessions, NeedAStore) {
  SessionPlace where = place();
  where.must_be_witnessed = true;
  EXPECT_THROW(MechanismSession::resume(plan, where, SecureKey::generate()), PrivacyError);
  where = in_store(false);
  where.data_manifest_hash.clear();
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { MechanismSession::resume(plan, where, SecureKey::generate()); }),
              HasSubstr("needs its manifest_hash"));
}

}  // namespace
}  // namespace sfumato
