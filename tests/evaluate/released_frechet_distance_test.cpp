// A Frechet distance of private images that may leave: planned, charged, noisy, drawn once.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "evaluate/noisy_evaluation_fixture.h"
#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/evaluate/noisy_frechet_distance.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

const std::string kFrechet = "mechanism.stages.frechet_distance.";
constexpr double kMomentNoise = 0.3;
constexpr int kCorpusImages = 60;

class ReleasedFrechetDistance : public NoisyEvaluationTest {
 protected:
  /// 50 is not the number of the private images. Pixels are not projected: there are 64.
  void begin(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> changes = {kFrechet + "noise_multiplier=0.3",
                                        kFrechet + "expected_records=50",
                                        kFrechet + "features=pixels", kFrechet + "dimension=64"};
    changes.insert(changes.end(), more.begin(), more.end());
    start("run", changes);
    draw_corpus("corpus", "run", kCorpusImages);
  }
  NoisyEvaluationRequest request_distance(const std::string& corpus = "corpus",
                                          const std::string& reference = "store") const {
    NoisyEvaluationRequest out = request("run", corpus, reference);
    out.options = quick({Metric::kFrechetDistance});
    return out;
  }
  NoisyFrechetDistance file() const {
    return read_noisy_frechet_distance(folder / "run/release/frechet_distance.json");
  }
  /// Tiny images as rows in the corpus's ball, by hand.
  static std::vector<std::vector<double>> in_ball(const std::vector<int>& numbers) {
    const auto values = [](int number) {
      std::vector<double> row;
      for (const uint8_t value : tiny_image(number)) row.push_back(value / 255.0);
      return row;
    };
    std::vector<double> centre(64);
    double squares = 0;
    for (int i = 0; i < kCorpusImages; ++i)
      for (size_t j = 0; j < 64; ++j) centre[j] += values(1000 + i)[j] / kCorpusImages;
    for (int i = 0; i < kCorpusImages; ++i)
      for (size_t j = 0; j < 64; ++j)
        squares += std::pow(values(1000 + i)[j] - centre[j], 2) / kCorpusImages;
    std::vector<std::vector<double>> rows;
    for (const int number : numbers) {
      std::vector<double> row = values(number);
      double norm = 0;
      for (size_t j = 0; j < 64; ++j) {
        row[j] = (row[j] - centre[j]) / (1.5 * std::sqrt(squares));
        norm += row[j] * row[j];
      }
      for (double& value : row) value /= std::max(1.0, std::sqrt(norm));
      rows.push_back(row);
    }
    return rows;
  }
};

TEST_F(ReleasedFrechetDistance, IsOfTheSumsByHandAndThePlansNoise) {
  begin();
  const NoisyEvaluation made = evaluate_with_noise(request_distance());
  EXPECT_FALSE(made.made_before);
  EXPECT_THAT(made.files, ElementsAre(folder / "run/release/frechet_distance.json"));
  const NoisyFrechetDistance found = file();
  EXPECT_EQ(found.noise_stddev, kMomentNoise);
  EXPECT_EQ(found.tested_on, "training images");
  EXPECT_EQ(found.features, "pixels");
  EXPECT_EQ(found.dimension, 64);
  std::vector<double> noise = found.noisy_sums;
  ASSERT_EQ(std::ssize(noise), 64 + 64 * 65 / 2);
  const double a = std::sqrt(1 / 65.0), b = std::sqrt(64 / 65.0);
  for (const auto& row : in_ball(first_records(kTinyRecords))) {
    auto out = noise.begin();
    for (size_t i = 0; i < 64; ++i) *out++ -= a * row[i];
    for (size_t i = 0; i < 64; ++i)
      for (size_t j = i; j < 64; ++j) *out++ -= b * (i == j ? 1 : std::sqrt(2.0)) * row[i] * row[j];
  }
  expect_noise(noise, kMomentNoise);
  // What follows from the sums, by the public number, against the corpus in the same ball.
  std::vector<int> drawn;
  for (int i = 0; i < kCorpusImages; ++i) drawn.push_back(1000 + i);
  at::Tensor corpus = at::empty({kCorpusImages, 64}, at::kDouble);
  double* out = corpus.mutable_data_ptr<double>();
  for (const auto& row : in_ball(drawn)) out = std::ranges::copy(row, out).out;
  const FeatureMoments of_corpus = moments_of_rows(corpus);
  EXPECT_NEAR(found.distance, frechet_distance(moments_of(found.noisy_sums, 64, 50), of_corpus),
              1e-4 * found.distance);
  const NoiseAlone alone = distance_by_noise_alone(of_corpus, 50, kMomentNoise);
  EXPECT_NEAR(found.noise_alone_mean, alone.mean, 1e-4 * alone.mean);
  EXPECT_NEAR(found.noise_alone_std, alone.std, 1e-2 * alone.std);
  EXPECT_EQ(measured(made.evaluation, "frechet_distance_noisy").value, found.distance);
  const Measurement& said = measured(made.evaluation, "frechet_distance_noise_alone");
  EXPECT_EQ(said.value, found.noise_alone_mean);
  EXPECT_EQ(said.std, found.noise_alone_std);
  EXPECT_THAT(made.evaluation.measurements, testing::SizeIs(2)) << "and nothing else";
}

