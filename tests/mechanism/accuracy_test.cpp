// The stage that is made after the release: right answers of classifiers, counted and noisy.
#include "sfumato/mechanism/accuracy.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "mechanism/stage_session.h"
#include "mechanism/statistic_sums.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/run/run_verification.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

const std::string kAccuracy = "mechanism.stages.accuracy.";

StagePlan accuracy_of(int64_t classifiers, double noise_multiplier) {
  return {.name = "accuracy",
          .event = Phase{1, noise_multiplier, 1},
          .clip_norm_l2 = norm_of_answers(classifiers)};
}

/// What each of some records adds, drawn at random.
std::vector<std::vector<float>> random_answers(int records, int classifiers, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<float>> answers(static_cast<size_t>(records));
  for (auto& one : answers)
    for (int c = 0; c < classifiers; ++c)
      one.push_back(static_cast<float>(random() % 4) / 3);  // of three trainings
  return answers;
}

StatisticSum sum_of(const std::vector<std::vector<float>>& answers, const StagePlan& stage) {
  return count_right_answers(stage, std::ssize(answers), std::ssize(answers.front()),
                             [&](int64_t record, std::span<float> right) {
                               std::ranges::copy(answers[static_cast<size_t>(record)],
                                                 right.begin());
                             });
}

TEST(RightAnswers, AreWhatACountByHandGives) {
  for (const int classifiers : {1, 3}) {
    const auto answers = random_answers(200, classifiers, 7);
    std::vector<double> by_hand(static_cast<size_t>(classifiers));
    for (const auto& one : answers)
      for (size_t c = 0; c < one.size(); ++c) by_hand[c] += one[c];
    const auto sums = StatisticSumInspector::sums(sum_of(answers, accuracy_of(classifiers, 1)));
    ASSERT_EQ(sums.size(), by_hand.size());
    // Numbers are truncated to multiples of 2^-32 or 2^-31 of the bound, after a margin of 2^-30.
    for (size_t c = 0; c < sums.size(); ++c) EXPECT_NEAR(sums[c], by_hand[c], 200 * 0x1p-28);
  }
}

TEST(RightAnswers, OneRecordMovesThemByTheSquareRootOfTheClassifiersAtMost) {
  for (const int classifiers : {1, 2, 5, 100}) {
    const StagePlan stage = accuracy_of(classifiers, 1);
    const std::vector<float> all(static_cast<size_t>(classifiers), 1),
        none(static_cast<size_t>(classifiers), 0), too_much(static_cast<size_t>(classifiers), 5),
        less(static_cast<size_t>(classifiers), -5),
        broken(static_cast<size_t>(classifiers), std::numeric_limits<float>::quiet_NaN());
    auto answers = random_answers(20, classifiers, 3);
    const double root = std::sqrt(static_cast<double>(classifiers));
    for (const auto& one : {all, none, too_much, less, broken}) {
      auto with = answers, blanked = answers;
      with.push_back(one);
      blanked.push_back(none);
      EXPECT_LE(distance(sum_of(with, stage), sum_of(answers, stage)), root);
      EXPECT_LE(distance(sum_of(with, stage), sum_of(blanked, stage)), root);
      for (const auto& other : {all, too_much, less}) {
        auto replaced = answers;
        replaced.push_back(other);
        EXPECT_LE(distance(sum_of(with, stage), sum_of(replaced, stage)), std::sqrt(2.0) * root);
      }
    }
    auto with = answers;
    with.push_back(all);
    EXPECT_GT(distance(sum_of(with, stage), sum_of(answers, stage)), 0.999 * root)
        << "the bound is reached";
  }
}

// 20,000 classifiers: one release tells the noise to 5 %.
TEST(RightAnswers, AreReleasedWithThePlansNoise) {
  constexpr int kMany = 20'000;
  for (const double sigma : {0.05, 1.0}) {
    const StagePlan stage = accuracy_of(kMany, sigma);
    Session session({stage});
    const auto answers = random_answers(3, kMany, 5);
    std::vector<double> noise = session.mechanism.release(sum_of(answers, stage), stage);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("accuracy"), 1);
    for (size_t c = 0; c < kMany; ++c)
      for (const auto& one : answers) noise[c] -= one[c];
    expect_noise(noise, sigma * std::sqrt(kMany));
    EXPECT_THROW((void)session.mechanism.release(sum_of(answers, stage), stage), PrivacyError);
  }
}

TEST(RightAnswers, OfAnotherStageOrMoreClassifiersAreRefused) {
  const auto count = [](const StagePlan& stage, int64_t classifiers) {
    return count_right_answers(stage, 0, classifiers, {});
  };
  EXPECT_NO_THROW(count(accuracy_of(2, 1), 1));
  EXPECT_NO_THROW(count(accuracy_of(2, 1), 2));
  EXPECT_THAT(error_message<UsageError>([&] { count(accuracy_of(2, 1), 3); }),
              AllOf(HasSubstr("3 classifiers"), HasSubstr("frozen for 2"),
                    HasSubstr("name 1 to 2 in --classifier")));
  EXPECT_THROW(count(accuracy_of(2, 1), 0), UsageError);
  StagePlan stage = accuracy_of(1, 1);
  for (const PrivacyEvent& event : {PrivacyEvent(Phase{0.5, 1, 1}), PrivacyEvent(Phase{1, 1, 2}),
                                    PrivacyEvent(ApproximateRelease{1, 1e-6})}) {
    stage.event = event;
    EXPECT_THROW(count(stage, 1), PrivacyError);
  }
  stage = accuracy_of(1, 1);
  stage.clip_norm_l2 = 1.3;
  EXPECT_THROW(count(stage, 1), PrivacyError);
}

