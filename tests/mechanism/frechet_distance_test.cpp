// The stage that is made after the release: moments of clipped features, summed and noisy.
#include "sfumato/mechanism/frechet_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <span>

#include "mechanism/made_up_features.h"
#include "mechanism/stage_session.h"
#include "mechanism/statistic_sums.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;
using Row = std::vector<double>;

const std::string kFrechet = "mechanism.stages.frechet_distance.";

StagePlan frechet_stage(double noise_multiplier) {
  return {.name = "frechet_distance", .event = Phase{1, noise_multiplier, 1}};
}

/// A direction at random, of this length.
Row random_row(int dimension, double norm, std::mt19937& random) {
  std::normal_distribution<double> normal;
  Row row;
  double squares = 0;
  for (int i = 0; i < dimension; ++i) {
    row.push_back(normal(random));
    squares += row.back() * row.back();
  }
  for (double& value : row) value *= norm / std::sqrt(squares);
  return row;
}

std::vector<float> terms_of(const Row& x) {
  std::vector<float> terms(static_cast<size_t>(moment_sums(std::ssize(x))));
  write_moment_terms(x, terms);
  return terms;
}

double norm_of_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(squares);
}

TEST(FeatureMomentsTest, AreThoseByBruteForce) {
  std::mt19937 random(3);
  for (const int d : {1, 2, 9}) {
    constexpr int kRows = 40;
    std::vector<Row> rows;
    std::vector<double> sums(static_cast<size_t>(moment_sums(d)));
    for (int i = 0; i < kRows; ++i) {
      rows.push_back(random_row(d, 0.1 + 0.9 * (i % 7) / 7.0, random));
      const std::vector<float> terms = terms_of(rows.back());
      for (size_t k = 0; k < sums.size(); ++k) sums[k] += terms[k];
    }
    const FeatureMoments found = moments_of(sums, d, kRows);
    for (int a = 0; a < d; ++a) {
      const auto at = [](const Row& row, int i) { return row[static_cast<size_t>(i)]; };
      double mean_a = 0;
      for (const Row& row : rows) mean_a += at(row, a) / kRows;
      EXPECT_NEAR(found.mean[a].item<double>(), mean_a, 1e-6);
      for (int b = 0; b < d; ++b) {
        double mean_b = 0, covariance = 0;
        for (const Row& row : rows) mean_b += at(row, b) / kRows;
        for (const Row& row : rows)
          covariance += (at(row, a) - mean_a) * (at(row, b) - mean_b) / (kRows - 1);
        EXPECT_NEAR(found.covariance[a][b].item<double>(), covariance, 1e-6) << a << ", " << b;
      }
    }
    const std::vector<double> again = sums_of(found, kRows);
    ASSERT_EQ(again.size(), sums.size());
    for (size_t k = 0; k < sums.size(); ++k) EXPECT_NEAR(again[k], sums[k], 1e-4);
  }
}

TEST(FeatureMomentsTest, HaveACovarianceWithoutNegativeEigenvalues) {
  std::mt19937 random(5);
  std::normal_distribution<double> noise(0, 3);
  std::vector<double> sums(static_cast<size_t>(moment_sums(8)));
  for (double& sum : sums) sum = noise(random);
  const FeatureMoments found = moments_of(sums, 8, 20);
  const at::Tensor values = at::linalg_eigvalsh(found.covariance);
  EXPECT_GE(values.min().item<double>(), -1e-12);
  EXPECT_GT(values.max().item<double>(), 0);
  EXPECT_THROW(moments_of(sums, 8, 1), UsageError);
}

