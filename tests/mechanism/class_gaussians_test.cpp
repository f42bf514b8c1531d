// The stage of Gaussians of classes: counts, means and covariances by brute force, sensitivity,
// noise on every number.
#include "sfumato/mechanism/class_gaussians.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "mechanism/stage_session.h"
#include "mechanism/striped_stores.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/models/tensor_file.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;

StagePlan gaussians_stage(double noise_multiplier) {
  return {.name = "class_gaussians", .event = Phase{1, noise_multiplier, 2}};
}

constexpr double kQuiet = 1e-7;
constexpr double kWide = 8;  // no image of 8x8 pixels is clipped

at::Tensor image_of_set(int i) {
  std::vector<uint8_t> pixels = tiny_image(i);
  return at::from_blob(pixels.data(), {64}, at::kByte).to(at::kDouble) / 127.5 - 1;
}

/// [k k, 64]: an image's coefficients from the definition, in two dimensions.
at::Tensor two_dimensional_cosines(int k) {
  const at::Tensor basis = at::zeros({k * k, 64}, at::kDouble);
  auto* out = basis.mutable_data_ptr<double>();
  for (int u = 0; u < k; ++u)
    for (int v = 0; v < k; ++v)
      for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; ++j)
          *out++ = std::cos(std::numbers::pi * u * (2 * i + 1) / 16) *
                   std::cos(std::numbers::pi * v * (2 * j + 1) / 16) / 4 *
                   (u == 0 ? std::numbers::sqrt2 / 2 : 1) * (v == 0 ? std::numbers::sqrt2 / 2 : 1);
  return basis;
}

class ClassGaussiansTest : public StripedStores {
 protected:
  /// With the same key for the same seed: the same noise.
  ClassGaussians release(const RecordStore& records, double noise_multiplier, int64_t frequencies,
                         double clip_norm_l2 = kWide, uint64_t seed = 1) {
    Session session({gaussians_stage(noise_multiplier)}, seed);
    const ClassGaussians found = release_class_gaussians(
        records, gaussians_stage(noise_multiplier), frequencies, clip_norm_l2, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("class_gaussians"), 2);
    EXPECT_EQ(found.frequencies(), frequencies);
    return found;
  }
};

TEST_F(ClassGaussiansTest, CountsMeansAndCovariancesAreThoseOfTheImages) {
  const at::Tensor basis = two_dimensional_cosines(5);
  const ClassGaussians found = release(store(0, 40), kQuiet, 5);
  ASSERT_EQ(found.means.sizes(), (std::vector<int64_t>{3, 1, 8, 8}));
  ASSERT_EQ(found.covariances.sizes(), (std::vector<int64_t>{3, 25, 25}));
  for (int c = 0; c < 2; ++c) {
    at::Tensor mean = at::zeros({64}, at::kDouble);
    at::Tensor covariance = at::zeros({25, 25}, at::kDouble);
    for (int i = c; i < 40; i += 2) mean += image_of_set(i) / 20;
    for (int i = c; i < 40; i += 2) {
      const at::Tensor z = at::matmul(basis, image_of_set(i) - mean);
      covariance += at::outer(z, z) / 20;
    }
    EXPECT_NEAR(found.counts[c].item<double>(), 20, 1e-4);
    EXPECT_LE((found.means[c].flatten() - mean).abs().max().item<double>(), 1e-5);
    EXPECT_LE((found.covariances[c] - covariance).abs().max().item<double>(), 2e-5);
    EXPECT_GT(covariance.trace().item<double>(), 0.5);
  }
}

// The rows are orthonormal, so that all frequencies are a change of coordinates.
TEST_F(ClassGaussiansTest, TheBasisIsOrthonormal) {
  const at::Tensor basis = cosine_basis(8, 8);
  EXPECT_LE((at::matmul(basis, basis.t()) - at::eye(8, at::kDouble)).abs().max().item<double>(),
            1e-14);
}