TEST_F(ReleasedFrechetDistance, IsChargedNotedAndOnTheCard) {
  begin();
  const auto planned_epsilon = card_of()["epsilon"];
  evaluate_with_noise(request_distance());
  const std::string hash = sha256_hex(read_file(folder / "run/release/frechet_distance.json"));
  EXPECT_THAT(ledger("run").stage_charges, ElementsAre(Pair("frechet_distance", 1)));
  EXPECT_THAT(ledger("run").stage_results, ElementsAre(Pair("frechet_distance", hash)));
  EXPECT_EQ(card_of()["stages"][0]["charged"], 1);
  EXPECT_EQ(card_of()["stages"][0]["result_sha256"], hash);
  EXPECT_EQ(card_of()["epsilon"], planned_epsilon) << "it was counted from the start";
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(read_witnesses(folder / "store").at(0).stage_charges.at("frechet_distance"), 1);
}

TEST_F(ReleasedFrechetDistance, IsDrawnOnce) {
  begin();
  const NoisyEvaluation first = evaluate_with_noise(request_distance());
  const std::string lines = ledger_bytes();
  NoisyEvaluationRequest again = request_distance();
  again.expected_records = 45;
  const NoisyEvaluation second = evaluate_with_noise(again);
  EXPECT_TRUE(second.made_before);
  EXPECT_EQ(measured(second.evaluation, "frechet_distance_noisy").value,
            measured(first.evaluation, "frechet_distance_noisy").value);
  draw_corpus("larger", "run", 70);
  EXPECT_THAT(refusal(request_distance("larger")),
              AllOf(HasSubstr("the frechet_distance of the run"), HasSubstr("released already"),
                    HasSubstr("60 images"), HasSubstr("'pixels'")));
  EXPECT_EQ(ledger_bytes(), lines);
}

TEST_F(ReleasedFrechetDistance, OfOtherFeaturesOrAnotherFileIsNoEarlierOne) {
  begin();
  evaluate_with_noise(request_distance());
  std::string settings = read_file(folder / "run/config.yaml");
  const std::string yaml = settings;
  settings.replace(settings.find("features: pixels"), 16, "features: scattering");
  write_file_atomic(folder / "run/config.yaml", settings);
  EXPECT_THAT(refusal(request_distance()), HasSubstr("released already"));
  write_file_atomic(folder / "run/config.yaml", yaml);
  NoisyFrechetDistance better = file();
  better.distance /= 2;
  write_json_atomic(folder / "run/release/frechet_distance.json", to_json(better));
  EXPECT_THAT(refusal(request_distance()),
              AllOf(HasSubstr("is another file"), HasSubstr("drawn once")));
  EXPECT_THAT(problems(), Contains(HasSubstr("frechet_distance.json")));
}

TEST_F(ReleasedFrechetDistance, EveryPageSaysWhatItIs) {
  begin();
  const NoisyEvaluation made = evaluate_with_noise(request_distance());
  const Json json = to_json(made.evaluation, made.corpus, made.reference);
  EXPECT_EQ(json["frechet_distance_noisy"], file().distance);
  EXPECT_EQ(json["frechet_distance_noise_alone"], file().noise_alone_mean);
  EXPECT_FALSE(json.contains("frechet_distance")) << "what exact distances are called";
  EXPECT_EQ(json["reference_privacy"]["stages"],
            Json::parse(R"([{"stage": "frechet_distance", "noise_stddev": 0.3,
                             "expected_records": 50.0}])"));
  EXPECT_EQ(json["reference"]["images"], 50) << "how many there are is private";
  for (const Json& one : json["measurements"])
    EXPECT_THAT(one["title"].get<std::string>(),
                AllOf(Not(HasSubstr("FID")), Not(HasSubstr("FD"))));
  for (const std::string& page :
       {evaluation_markdown(made.evaluation, made.corpus, made.reference),
        evaluation_html(made.evaluation, made.corpus, made.reference, {})})
    EXPECT_THAT(page, AllOf(HasSubstr("Released with noise: sums of features"),
                            HasSubstr("standard deviation 0.3, divided by 50"), HasSubstr("no FID"),
                            HasSubstr("comparable to no distance without noise"),
                            HasSubstr("the noise alone would give"),
                            HasSubstr("0.001)-differentially private for one image")));
}

// Half of the moments of two images would be no covariance.
TEST_F(ReleasedFrechetDistance, NeedsAPublicNumberOfTwoOrMore) {
  begin();
  NoisyEvaluationRequest asked = request_distance();
  asked.expected_records = 1.5;
  EXPECT_THAT(refusal<UsageError>(asked), HasSubstr("--expected-records"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
}

TEST_F(ReleasedFrechetDistance, OfImagesHeldOutIsRememberedByBothStores) {
  hold_images_out();
  begin({kFrechet + "expected_records=0", "data.holdout=0.2"});
  EXPECT_THAT(refusal(request_distance("corpus", "others-holdout")), HasSubstr("held out"));
  evaluate_with_noise(request_distance("corpus", "store-holdout"));
  EXPECT_EQ(file().tested_on, "held-out images");
  EXPECT_EQ(file().expected_records, 10.0) << "10 / 0.25 * 0.2 / 0.8";
  EXPECT_EQ(read_witnesses(folder / "store-holdout").size(), 1u);
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(refusal(request_distance()), HasSubstr("held-out images"));
}

}  // namespace
}  // namespace sfumato