// The bound of each record, and what two records can differ by.
TEST(FeatureMomentsTest, OneRecordAddsOneAtMost) {
  std::mt19937 random(7);
  for (const int d : {1, 2, 5, 64, 192}) {
    const std::vector<float> nothing(static_cast<size_t>(moment_sums(d)));
    double largest = 0;
    for (int trial = 0; trial < 30; ++trial) {
      const Row x = random_row(d, 1, random);
      Row opposite = x;
      for (double& value : opposite) value = -value;
      const std::vector<float> terms = terms_of(x);
      EXPECT_NEAR(norm_of_difference(terms, nothing), 1, 1e-6) << "the bound is reached";
      EXPECT_LE(norm_of_difference(terms_of(random_row(d, 0.1 * trial / 3, random)), nothing),
                1 + 1e-6);
      largest = std::max(largest, norm_of_difference(terms, terms_of(opposite)));
      largest = std::max(largest, norm_of_difference(terms, terms_of(random_row(d, 1, random))));
    }
    EXPECT_LE(largest, 2);
  }
}

class SummedMoments : public ::testing::Test {
 protected:
  RecordStore store(const std::vector<int>& numbers) {
    const fs::path path = folder / ("private" + std::to_string(++stores_));
    write_tiny_store(path, numbers);
    return RecordStore::open(path);
  }
  StatisticSum sum(const std::vector<int>& numbers, const ClippedFeatures& features) {
    return sum_moments(frechet_stage(1), store(numbers), features);
  }
  static at::Tensor tiny_images(const std::vector<int>& numbers) {
    at::Tensor images = at::empty({std::ssize(numbers), 8, 8, 1}, at::kByte);
    uint8_t* out = images.mutable_data_ptr<uint8_t>();
    for (const int number : numbers) out = std::ranges::copy(tiny_image(number), out).out;
    return images;
  }
  /// Around a corpus of these images.
  static ClippedFeatures features(const std::string& network, const std::vector<int>& corpus,
                                  int64_t dimension) {
    return {make_feature_network(network, {.shape = {1, 8, 8}, .weights = {}}), tiny_images(corpus),
            dimension};
  }
  TempFolder folder;

 private:
  int stores_ = 0;
};

TEST_F(SummedMoments, AreSumsOfTheRecordsTerms) {
  for (const auto& [network, dimension] : {std::pair{"pixels", 64}, {"scattering", 5}}) {
    const ClippedFeatures in_ball = features(network, first_records(30), dimension);
    const RecordStore records = store({0, 1, 2, 3, 4, 5, 6});
    std::vector<double> expected(static_cast<size_t>(moment_sums(dimension)));
    for (int i = 0; i < 7; ++i) {
      const at::Tensor x = in_ball(in_ball.network()(tiny_images({i})).features)[0].contiguous();
      const double* first = x.const_data_ptr<double>();
      const std::vector<float> terms = terms_of({first, first + dimension});
      for (size_t k = 0; k < terms.size(); ++k) expected[k] += terms[k];
    }
    const auto found = StatisticSumInspector::sums(sum_moments(frechet_stage(1), records, in_ball));
    ASSERT_EQ(found.size(), expected.size());
    for (size_t k = 0; k < found.size(); ++k) EXPECT_NEAR(found[k], expected[k], 1e-5);
  }
}

// Over all neighbours: every record left out, and every one replaced. Around two nearly equal
// images all others lie outside of the ball, and move the sums by all that they may.
TEST_F(SummedMoments, ARecordMovesThemByOneAtMostAndReplacedByTwo) {
  const std::vector<int> records = {0, 1, 2, 3, 4, 5};
  const std::vector<int> alike = {0, 4}, all_sorts = first_records(30);
  for (const auto& corpus : {alike, all_sorts}) {
    const ClippedFeatures in_ball = features("pixels", corpus, 16);
    const StatisticSum all = sum(records, in_ball);
    long double removed = 0, replaced = 0;
    for (size_t i = 0; i < records.size(); ++i) {
      std::vector<int> others = records;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      removed = std::max(removed, distance(sum(others, in_ball), all));
      for (const int other : {50, 51, 77}) {
        others = records;
        others[i] = other;
        replaced = std::max(replaced, distance(sum(others, in_ball), all));
      }
    }
    EXPECT_LE(removed, 1);
    EXPECT_LE(replaced, 2);
    EXPECT_GT(replaced, 0);
    if (corpus == alike) {
      EXPECT_GT(removed, 0.999);
    }
  }
}

