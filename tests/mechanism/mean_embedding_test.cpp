// The stage of the mean embedding: sums of features, sensitivity, noise on every class, a public
// divisor.
#include "sfumato/mechanism/mean_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "mechanism/stage_session.h"
#include "mechanism/striped_stores.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

using namespace test;

StagePlan embedding_stage(double noise_multiplier) {
  return {.name = "mean_embedding", .event = Phase{1, noise_multiplier, 1}};
}

const RandomFeatureOptions kFeatures{.frequencies = 400, .width = 5, .seed = 4};

class MeanEmbeddingTest : public StripedStores {
 protected:
  /// With the same key for the same seed: the same noise.
  at::Tensor release(const RecordStore& records, double noise_multiplier, double divisor,
                     uint64_t seed = 1) {
    Session session({embedding_stage(noise_multiplier)}, seed);
    const MeanEmbedding embedding = release_mean_embedding(
        records, embedding_stage(noise_multiplier), kFeatures, divisor, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("mean_embedding"), 1);
    EXPECT_DOUBLE_EQ(embedding.noise_stddev, noise_multiplier / divisor);
    return embedding.means.to(at::kDouble);
  }
};

/// Features of a record of the set, by another way than the stage's.
at::Tensor features_of(int i) {
  std::vector<uint8_t> pixels = tiny_image(i);
  const at::Tensor image =
      at::from_blob(pixels.data(), {1, 1, 8, 8}, at::kByte).to(at::kFloat) / 127.5 - 1;
  return RandomFeatures(kFeatures, {1, 8, 8}).of_images(image)[0].to(at::kDouble);
}

TEST_F(MeanEmbeddingTest, IsTheSumOfEachClassOverThePublicDivisor) {
  const at::Tensor means = release(store(0, 40), 1e-7, 16);
  ASSERT_EQ(means.sizes(), (std::vector<int64_t>{3, 800}));
  at::Tensor sums = at::zeros({3, 800}, at::kDouble);
  for (int i = 0; i < 40; ++i) sums[i % 2] += features_of(i);
  EXPECT_LE((means - sums / 16).abs().max().item<double>(), 2e-5);
  EXPECT_GT(means[0].norm().item<double>(), 0.5);
}

// Whichever record leaves, and wherever that moves the others: its own class alone changes, by a
// vector of norm 1 over the divisor. A realised count as divisor would change everything.
TEST_F(MeanEmbeddingTest, OneImageMovesItsOwnClassByAtMostOneOverTheDivisor) {
  const double divisor = 5, noise = 1e-6;
  const at::Tensor all = release(store(0, 40), noise, divisor);
  for (const auto& [without, label] : {std::pair{store(0, 39), 1}, {store(1, 40), 0}}) {
    const at::Tensor moved = (all - release(without, noise, divisor)) * divisor;
    for (int64_t c = 0; c < 3; ++c) {
      const double norm = moved[c].norm().item<double>();
      if (c != label) {
        EXPECT_EQ(norm, 0) << "class " << c;
      } else {
        EXPECT_NEAR(norm, 1, 1e-5);
      }
    }
  }
}

TEST_F(MeanEmbeddingTest, NoiseIsOnEveryNumberOfEveryClass) {
  const double sigma = 3, divisor = 10;
  const RecordStore records = store(0, 40);
  const at::Tensor exact = release(records, 1e-7, divisor);
  std::vector<std::vector<double>> noise(3);
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const at::Tensor one =
        ((release(records, sigma, divisor, seed) - exact) * divisor).contiguous();
    for (int64_t c = 0; c < 3; ++c)
      noise[static_cast<size_t>(c)].insert(noise[static_cast<size_t>(c)].end(),
                                           one[c].const_data_ptr<double>(),
                                           one[c].const_data_ptr<double>() + 800);
  }
  for (const auto& values : noise) expect_noise(values, sigma);
}

TEST_F(MeanEmbeddingTest, ReadsBackAndRefusesOtherFiles) {
  Session session({embedding_stage(2)});
  const MeanEmbedding embedding =
      release_mean_embedding(store(0, 40), embedding_stage(2), kFeatures, 20, session.mechanism);
  const auto file = folder / "e.safetensors";
  embedding.save(file);
  const MeanEmbedding read = MeanEmbedding::load(file);
  EXPECT_TRUE(read.means.equal(embedding.means));
  EXPECT_EQ(read.features.frequencies, 400);
  EXPECT_EQ(read.features.width, 5);
  EXPECT_EQ(read.features.seed, 4);
  EXPECT_DOUBLE_EQ(read.noise_stddev, 0.1);
  const auto refused = [&](MeanEmbedding other) {
    other.save(file);
    EXPECT_THROW(MeanEmbedding::load(file), DataError);
  };
  refused({embedding.means[0], kFeatures, 1});
  refused({embedding.means.narrow(1, 0, 799), kFeatures, 1});
  refused({embedding.means / 0.0, kFeatures, 1});
  refused({embedding.means, {.frequencies = 400, .width = -1}, 1});
  write_tensor_file(file, {{"mean_embedding", embedding.means}});
  EXPECT_THROW(MeanEmbedding::load(file), DataError);
  EXPECT_THROW(MeanEmbedding::load(folder / "none.safetensors"), DataError);
}

TEST_F(MeanEmbeddingTest, IsOneReleaseOfEveryRecordAndCharged) {
  const RecordStore records = store(0, 40);
  const auto released = [&](const StagePlan& stage, double divisor) {
    Session session({stage});
    (void)release_mean_embedding(records, stage, kFeatures, divisor, session.mechanism);
  };
  StagePlan sampled = embedding_stage(2), twice = sampled, wider = sampled;
  sampled.event = Phase{0.5, 2, 1};
  twice.event = Phase{1, 2, 2};
  wider.clip_norm_l2 = 2;
  for (const StagePlan& stage : {sampled, twice, wider})
    EXPECT_THROW(released(stage, 20), PrivacyError);
  for (const double divisor : {0.0, -1.0, std::nan("")})
    EXPECT_THROW(released(embedding_stage(2), divisor), PrivacyError);
  Session spent({embedding_stage(2)});
  (void)spent.mechanism.release(StatisticSum(1, 1, 1), embedding_stage(2));
  EXPECT_THROW(release_mean_embedding(records, embedding_stage(2), kFeatures, 20, spent.mechanism),
               PrivacyError);
}

}  // namespace
}  // namespace sfumato