TEST(NoisyAccuracyFile, ReadsBackAndIsRefusedWhereItIsDamaged) {
  const TempFolder folder;
  NoisyAccuracy accuracy;
  accuracy.noise_stddev = 5, accuracy.expected_records = 50;
  accuracy.tested_on = "held-out images", accuracy.reference = std::string(64, 'a');
  accuracy.corpus = std::string(64, 'b'), accuracy.weights_sha256 = std::string(64, 'c');
  accuracy.corpus_images = 60, accuracy.repeats = 2, accuracy.seed = 9;
  accuracy.classifiers = {{"small", "a network", 41.25}, {"wrn-40-4", "another", -0.5}};
  const auto json = to_json(accuracy);
  EXPECT_EQ(json["classifiers"][0]["accuracy"], 0.825);
  const fs::path file = folder / "accuracy.json";
  write_file_atomic(file, json.dump());
  EXPECT_EQ(read_noisy_accuracy(file), accuracy);
  for (const auto& [key, value] : json.items()) {
    auto damaged = json;
    damaged[key] = nullptr;
    write_file_atomic(file, damaged.dump());
    EXPECT_THAT(error_message<DataError>([&] { read_noisy_accuracy(file); }),
                HasSubstr("accuracy.json"))
        << key;
  }
  auto zero = json;
  zero["expected_records"] = 0;
  write_file_atomic(file, zero.dump());
  EXPECT_THROW(read_noisy_accuracy(file), DataError);
}

using AccuracyOfARun = TinyRun;

TEST_F(AccuracyOfARun, IsCountedFromTheStartAndNotMadeBeforeTraining) {
  const TrainResult result = start("run", {kAccuracy + "noise_multiplier=3"});
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
  EXPECT_FALSE(fs::exists(folder / "run/release/accuracy.json"));
  const PrivacyEvent events[] = {GaussianRelease{1, 3}, Phase{0.25, 1, 6}};
  const double whole = account_epsilon(Accountant::kPld, events, 1e-3, Adjacency::kZeroOut).epsilon;
  EXPECT_NEAR(result.epsilon, whole, 1e-9);
  EXPECT_GT(result.epsilon,
            account_epsilon(Accountant::kPld, {&events[1], 1}, 1e-3, Adjacency::kZeroOut).epsilon);
  const auto card = nlohmann::json::parse(read_file(folder / "run/release/privacy_card.json"));
  EXPECT_EQ(card["stages"][0]["name"], "accuracy");
  EXPECT_EQ(card["stages"][0]["planned"], 1);
  EXPECT_EQ(card["stages"][0]["charged"], 0);
  RunVerificationOptions options;
  options.run = folder / "run";
  EXPECT_THAT(verify_run(options).problems(), IsEmpty());
}

// Gaussian mechanisms compose as one whose mu^2 is the sum (Dong, Roth, Su 2022): where every
// record joins the one step, the closed form says what both cost.
TEST_F(AccuracyOfARun, ComposesWithTrainingAsTheClosedFormSays) {
  for (const auto& [adjacency, moved] : {std::pair{Adjacency::kZeroOut, std::pair{1.0, 1.0}},
                                         {Adjacency::kAddRemove, {1.0, 1.0}},
                                         {Adjacency::kReplaceOne, {2.0, std::sqrt(2.0)}}}) {
    const auto settings = config(
        "run", {kAccuracy + "noise_multiplier=2", "mechanism.steps=1", kAccuracy + "classifiers=3",
                "mechanism.sample_rate=1", "mechanism.noise_multiplier=4",
                "mechanism.adjacency=" + to_string(adjacency)});
    const MechanismPlan plan = make_plan(*settings, RecordStore::open(folder / "store"));
    ASSERT_EQ(plan.stages.size(), 1u);
    EXPECT_EQ(plan.stages[0].clip_norm_l2, std::sqrt(3.0));
    const double mu = std::hypot(moved.first / 4, moved.second / 2);
    EXPECT_NEAR(plan.epsilon_after(1), gaussian_epsilon(mu, 1e-3), 2e-3);
    EXPECT_GE(plan.epsilon_after(1), gaussian_epsilon(mu, 1e-3) * (1 - 1e-9));
  }
}

TEST_F(AccuracyOfARun, NeedsClasses) {
  EXPECT_THAT(error_message<UsageError>([&] {
                config("run", {kAccuracy + "noise_multiplier=3", "data.num_classes=0"});
              }),
              HasSubstr("mechanism.stages.accuracy tests classifiers"));
}

}  // namespace
}  // namespace sfumato
