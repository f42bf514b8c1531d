// The stage of means of features: sums by brute force, by how much one record moves them over all
// neighbours of a small store, noise on every number, a public divisor, its file.
#include "sfumato/mechanism/feature_means.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mechanism/labelled_store.h"
#include "mechanism/made_up_features.h"
#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/io/json_file.h"
#include "src/mechanism/record_features.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;

StagePlan means_stage(double noise_multiplier) {
  return {.name = "feature_means", .event = Phase{1, noise_multiplier, 1}};
}

std::unique_ptr<FeatureNetwork> network(const std::string& name = "scattering") {
  return make_feature_network(name, {.shape = {1, 8, 8}, .weights = {}});
}

/// What an image adds, by another way: of pixels their values, no longer than 1.
at::Tensor contribution(int number, const std::string& features) {
  std::vector<uint8_t> bytes = tiny_image(number);
  const at::Tensor image = at::from_blob(bytes.data(), {1, 8, 8, 1}, at::kByte);
  const at::Tensor found = features == "pixels"
                               ? image.to(at::kDouble).flatten() / 255
                               : (*network(features))(image).features[0].to(at::kDouble);
  return found / std::max(1.0, found.norm().item<double>());
}

class FeatureMeansTest : public LabelledStores {
 protected:
  /// With noise that nobody sees, or with that of a seed.
  at::Tensor means(const std::vector<LabelledImage>& records, double divisor, double noise = 1e-7,
                   uint64_t seed = 1, const std::string& features = "scattering") {
    Session session({means_stage(noise)}, seed);
    const FeatureMeans found = release_feature_means(
        store(records), means_stage(noise), *network(features), divisor, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("feature_means"), 1);
    EXPECT_DOUBLE_EQ(found.noise_stddev, noise / divisor);
    EXPECT_EQ(found.features, features);
    return found.means;
  }
  static std::vector<LabelledImage> some_records(int count) { return labelled_images(count, 2); }
};

TEST_F(FeatureMeansTest, AreSumsOfRecordsAloneDividedByAPublicNumber) {
  const std::vector<LabelledImage> records = some_records(11);
  for (const std::string features : {"scattering", "pixels"}) {
    at::Tensor expected = at::zeros({kClasses, network(features)->facts().dimension}, at::kDouble);
    for (const LabelledImage& each : records)
      expected[each.label] += contribution(each.number, features) / 4;
    const at::Tensor found = means(records, 4, 1e-7, 1, features);
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-5) << features;
  }
}

// Over all neighbours: every record left out, and every one replaced by images of any class. By
// pixels, whose norm is far above 1, a record moves the sums by just what is charged.
TEST_F(FeatureMeansTest, ARecordMovesThemByNoMoreThanIsCharged) {
  const std::vector<LabelledImage> records = some_records(6);
  for (const std::string features : {"scattering", "pixels"}) {
    const at::Tensor all = means(records, 1, 1e-7, 1, features);
    double removed = 0, replaced = 0;
    for (size_t i = 0; i < records.size(); ++i) {
      std::vector<LabelledImage> others = records;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      removed =
          std::max(removed, (means(others, 1, 1e-7, 1, features) - all).norm().item<double>());
      for (int label = 0; label < kClasses; ++label) {
        others = records;
        others[i] = {50 + label, label};
        replaced =
            std::max(replaced, (means(others, 1, 1e-7, 1, features) - all).norm().item<double>());
      }
    }
    EXPECT_LE(removed, 1 + 1e-5) << features;
    EXPECT_GE(removed, 0.99) << features;
    EXPECT_LE(replaced, 2) << features;
    EXPECT_GE(replaced, 1) << features;
  }
}

TEST_F(FeatureMeansTest, NoiseIsOnEveryNumber) {
  const std::vector<LabelledImage> records = some_records(4);
  const at::Tensor exact = means(records, 5);
  std::vector<double> noise;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const at::Tensor differences = (means(records, 5, 8, seed) - exact).contiguous();
    const double* values = differences.const_data_ptr<double>();
    noise.insert(noise.end(), values, values + differences.numel());
  }
  expect_noise(noise, 8.0 / 5);
}