// The first release: whichever record leaves, the sums move by norm 1, and other classes not at
// all.
TEST_F(ClassGaussiansTest, OneImageMovesSumsOfItsOwnClassByNormOne) {
  const ClassGaussians all = release(store(0, 40), kQuiet, 4);
  const ClassGaussians without = release(store(0, 39), kQuiet, 4);
  EXPECT_TRUE(all.means[0].equal(without.means[0]));
  EXPECT_TRUE(all.covariances[0].equal(without.covariances[0]));
  EXPECT_TRUE(all.covariances[2].equal(without.covariances[2]));
  const auto sums = [](const ClassGaussians& of) {
    return of.counts[1].to(at::kDouble) * of.means[1].to(at::kDouble).flatten();
  };
  const double count = (all.counts[1] - without.counts[1]).item<double>();
  const double moved = (sums(all) - sums(without)).norm().item<double>();
  EXPECT_NEAR(count, 1, 1e-4);
  EXPECT_NEAR(moved, image_of_set(39).norm().item<double>(), 1e-3);
}

// An image of the largest norm is not clipped with its count: 1 is reached and not passed.
TEST_F(ClassGaussiansTest, ACountAndTheLargestImageFitNormOne) {
  RecordStoreWriter writer(folder / "white", {8, 8, 1, 0, {}, false, 1});
  writer.append(std::vector<uint8_t>(64, 255), 0);
  writer.finish({{"note", "made by a test"}});
  const ClassGaussians found = release(RecordStore::open(folder / "white"), kQuiet, 2);
  EXPECT_NEAR(found.counts[0].item<double>(), 1, 1e-5);
  EXPECT_LE((found.means - 1).abs().max().item<double>(), 1e-5);
}

// Channels lie one after the other in means and covariances, and interleaved in a store.
TEST_F(ClassGaussiansTest, ColourImagesKeepTheirChannels) {
  RecordStoreWriter writer(folder / "colour", {4, 4, 3, 0, {}, false, 1});
  for (const int sign : {1, -1}) {
    std::vector<uint8_t> pixels;
    for (int p = 0; p < 16; ++p)
      for (const int value : {200, 100 + 20 * sign, 50 - 10 * sign})
        pixels.push_back(static_cast<uint8_t>(value));
    writer.append(pixels, 0);
  }
  writer.finish({{"note", "made by a test"}});
  const ClassGaussians found = release(RecordStore::open(folder / "colour"), kQuiet, 2);
  ASSERT_EQ(found.means.sizes(), (std::vector<int64_t>{1, 3, 4, 4}));
  ASSERT_EQ(found.covariances.sizes(), (std::vector<int64_t>{1, 12, 12}));
  const double mean[] = {200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1};
  for (int c = 0; c < 3; ++c)
    EXPECT_LE((found.means[0][c] - mean[c]).abs().max().item<double>(), 1e-5) << c;
  // The lowest frequency of a constant image of 4x4 pixels is four times its value.
  const double green = 4 * 20 / 127.5, blue = -4 * 10 / 127.5;
  at::Tensor expected = at::zeros({12, 12}, at::kDouble);
  expected[4][4] = green * green;
  expected[8][8] = blue * blue;
  expected[4][8] = expected[8][4] = green * blue;
  EXPECT_LE((found.covariances[0] - expected).abs().max().item<double>(), 1e-5);
}

// Of two images the mean lies between them, and each adds the same outer product: of norm 1 where
// it is clipped, of its own square where it is not.
TEST_F(ClassGaussiansTest, NoImageAddsMoreThanNormOneToTheCovariance) {
  const RecordStore two = store(0, 4);  // two of each class
  const at::Tensor z =
      at::matmul(two_dimensional_cosines(6), (image_of_set(0) - image_of_set(2)) / 2);
  const double norm = z.norm().item<double>();
  ASSERT_GT(norm, 0.5);
  for (const double clip : {norm / 4, norm / 2, norm * 2}) {
    const ClassGaussians found = release(two, kQuiet, 6, clip);
    const at::Tensor sum = found.covariances[0].to(at::kDouble) * found.counts[0].item<double>();
    const double each = std::min(1.0, norm * norm / (clip * clip));
    EXPECT_NEAR(sum.norm().item<double>() / (clip * clip), 2 * each, 1e-4) << clip;
    EXPECT_LE((sum / sum.norm() - at::outer(z, z) / z.square().sum()).abs().max().item<double>(),
              1e-4);
  }
}

