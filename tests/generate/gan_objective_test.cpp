#include "sfumato/generate/gan/objective.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "generate/tiny_gan.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/grad/gradient_engine.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;

double softplus(double x) { return std::log1p(std::exp(x)); }

/// The loss of one record's scores, by its definition in double precision.
double by_hand(const std::vector<double>& s, const GanOptions& o) {
  const auto m = static_cast<std::size_t>(o.fakes);
  const double real = s[0];
  double loss = o.loss == GanLoss::kHinge      ? std::max(0.0, 1 - real)
                : o.loss == GanLoss::kLogistic ? softplus(-real)
                                               : 0;
  for (std::size_t i = 1; i <= m; ++i) {
    const double fake = s[i];
    const double term = o.loss == GanLoss::kHinge      ? std::max(0.0, 1 + fake)
                        : o.loss == GanLoss::kLogistic ? softplus(fake)
                                                       : softplus(-(real - fake));
    loss += term / static_cast<double>(m);
  }
  std::size_t next = 1 + m;
  if (o.approximated_r1 > 0) {
    loss += o.approximated_r1 * std::pow(real - s[next], 2);
    ++next;
  }
  if (o.approximated_r2 > 0)
    for (std::size_t i = 1; i <= m; ++i, ++next)
      loss += o.approximated_r2 * std::pow(s[i] - s[next], 2) / static_cast<double>(m);
  return loss;
}

TEST(GanLosses, AreTheirDefinitions) {
  for (const GanLoss loss : {GanLoss::kHinge, GanLoss::kLogistic, GanLoss::kRelativistic})
    for (const int64_t fakes : {1, 3})
      for (const auto& [r1, r2] : {std::pair{0.0, 0.0}, {2.0, 0.0}, {0.0, 3.0}, {2.0, 3.0}}) {
        const GanOptions options{.loss = loss,
                                 .fakes = fakes,
                                 .approximated_r1 = r1,
                                 .approximated_r2 = r2,
                                 .augmentation = {}};
        const at::Tensor scores = at::randn({5, options.draws()}) * 1.5;
        const at::Tensor found = pair_losses(scores, options);
        ASSERT_EQ(found.sizes(), (std::vector<int64_t>{5}));
        for (int64_t b = 0; b < 5; ++b) {
          std::vector<double> row;
          for (int64_t k = 0; k < options.draws(); ++k)
            row.push_back(double{scores[b][k].item<float>()});
          EXPECT_NEAR(double{found[b].item<float>()}, by_hand(row, options), 1e-4);
        }
      }
}

TEST(GanLosses, ModeSeekingIsTheRatioOfDistances) {
  // Five fakes: the first two are compared with the two after them, the fifth with none.
  const at::Tensor images = at::randn({5, 1, 2, 2}), latents = at::randn({5, 3});
  double apart = 0, apart_latents = 0;
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t y = 0; y < 2; ++y)
      for (int64_t x = 0; x < 2; ++x)
        apart += std::abs(images[n][0][y][x].item<float>() - images[n + 2][0][y][x].item<float>());
    for (int64_t z = 0; z < 3; ++z)
      apart_latents += std::abs(latents[n][z].item<float>() - latents[n + 2][z].item<float>());
  }
  EXPECT_NEAR(double{mode_seeking_loss(images, latents).item<float>()},
              (apart_latents / 6) / (apart / 8), 1e-3);
  // A class that became one image costs much, and finitely much.
  EXPECT_NEAR(mode_seeking_loss(at::ones({4, 1, 2, 2}), at::randn({4, 3})).item<float>(), 1e5, 10);
}

TEST(GanLosses, OfTheGeneratorLookAtFakesAlone) {
  const at::Tensor scores = at::tensor({-1.0F, 0.5F, 2.0F});
  EXPECT_NEAR(generator_loss(scores, GanLoss::kHinge).item<float>(), -0.5, 1e-6);
  EXPECT_NEAR(generator_loss(scores, GanLoss::kRelativistic).item<float>(), -0.5, 1e-6);
  EXPECT_NEAR(double{generator_loss(scores, GanLoss::kLogistic).item<float>()},
              (softplus(1) + softplus(-0.5) + softplus(-2)) / 3, 1e-6);
}

class GanDraws : public ::testing::Test {
 protected:
  static GanOptions all(int64_t fakes = 3) {
    return {.loss = GanLoss::kHinge,
            .fakes = fakes,
            .approximated_r1 = 1,
            .approximated_r2 = 1,
            .regulariser_noise = 0.1,
            .augmentation = {.horizontal_flip = true, .shift_pixels = 1, .cutout = 0.5}};
  }
  ExampleBatch examples(std::vector<uint64_t> keys) const {
    ExampleBatch batch = synthetic_examples(kTinyShape, keys);
    for (int64_t i = 0; i < batch.size(); ++i)
      batch.labels[i] = static_cast<int64_t>(keys[static_cast<std::size_t>(i)] % 2);
    return batch;
  }
  std::unique_ptr<TinyGenerator> generator = tiny_generator();
  std::unique_ptr<TinyDiscriminator> discriminator = tiny_discriminator();
};