TEST_F(SummedMoments, AnImageWhoseFeaturesAreNotFiniteAddsNothing) {
  const float odd = std::numeric_limits<float>::quiet_NaN(),
              wide = std::numeric_limits<float>::infinity();
  for (const float value : {odd, wide, -wide}) {
    const std::vector<uint8_t> broken = tiny_image(1);
    const auto of_one = [&](const at::Tensor& images) {
      at::Tensor rows = images.flatten(1).narrow(1, 0, 3).to(at::kFloat);
      for (int64_t i = 0; i < images.size(0); ++i)
        if (std::ranges::equal(
                broken, std::span(images[i].contiguous().const_data_ptr<uint8_t>(), broken.size())))
          rows[i].fill_(value);
      return rows;
    };
    const ClippedFeatures in_ball(std::make_unique<MadeUpFeatures>(3, of_one),
                                  tiny_images({0, 2, 4, 6}), 3);
    EXPECT_EQ(distance(sum({0, 1, 2}, in_ball), sum({0, 2}, in_ball)), 0);
  }
}

TEST_F(SummedMoments, AreReleasedWithThePlansNoise) {
  const ClippedFeatures in_ball = features("pixels", first_records(30), 64);
  for (const double sigma : {0.05, 2.0}) {
    const StagePlan stage = frechet_stage(sigma);
    Session session({stage});
    const auto exact = StatisticSumInspector::sums(sum({0, 1, 2}, in_ball));
    std::vector<double> noise = session.mechanism.release(sum({0, 1, 2}, in_ball), stage);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("frechet_distance"), 1);
    ASSERT_EQ(noise.size(), exact.size());
    for (size_t k = 0; k < noise.size(); ++k) noise[k] -= exact[k];
    expect_noise(noise, sigma);
    EXPECT_THROW((void)session.mechanism.release(sum({0, 1, 2}, in_ball), stage), PrivacyError);
  }
}

TEST_F(SummedMoments, OfAnotherStageAreRefused) {
  const ClippedFeatures in_ball = features("pixels", first_records(10), 4);
  const RecordStore records = store({0, 1});
  StagePlan stage = frechet_stage(1);
  EXPECT_NO_THROW(sum_moments(stage, records, in_ball));
  for (const PrivacyEvent& event : {PrivacyEvent(Phase{0.5, 1, 1}), PrivacyEvent(Phase{1, 1, 2}),
                                    PrivacyEvent(ApproximateRelease{1, 1e-6})}) {
    stage.event = event;
    EXPECT_THROW(sum_moments(stage, records, in_ball), PrivacyError);
  }
  stage = frechet_stage(1);
  stage.clip_norm_l2 = 0.5;
  EXPECT_THROW(sum_moments(stage, records, in_ball), PrivacyError);
}

TEST(NoisyFrechetDistanceFile, ReadsBackAndIsRefusedWhereItIsDamaged) {
  const TempFolder folder;
  NoisyFrechetDistance made;
  made.noise_stddev = 5, made.expected_records = 50;
  made.tested_on = "held-out images", made.reference = std::string(64, 'a');
  made.corpus = std::string(64, 'b'), made.weights_sha256 = std::string(64, 'c');
  made.corpus_images = 60, made.features = "pixels", made.features_weights = "none";
  made.preprocessing = "as they are", made.dimension = 2, made.ball_radius = 1.75;
  made.corpus_clipped = 0.125, made.distance = 0.3125, made.noise_alone_mean = 0.25;
  made.noise_alone_std = 0.0625, made.noisy_sums = {1, -2, 3.5, 4, 5};
  const auto json = to_json(made);
  EXPECT_THAT(json["what"].get<std::string>(), HasSubstr("no FID"));
  const fs::path file = folder / "frechet_distance.json";
  write_file_atomic(file, json.dump());
  EXPECT_EQ(read_noisy_frechet_distance(file), made);
  for (const auto& [key, value] : json.items()) {
    if (key == "what") continue;  // for people
    auto damaged = json;
    damaged[key] = nullptr;
    write_file_atomic(file, damaged.dump());
    EXPECT_THAT(error_message<DataError>([&] { read_noisy_frechet_distance(file); }),
                HasSubstr("frechet_distance.json"))
        << key;
  }
  auto fewer = json;
  fewer["dimension"] = 3;
  write_file_atomic(file, fewer.dump());
  EXPECT_THAT(error_message<DataError>([&] { read_noisy_frechet_distance(file); }),
              HasSubstr("none of moments in 3 dimensions"));
}