TEST_F(ClassGaussiansTest, NoiseIsOnEveryNumberOfEveryClass) {
  const double sigma = 3, clip = 2;
  const RecordStore records = store(0, 400);
  const ClassGaussians exact = release(records, kQuiet, 4, clip);
  std::vector<at::Tensor> images;  // of each class [200, 64]
  for (int c = 0; c < 2; ++c) {
    std::vector<at::Tensor> of_class;
    for (int i = c; i < 400; i += 2) of_class.push_back(image_of_set(i));
    images.push_back(at::stack(of_class));
  }
  const at::Tensor basis = two_dimensional_cosines(4);
  const auto sum_about = [&](int c, const at::Tensor& mean) {
    const at::Tensor centre = mean.flatten().to(at::kDouble).clamp(-1, 1);
    const at::Tensor z = at::matmul(images[c] - centre, basis.t());
    const at::Tensor clipped = z * (clip / z.norm(2, {1}, true)).clamp_max(1);
    return at::matmul(clipped.t(), clipped);
  };
  std::vector<double> counts, means, diagonal, above;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const ClassGaussians noisy = release(records, sigma, 4, clip, seed);
    EXPECT_DOUBLE_EQ(noisy.noise_stddev, sigma * clip * clip / std::numbers::sqrt2);
    for (int c = 0; c < 2; ++c) {
      const double count = noisy.counts[c].item<double>();
      counts.push_back(count - 200);
      const at::Tensor mean =
          noisy.means[c].flatten().to(at::kDouble) * count - 200 * exact.means[c].flatten();
      for (int64_t i = 0; i < 64; ++i) means.push_back(mean[i].item<double>());
      // The second release is about the noisy mean, whatever that is.
      const at::Tensor noise =
          noisy.covariances[c].to(at::kDouble) * count - sum_about(c, noisy.means[c]);
      for (int i = 0; i < 16; ++i) {
        diagonal.push_back(noise[i][i].item<double>());
        for (int j = i + 1; j < 16; ++j) above.push_back(noise[i][j].item<double>());
      }
    }
    // The class without images: nothing but noise, over the noise on its count or the larger count.
    const at::Tensor noise = noisy.covariances[2].to(at::kDouble) * noisy.counts[2].item<double>();
    EXPECT_GE(noisy.counts[2].item<double>(), 10 * sigma * (1 - 1e-6));
    EXPECT_TRUE(noise.equal(noise.t()));
    for (int i = 0; i < 16; ++i) {
      diagonal.push_back(noise[i][i].item<double>());
      for (int j = i + 1; j < 16; ++j) above.push_back(noise[i][j].item<double>());
    }
  }
  expect_noise(counts, 10 * sigma);
  expect_noise(means, sigma * 8 / std::sqrt(0.99));
  expect_noise(diagonal, sigma * clip * clip);
  expect_noise(above, sigma * clip * clip / std::numbers::sqrt2);
}

TEST_F(ClassGaussiansTest, ReadsBackAndRefusesOtherFiles) {
  const ClassGaussians found = release(store(0, 40), 0.5, 3);
  const auto file = folder / "g.safetensors";
  found.save(file);
  const ClassGaussians read = ClassGaussians::load(file);
  EXPECT_TRUE(read.counts.equal(found.counts));
  EXPECT_TRUE(read.means.equal(found.means));
  EXPECT_TRUE(read.covariances.equal(found.covariances));
  EXPECT_EQ(read.noise_stddev, found.noise_stddev);
  const auto refused = [&](const char* what, auto&& change) {
    ClassGaussians other = found;
    change(other);
    other.save(file);
    EXPECT_THROW(ClassGaussians::load(file), DataError) << what;
  };
  refused("counts", [](auto& g) { g.counts = g.counts.narrow(0, 0, 2); });
  refused("no images", [](auto& g) { g.counts = g.counts - 1000; });
  refused("means", [](auto& g) { g.means = g.means.narrow(2, 0, 2); });
  refused("dimensions", [](auto& g) { g.means = g.means[0]; });
  refused("not square", [](auto& g) { g.covariances = g.covariances.narrow(2, 0, 8); });
  refused("no frequencies",
          [](auto& g) { g.covariances = g.covariances.narrow(1, 0, 8).narrow(2, 0, 8); });
  refused("not finite", [](auto& g) { g.covariances = g.covariances / 0.0; });
  refused("noise", [](auto& g) { g.noise_stddev = 0; });
  write_tensor_file(file, {{"counts", found.counts}});
  EXPECT_THROW(ClassGaussians::load(file), DataError);
}