TEST_F(GanDraws, DependOnTheRecordsKeyAlone) {
  const GanObjective objective(*generator, *discriminator, all());
  const std::vector<uint64_t> keys = {77, 3, uint64_t{1} << 40, ~uint64_t{0}};
  const TrainingBatch whole = objective.draw(examples(keys), 9, 4);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const TrainingBatch alone = objective.draw(examples({keys[i]}), 9, 4);
    for (std::size_t j = 0; j < whole.inputs.size(); ++j)
      EXPECT_TRUE(at::equal(alone.inputs[j][0], whole.inputs[j][static_cast<int64_t>(i)]))
          << "input " << j << " of record " << i;
  }
  const TrainingBatch later = objective.draw(examples(keys), 9, 5);
  EXPECT_FALSE(at::equal(later.inputs[1], whole.inputs[1]));
}

TEST_F(GanDraws, LabelsOfFakesAreUniformAndThoseOfPairsTheRecords) {
  std::vector<uint64_t> keys(400);
  std::iota(keys.begin(), keys.end(), uint64_t{0});
  const ExampleBatch batch = examples(keys);
  GanOptions options{.fakes = 5, .augmentation = {}};
  const at::Tensor drawn =
      GanObjective(*generator, *discriminator, options).draw(batch, 1, 1).inputs[2];
  EXPECT_TRUE(at::equal(drawn.select(1, 0), batch.labels));
  const double share = drawn.narrow(1, 1, 5).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(share, 0.5, 0.06);  // 2000 coins: five standard deviations
  const at::Tensor agree = (drawn.narrow(1, 1, 5) == batch.labels.unsqueeze(1)).to(at::kDouble);
  EXPECT_NEAR(agree.mean().item<double>(), 0.5, 0.06);
  options.loss = GanLoss::kRelativistic;
  const at::Tensor pairs =
      GanObjective(*generator, *discriminator, options).draw(batch, 1, 1).inputs[2];
  EXPECT_TRUE((pairs == batch.labels.unsqueeze(1)).all().item<bool>());
}

TEST_F(GanDraws, LabelsThatTheNetworksDoNotKnowAreRefused) {
  const GanObjective objective(*generator, *discriminator, all());
  ExampleBatch batch = examples({1, 2});
  batch.labels[1] = kTinyClasses;
  EXPECT_THAT(error_message<UsageError>([&] { objective.draw(batch, 1, 1); }),
              HasSubstr("data.num_classes"));
}

TEST_F(GanDraws, ThePairIsTheImageItsFakesAndTheirNoisyCopies) {
  GanOptions options = all(2);
  options.augmentation = {};
  const GanObjective objective(*generator, *discriminator, options);
  const ExampleBatch batch = examples({5, 6});
  const TrainingBatch drawn = objective.draw(batch, 3, 7), placed = objective.place(drawn);
  const at::Tensor images = placed.inputs[0].view({2, 6, 1, 4, 4});
  const at::Tensor labels = placed.inputs[1].view({2, 6});
  EXPECT_TRUE(at::equal(images.select(1, 0), batch.images));
  const at::NoGradGuard no_grad;
  for (int64_t m = 0; m < 2; ++m) {
    const at::Tensor fake =
        generator->forward(drawn.inputs[1].select(1, m), drawn.inputs[2].select(1, 1 + m), false);
    EXPECT_LT((images.select(1, 1 + m) - fake).abs().max().item<float>(), 1e-6F);
  }
  const at::Tensor noise = images.narrow(1, 3, 3) - images.narrow(1, 0, 3);
  EXPECT_LT((noise - drawn.inputs[3]).abs().max().item<float>(), 1e-6F);
  EXPECT_NEAR(noise.std().item<float>(), 0.1F, 0.03F);
  EXPECT_TRUE(at::equal(labels.narrow(1, 3, 3), labels.narrow(1, 0, 3)));
}

TEST_F(GanDraws, OneChangeIsThatOfTheWholePair) {
  GanOptions options = all(2);
  options.approximated_r1 = options.approximated_r2 = 0;
  GanOptions plain = options;
  plain.augmentation = {};
  const ExampleBatch batch = examples({5, 6, 7});
  const GanObjective changing(*generator, *discriminator, options);
  const TrainingBatch drawn = changing.draw(batch, 3, 7);
  TrainingBatch unchanged = drawn;
  const at::Tensor before = GanObjective(*generator, *discriminator, plain)
                                .place(unchanged)
                                .inputs[0]
                                .view({3, 3, 1, 4, 4});
  const at::Tensor after = changing.place(drawn).inputs[0].view({3, 3, 1, 4, 4});
  for (int64_t k = 0; k < 3; ++k)
    EXPECT_TRUE(at::equal(after.select(1, k),
                          augmented(before.select(1, k), drawn.inputs[4], options.augmentation)));
}