using FrechetDistanceOfARun = TinyRun;

TEST_F(FrechetDistanceOfARun, IsCountedFromTheStartAndNotMadeBeforeTraining) {
  const TrainResult result = start("run", {kFrechet + "noise_multiplier=3"});
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
  EXPECT_FALSE(fs::exists(folder / "run/release/frechet_distance.json"));
  const PrivacyEvent events[] = {GaussianRelease{1, 3}, Phase{0.25, 1, 6}};
  EXPECT_NEAR(result.epsilon,
              account_epsilon(Accountant::kPld, events, 1e-3, Adjacency::kZeroOut).epsilon, 1e-9);
  const auto card = nlohmann::json::parse(read_file(folder / "run/release/privacy_card.json"));
  EXPECT_EQ(card["stages"][0]["name"], "frechet_distance");
  EXPECT_EQ(card["stages"][0]["planned"], 1);
  EXPECT_EQ(card["stages"][0]["charged"], 0);
}

// Opposite features pull opposite ways: replaced, a record moves the sums by 2 and not by the root
// of 2. The closed form as for accuracy.
TEST_F(FrechetDistanceOfARun, ComposesWithTrainingAsTheClosedFormSays) {
  for (const auto& [adjacency, moved] :
       {std::pair{Adjacency::kZeroOut, 1.0}, {Adjacency::kReplaceOne, 2.0}}) {
    const auto settings = config(
        "run", {kFrechet + "noise_multiplier=2", "mechanism.steps=1", "mechanism.sample_rate=1",
                "mechanism.noise_multiplier=4", "mechanism.adjacency=" + to_string(adjacency)});
    const MechanismPlan plan = make_plan(*settings, RecordStore::open(folder / "store"));
    ASSERT_EQ(plan.stages.size(), 1u);
    EXPECT_EQ(plan.stages[0].clip_norm_l2, 1);
    const double mu = std::hypot(moved / 4, moved / 2);
    EXPECT_NEAR(plan.epsilon_after(1), gaussian_epsilon(mu, 1e-3), 2e-3);
    EXPECT_GE(plan.epsilon_after(1), gaussian_epsilon(mu, 1e-3) * (1 - 1e-9));
  }
}

TEST_F(FrechetDistanceOfARun, OfColourIsNotByLeNet) {
  EXPECT_NO_THROW(config("run", {kFrechet + "noise_multiplier=3", kFrechet + "features=lenet"}));
  EXPECT_THAT(error_message<UsageError>([&] {
                config("run", {kFrechet + "noise_multiplier=3", kFrechet + "features=lenet",
                               "data.channels=3"});
              }),
              HasSubstr("lenet is for grey images"));
  EXPECT_THROW(config("run", {kFrechet + "dimension=193"}), UsageError);
}

// The choices are written twice, as settings know no networks.
TEST_F(FrechetDistanceOfARun, IsByAnyNetworkOfTheTable) {
  EXPECT_THAT(config("run")->frechet_distance.features.range().choices,
              ::testing::UnorderedElementsAreArray(feature_network_names()));
}

}  // namespace
}  // namespace sfumato