TEST_F(FeatureMeansTest, IsOneReleaseOfEveryRecord) {
  const RecordStore records = store(some_records(4));
  StagePlan sampled = means_stage(2), twice = means_stage(2), longer = means_stage(2);
  sampled.event = Phase{0.5, 2, 1};
  twice.event = Phase{1, 2, 2};
  longer.clip_norm_l2 = 2;
  for (const StagePlan& stage : {sampled, twice, longer}) {
    Session session({stage});
    EXPECT_THROW((void)release_feature_means(records, stage, *network(), 2, session.mechanism),
                 PrivacyError);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("feature_means"), 0);
  }
  Session session({means_stage(2)});
  for (const double divisor : {0.0, -1.0, std::nan("")})
    EXPECT_THROW((void)release_feature_means(records, means_stage(2), *network(), divisor,
                                             session.mechanism),
                 PrivacyError);
  (void)release_feature_means(records, means_stage(2), *network(), 2, session.mechanism);
  EXPECT_THROW(
      (void)release_feature_means(records, means_stage(2), *network(), 2, session.mechanism),
      PrivacyError)
      << "a second release is not in the plan";
}

TEST_F(FeatureMeansTest, AStopIsHeardBeforeAnythingIsCharged) {
  const RecordStore records = store(some_records(4));
  Session session({means_stage(2)});
  set_stop_requested(true);
  EXPECT_THROW(
      (void)release_feature_means(records, means_stage(2), *network(), 2, session.mechanism),
      Interrupted);
  set_stop_requested(false);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("feature_means"), 0);
}

TEST(FeatureMeans, ReadsBackAndRefusesOtherFiles) {
  const TempFolder folder;
  const auto file = folder / "means.json";
  FeatureMeans means;
  means.means = at::full({2, 3}, 0.1, at::kDouble);
  means.means[1][2] = -1.0 / 3;
  means.noise_stddev = 0.25;
  means.features = "scattering";
  means.features_weights = "none";
  means.save(file);
  const FeatureMeans read = FeatureMeans::load(file);
  EXPECT_TRUE(read.means.equal(means.means));
  EXPECT_EQ(read.noise_stddev, 0.25);
  EXPECT_EQ(read.features, "scattering");
  EXPECT_EQ(read.features_weights, "none");

  const nlohmann::json good = read_json(file);
  const auto refused = [&](const std::string& key, const nlohmann::json& value) {
    nlohmann::json other = good;
    other[key] = value;
    std::ofstream(file) << other.dump();
    EXPECT_THROW((void)FeatureMeans::load(file), DataError) << key << " " << value;
  };
  refused("schema_version", 2);
  refused("noise_stddev", -1);
  refused("features", 3);
  refused("noisy_means", nlohmann::json::array());
  refused("noisy_means", {{1, 2}, {1}});
  refused("noisy_means", {{1, nullptr}});
  refused("noisy_means", "none");
}

// A network that ran on all threads for one image, and on one where there are more, would let an
// image decide of another's last bits.
TEST_F(FeatureMeansTest, EachImageIsOneThreadsWhateverTheirNumber) {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  for (const int records : {1, 2, 3, 1024, 1025, 1026}) {
    std::atomic<int> seen = 0, alone = 0;
    const MadeUpFeatures counting(1, [&](const at::Tensor& images) {
      ++seen;
      if (at::in_parallel_region()) ++alone;
      return at::zeros({images.size(0), 1}, at::kFloat);
    });
    visit_record_features(store(some_records(records)), counting, "stopped",
                          [](std::int64_t, std::span<const float>) {});
    EXPECT_EQ(seen, records);
    EXPECT_EQ(alone, records) << "of " << records;
  }
  at::set_num_threads(threads);
}

TEST_F(FeatureMeansTest, FeaturesDoNotHangOnTheNumberOfRecords) {
  std::vector<std::vector<float>> last;
  for (const int records : {1025, 1026})
    visit_record_features(store(some_records(records)), *network(), "stopped",
                          [&](std::int64_t record, std::span<const float> features) {
                            if (record == 1024) last.emplace_back(features.begin(), features.end());
                          });
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0], last[1]);
}

}  // namespace
}  // namespace sfumato