// Clipping bounds one record's part only if no other record moves it.
TEST_F(GanDraws, OtherRecordsChangeNothingInARecordsGradient) {
  for (const GanLoss loss : {GanLoss::kHinge, GanLoss::kLogistic, GanLoss::kRelativistic}) {
    GanOptions options = all();
    options.loss = loss;
    GanObjective objective(*generator, *discriminator, options);
    GradientEngine engine(objective.parameters(), {});
    const auto first = [&](std::vector<uint64_t> keys) {
      const TrainingBatch placed = objective.place(objective.draw(examples(keys), 1, 2));
      const BatchStatistics statistics =
          engine.accumulate(placed.examples, objective.draws(), {},
                            [&](Tape& tape) { return objective.losses(placed, &tape); });
      engine.discard();
      return std::pair{double{statistics.loss[0].item<float>()}, statistics.norm[0].item<double>()};
    };
    const auto [lone_loss, lone_norm] = first({8});
    for (const auto& keys : {std::vector<uint64_t>{8, 9}, {8, 10, 11, 12}}) {
      const auto [found_loss, found_norm] = first(keys);
      EXPECT_NEAR(found_loss, lone_loss, 1e-5 * (1 + std::abs(lone_loss)));
      EXPECT_NEAR(found_norm, lone_norm, 1e-4 * lone_norm);
    }
  }
}

TEST(GanAugmentations, AreThoseOfBytes) {
  const int64_t h = 4, w = 5;
  std::vector<uint8_t> pixels(20);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 12);
  const auto as_floats = [&](const Augmentation& augmentation) {
    const at::Tensor out = at::zeros({1, 1, h, w});
    convert_augmented(pixels, h, w, 1, augmentation, out.mutable_data_ptr<float>());
    return out;
  };
  for (const bool flip : {false, true})
    for (const int64_t dx : {-2, 0, 1})
      for (const int64_t dy : {-1, 0, 3}) {
        const at::Tensor choices = at::tensor({flip ? 1.0F : 0.0F, static_cast<float>(dx),
                                               static_cast<float>(dy), 0.0F, 0.0F})
                                       .unsqueeze(0);
        const at::Tensor found =
            augmented(as_floats({}), choices, {.horizontal_flip = true, .shift_pixels = 3});
        EXPECT_TRUE(at::equal(found, as_floats({flip, dx, dy}))) << flip << dx << dy;
      }
}

TEST(GanAugmentations, CutOneSquareOut) {
  const at::Tensor images = at::randn({1, 2, 8, 8}).abs() + 1;
  const at::Tensor choices = at::tensor({0.0F, 0.0F, 0.0F, 0.5F, 0.25F}).unsqueeze(0);
  const at::Tensor found = augmented(images, choices, {.cutout = 0.25});
  const at::Tensor gone = found == 0;
  EXPECT_EQ(gone.sum().item<int64_t>(), 2 * 2 * 2);
  EXPECT_TRUE(gone.narrow(2, 1, 2).narrow(3, 3, 2).all().item<bool>());
}

TEST(GanAugmentations, LetGradientsThrough) {
  at::Tensor images = at::randn({2, 1, 4, 4}).set_requires_grad(true);
  const at::Tensor choices =
      at::tensor({1.0F, 1.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F})
          .view({2, kGanChoices});
  augmented(images, choices, {.horizontal_flip = true, .shift_pixels = 1}).sum().backward();
  // Shifted by one, an edge counts twice and another not at all.
  EXPECT_EQ(images.grad().sum().item<float>(), 32.0F);
  EXPECT_EQ(images.grad()[0].max().item<float>(), 2.0F);
  EXPECT_EQ(images.grad()[1].max().item<float>(), 1.0F);
}

TEST(GanSettingsOfALoss, AnAverageOverTheBatchIsRefusedByName) {
  const std::vector<std::string> average = {"gan.loss=relativistic_average"};
  EXPECT_THAT(error_message<UsageError>([&] { load_config(std::nullopt, average); }),
              AllOf(HasSubstr("'relativistic_average'"), HasSubstr("over the batch"),
                    HasSubstr("'relativistic' pairs each record")));
  const std::vector<std::string> unknown = {"gan.loss=hingo"};
  EXPECT_THAT(error_message<UsageError>([&] { load_config(std::nullopt, unknown); }),
              HasSubstr("did you mean 'hinge'"));
}

TEST(GanSettingsOfALoss, APairsScoresSayNothingOfFakesAlone) {
  const std::vector<std::string> both = {"gan.loss=relativistic"};
  EXPECT_THAT(error_message<UsageError>([&] { load_config(std::nullopt, both); }),
              HasSubstr("gan.adaptive=false"));
  const std::vector<std::string> fixed = {"gan.loss=relativistic", "gan.adaptive=false"};
  EXPECT_EQ(gan_options(load_config(std::nullopt, fixed)->gan).loss, GanLoss::kRelativistic);
}

}  // namespace
}  // namespace sfumato