// A row of 40 frequencies of three channels is longer than sums can bound: told before anything is
// charged.
TEST_F(ClassGaussiansTest, TooManyFrequenciesAreRefusedBeforeTheFirstCharge) {
  RecordStoreWriter writer(folder / "large", {40, 40, 3, 0, {}, false, 1});
  writer.append(std::vector<uint8_t>(4800, 7), 0);
  writer.finish({{"note", "made by a test"}});
  Session session({gaussians_stage(2)});
  EXPECT_THAT(error_message<UsageError>([&] {
                (void)release_class_gaussians(RecordStore::open(folder / "large"),
                                              gaussians_stage(2), 40, kWide, session.mechanism);
              }),
              ::testing::HasSubstr("set fewer frequencies"));
  EXPECT_EQ(session.mechanism.ledger().charged_releases("class_gaussians"), 0);
}

// What the configuration says later must be what was released.
TEST_F(ClassGaussiansTest, ChangedSettingsAreRefusedOnceTheStageIsDone) {
  const auto config = [](std::vector<std::string> changes) {
    changes.insert(changes.end(), {"data.image_size=8", "data.channels=1", "data.num_classes=3",
                                   "mechanism.stages.class_gaussians.noise_multiplier=2"});
    return load_config(std::nullopt, changes);
  };
  const std::string section = "mechanism.stages.class_gaussians.";
  const auto released = config({section + "frequencies=4"});
  const RecordStore records = store(0, 40);
  const StagePlan plan = gaussians_stage(2);
  Session session({plan});
  const Stage& stage = find_stage(stage_table(), "class_gaussians");
  const auto file = folder / "g.safetensors";
  stage.run({*released, records, plan, session.mechanism, folder.path()}, file);
  // Half of the largest norm, 8, squared and times two.
  EXPECT_DOUBLE_EQ(ClassGaussians::load(file).noise_stddev, 32 / std::numbers::sqrt2);
  const auto check = [&](const Config& now) {
    stage.check({now, records, plan, session.mechanism, folder.path()}, file);
  };
  EXPECT_NO_THROW(check(*released));
  EXPECT_NO_THROW(check(*config({section + "frequencies=4", section + "clip_norm_l2=4"})));
  for (const char* change : {"frequencies=5", "clip_norm_l2=5"})
    EXPECT_THAT(error_message<UsageError>([&] {
                  check(*config({section + "frequencies=4", section + change}));
                }),
                ::testing::HasSubstr("put its frequencies and clip_norm_l2 back"));
}

TEST_F(ClassGaussiansTest, AStopBeforeTheFirstReleaseCostsNothing) {
  Session session({gaussians_stage(2)});
  set_stop_requested(true);
  EXPECT_THROW(
      (void)release_class_gaussians(store(0, 40), gaussians_stage(2), 4, kWide, session.mechanism),
      Interrupted);
  set_stop_requested(false);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("class_gaussians"), 0);
}

TEST_F(ClassGaussiansTest, IsTwoReleasesOfEveryRecordAndCharged) {
  const RecordStore records = store(0, 40);
  const auto refused = [&]<typename Error>(const StagePlan& stage, int64_t frequencies, double clip,
                                           const Error&) {
    Session session({stage});
    EXPECT_THROW(
        (void)release_class_gaussians(records, stage, frequencies, clip, session.mechanism), Error);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("class_gaussians"), 0);
  };
  StagePlan sampled = gaussians_stage(2), once = sampled, wider = sampled;
  sampled.event = Phase{0.5, 2, 2};
  once.event = Phase{1, 2, 1};
  wider.clip_norm_l2 = 2;
  for (const StagePlan& stage : {sampled, once, wider}) refused(stage, 4, kWide, PrivacyError(""));
  for (const int64_t frequencies : {0, 9})
    refused(gaussians_stage(2), frequencies, kWide, UsageError(""));
  for (const double clip : {0.0, -1.0, std::nan(""), 1e-7, 1e7})
    refused(gaussians_stage(2), 4, clip, UsageError(""));
  Session spent({gaussians_stage(2)});
  (void)spent.mechanism.release(StatisticSum(1, 1, 1), gaussians_stage(2));
  EXPECT_THROW(release_class_gaussians(records, gaussians_stage(2), 4, kWide, spent.mechanism),
               PrivacyError);
}

}  // namespace
}  // namespace sfumato
