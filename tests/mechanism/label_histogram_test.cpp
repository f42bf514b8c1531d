// The stage of the label histogram: counts and noise on every class, charged once.
#include "sfumato/mechanism/label_histogram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/mechanism/private_statistics.h"

namespace sfumato {
namespace {

using namespace test;

/// 20,000 classes, class c with c % 7 images of one pixel: one release tells the noise to 5 %.
class ManyClasses : public ::testing::Test {
 protected:
  static constexpr int kClasses = 20'000;
  ManyClasses() {
    std::vector<std::string> names;
    for (int c = 0; c < kClasses; ++c) names.push_back("c" + std::to_string(c));
    RecordStoreWriter writer(folder / "store", {1, 1, 1, kClasses, names, false, 1});
    const std::vector<std::uint8_t> pixel = {255};
    for (int c = 0; c < kClasses; ++c)
      for (int i = 0; i < c % 7; ++i) writer.append(pixel, c);
    writer.finish({{"note", "made by a test"}});
  }
  TempFolder folder;
};

TEST_F(ManyClasses, TheHistogramIsCountsAndNoise) {
  const RecordStore store = RecordStore::open(folder / "store");
  for (const double sigma : {4.0, 50.0}) {
    Session session({histogram_stage(sigma)});
    const LabelHistogram histogram =
        release_label_histogram(store, histogram_stage(sigma), session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("label_histogram"), 1);
    EXPECT_EQ(histogram.noise_stddev, sigma);
    ASSERT_EQ(histogram.noisy_counts.size(), static_cast<size_t>(kClasses));
    std::vector<double> noise;
    double sum = 0;
    for (int c = 0; c < kClasses; ++c) {
      noise.push_back(histogram.noisy_counts[static_cast<size_t>(c)] - c % 7);
      sum += histogram.proportions[static_cast<size_t>(c)];
    }
    expect_noise(noise, sigma);
    // The classes without a single image are noisy as well.
    std::vector<double> empty;
    for (int c = 0; c < kClasses; c += 7) empty.push_back(noise[static_cast<size_t>(c)]);
    expect_noise(empty, sigma);
    EXPECT_NEAR(sum, 1, 1e-9);
  }
}

TEST_F(ManyClasses, NothingIsReleasedThatIsNotCharged) {
  const RecordStore store = RecordStore::open(folder / "store");
  Session session({histogram_stage(4)});
  std::filesystem::remove(session.folder / "ledger.jsonl");
  EXPECT_THROW(release_label_histogram(store, histogram_stage(4), session.mechanism), PrivacyError);
  Session used({histogram_stage(4)});
  (void)release_label_histogram(store, histogram_stage(4), used.mechanism);
  EXPECT_THROW(release_label_histogram(store, histogram_stage(4), used.mechanism), PrivacyError);
  Session none({});
  EXPECT_THROW(release_label_histogram(store, histogram_stage(4), none.mechanism), PrivacyError);
}

TEST_F(ManyClasses, AHistogramIsOneReleaseOfAllRecords) {
  const RecordStore store = RecordStore::open(folder / "store");
  Session session({histogram_stage(4)});
  StagePlan stage = histogram_stage(4);
  stage.event = Phase{0.5, 4, 1};
  EXPECT_THROW(release_label_histogram(store, stage, session.mechanism), PrivacyError);
  stage.event = GaussianRelease{1, 4};
  EXPECT_THROW(release_label_histogram(store, stage, session.mechanism), PrivacyError);
  stage = histogram_stage(4);
  stage.declared = true;
  EXPECT_THROW(release_label_histogram(store, stage, session.mechanism), PrivacyError);
}

// Under replace_one the stage counts sqrt 2; a sum that may move by 2 is none of it.
TEST_F(ManyClasses, ReplacedRecordsAreCountedByTheirSensitivity) {
  const RecordStore store = RecordStore::open(folder / "store");
  StagePlan stage = histogram_stage(4);
  stage.event = GaussianRelease{std::sqrt(2.0), 4, 1};
  Session session({stage}, 1, Adjacency::kReplaceOne);
  StatisticSum signed_sum(kClasses, 1, 1);
  EXPECT_THROW((void)session.mechanism.release(std::move(signed_sum), stage), PrivacyError);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("label_histogram"), 0);
  const LabelHistogram histogram = release_label_histogram(store, stage, session.mechanism);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("label_histogram"), 1);
  EXPECT_EQ(histogram.noise_stddev, 4);
  std::vector<double> noise;
  for (int c = 0; c < kClasses; ++c)
    noise.push_back(histogram.noisy_counts[static_cast<size_t>(c)] - c % 7);
  expect_noise(noise, 4);
}

TEST(LabelHistogram, ProportionsComeFromTheNoisyCountsAlone) {
  const LabelHistogram histogram = make_label_histogram({30, -4, 10}, 5);
  EXPECT_EQ(histogram.proportions, (std::vector<double>{0.75, 0, 0.25}));
  EXPECT_EQ(make_label_histogram({-1, -2}, 5).proportions, (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(to_json(histogram).at("noisy_counts"), (std::vector<double>{30, -4, 10}));
}

}  // namespace
}  // namespace sfumato
