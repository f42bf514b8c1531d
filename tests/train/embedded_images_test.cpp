// A generator fitted to a mean embedding: the distance that it minimises, and that its images
// become those that were embedded.
#include "sfumato/train/embedded_images.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/device/threads.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const RandomFeatureOptions kFeatures{.frequencies = 300, .width = 3, .seed = 0};
constexpr ImageShape kShape{1, 8, 8};
const auto kNoStop = [] {};

/// Of classes of constant images: their features, without noise.
MeanEmbedding embedding_of(const std::vector<double>& values) {
  const RandomFeatures features(kFeatures, kShape);
  std::vector<at::Tensor> means;
  for (const double value : values)
    means.push_back(features.of_images(at::full({1, 1, 8, 8}, value, at::kFloat))[0]);
  return {at::stack(means), kFeatures, 0};
}

std::unique_ptr<GeneratorNetwork> usual_generator(int64_t classes, uint64_t seed = 1) {
  auto generator = make_generator_network(usual_embedding_generator(kShape, classes));
  generator->initialise(seed);
  return generator;
}

// From the definition: pairs of different images.
TEST(EmbeddingDistance, IsTheMeanOverPairs) {
  at::Tensor z = at::randn({2, 5, 6}, at::kDouble);
  z = z / z.norm(2, {-1}, /*keepdim=*/true);
  const at::Tensor released = at::randn({2, 6}, at::kDouble);
  double expected = 0;
  for (int64_t c = 0; c < 2; ++c) {
    double pairs = 0, cross = 0;
    for (int64_t i = 0; i < 5; ++i) {
      cross += (released[c] * z[c][i]).sum().item<double>() / 5;
      for (int64_t j = 0; j < 5; ++j)
        if (i != j) pairs += (z[c][i] * z[c][j]).sum().item<double>() / 20;
    }
    expected += (released[c].square().sum().item<double>() - 2 * cross + pairs) / 2;
  }
  EXPECT_NEAR(embedding_distance(released, z).item<double>(), expected, 1e-12);
}

TEST(EmbeddedImages, ReproduceTwoClassesOfConstantImages) {
  set_threads(1);  // others would wait for each other more than they compute
  const std::vector<double> values = {-0.7, 0.4};
  const MeanEmbedding embedding = embedding_of(values);
  const auto generator = usual_generator(2);
  const EmbeddingFit before{.steps = 1, .batch = 20, .learning_rate = 1e-9, .seed = 1};
  const double first = fit_to_embedding(*generator, embedding, before, kNoStop);
  const EmbeddingFit fit{.steps = 500, .batch = 20, .learning_rate = 0.005, .seed = 1};
  const double last = fit_to_embedding(*generator, embedding, fit, kNoStop);
  EXPECT_GT(first, 0.2);
  EXPECT_LT(std::abs(last), 0.1 * first);
  const at::Tensor images = draw_in_turn(*generator, 31, 1, c10::kCPU);
  ASSERT_EQ(images.sizes(), (std::vector<int64_t>{31, 1, 8, 8}));
  // A wide kernel hardly sees how far images of a class lie apart, but where they lie.
  std::vector<double> means(2);
  for (int64_t i = 0; i < 30; ++i) {
    means[static_cast<size_t>(i % 2)] += images[i].mean().item<double>() / 15;
    EXPECT_NEAR(images[i].mean().item<double>(), values[static_cast<size_t>(i % 2)], 0.5) << i;
  }
  for (size_t c = 0; c < 2; ++c) EXPECT_NEAR(means[c], values[c], 0.1);
}

TEST(EmbeddedImages, FollowFromTheSeed) {
  const MeanEmbedding embedding = embedding_of({-0.5, 0.5});
  const auto images = [&](uint64_t seed) {
    const auto generator = usual_generator(2);
    fit_to_embedding(*generator, embedding, {.steps = 5, .batch = 8, .seed = seed}, kNoStop);
    return draw_in_turn(*generator, 4, seed, c10::kCPU);
  };
  EXPECT_TRUE(images(1).equal(images(1)));
  EXPECT_FALSE(images(1).equal(images(2)));
}

/// Rows of the table of classes that training moved.
std::vector<bool> moved_classes(int64_t classes, const EmbeddingFit& fit) {
  const auto generator = usual_generator(classes);
  at::Tensor table;
  for (Parameter* parameter : generator->parameters())
    if (parameter->name == "class_embedding.weight") table = parameter->value;
  const at::Tensor before = table.detach().clone();
  std::vector<double> values(static_cast<size_t>(classes), 0.5);
  fit_to_embedding(*generator, embedding_of(values), fit, kNoStop);
  std::vector<bool> moved;
  for (int64_t c = 0; c < classes; ++c) moved.push_back(!table[c].equal(before[c]));
  return moved;
}

// Where a step has room for two classes, the next has the next two.
TEST(EmbeddedImages, AllClassesHaveTheirTurn) {
  EXPECT_THAT(moved_classes(5, {.steps = 1, .batch = 5}),
              ElementsAre(true, true, false, false, false));
  EXPECT_THAT(moved_classes(5, {.steps = 2, .batch = 5}),
              ElementsAre(true, true, true, true, false));
  EXPECT_THAT(moved_classes(5, {.steps = 3, .batch = 5}), Each(true));
  EXPECT_THAT(moved_classes(5, {.steps = 1, .batch = 10}), Each(true));
}

TEST(EmbeddedImages, AStopAndABrokenFitEndIt) {
  const MeanEmbedding embedding = embedding_of({-0.5, 0.5});
  int64_t steps = 0;
  EXPECT_THROW(fit_to_embedding(*usual_generator(2), embedding, {.steps = 50, .batch = 4},
                                [&] {
                                  if (++steps == 3) throw Interrupted("stop");
                                }),
               Interrupted);
  EXPECT_EQ(steps, 3);
  MeanEmbedding broken = embedding;
  broken.means.fill_(std::numeric_limits<float>::infinity());
  EXPECT_THAT(error_message<DataError>([&] {
                fit_to_embedding(*usual_generator(2), broken, {.steps = 5, .batch = 4}, kNoStop);
              }),
              HasSubstr("generator_learning_rate"));
}

TEST(EmbeddedImages, OfOtherClassesAreRefused) {
  EXPECT_THAT(error_message<DataError>([&] {
                fit_to_embedding(*usual_generator(3), embedding_of({-0.5, 0.5}), {}, kNoStop);
              }),
              AllOf(HasSubstr("has 3 classes"), HasSubstr("embedding 2")));
  // Without classes there is one.
  EXPECT_NO_THROW(fit_to_embedding(*usual_generator(0), embedding_of({0.5}),
                                   {.steps = 1, .batch = 2}, kNoStop));
}

TEST(UsualEmbeddingGenerator, FitsImagesOfEverySize) {
  for (const int64_t side : {4, 7, 8, 28, 32, 45, 64})
    for (const int64_t channels : {1, 3}) {
      const auto generator =
          make_generator_network(usual_embedding_generator({channels, side, side}, 3));
      generator->initialise(1);
      EXPECT_EQ(draw_in_turn(*generator, 2, 0, c10::kCPU).sizes(),
                (std::vector<int64_t>{2, channels, side, side}));
    }
}

/// Runs of a second with the stage and a warm-up on what it tells.
class EmbeddingWarmUp : public TinyRun {
 protected:
  static std::vector<std::string> with_embedding(std::vector<std::string> more = {}) {
    std::vector<std::string> changes = {"mechanism.stages.mean_embedding.noise_multiplier=2",
                                        "mechanism.stages.mean_embedding.frequencies=50",
                                        "mechanism.stages.mean_embedding.width=8",
                                        "warmup.embedding.steps=3",
                                        "warmup.embedding.images=20",
                                        "warmup.embedding.generator_steps=4",
                                        "warmup.embedding.generator_batch=8",
                                        "warmup.batch=5",
                                        "warmup.learning_rate=0.01",
                                        "optimizer.name=sgd"};
    changes.insert(changes.end(), more.begin(), more.end());
    return changes;
  }
  std::filesystem::path released(const std::string& run) const {
    return folder / run / "release/mean_embedding.safetensors";
  }
  bool same_start(const std::string& a, const std::string& b) const {
    return differing(checkpoint(a, 0).model, checkpoint(b, 0).model) == 0;
  }
};

TEST_F(EmbeddingWarmUp, MovesTheWeightsBeforeTheFirstStepAndCostsNothing) {
  const TrainResult with = start("warm", with_embedding()),
                    without = start("cold", with_embedding({"warmup.embedding.steps=0"}));
  EXPECT_EQ(with.epsilon, without.epsilon);
  EXPECT_EQ(ledger("warm").stage_charges, ledger("cold").stage_charges);
  EXPECT_EQ(ledger("warm").stage_charges.at("mean_embedding"), 1);
  EXPECT_EQ(MeanEmbedding::load(released("warm")).means.sizes(), (std::vector<int64_t>{2, 100}));
  EXPECT_TRUE(std::filesystem::exists(checkpoint_path("warm", 0)));
  EXPECT_FALSE(std::filesystem::exists(checkpoint_path("cold", 0)));
  EXPECT_GT(with.epsilon, start("none").epsilon) << "the stage is charged";
}

// A crash in the warm-up: the embedding is released once, and what follows from it is done again.
TEST_F(EmbeddingWarmUp, BeginsAnewFromTheSameEmbedding) {
  start("run", with_embedding());
  const std::string embedding = read_file(released("run"));
  for (const auto& [name, change, same] :
       {std::tuple{"same", "run.seed=3", true},
        {"other", "warmup.embedding.generator_steps=5", false}}) {
    forget_uses();
    std::filesystem::copy(folder / "run", folder / name, std::filesystem::copy_options::recursive);
    for (int step = 0; step <= 6; ++step) std::filesystem::remove_all(checkpoint_path(name, step));
    for (const auto& entry : std::filesystem::directory_iterator(folder / name / "release"))
      if (entry.path() != released(name)) std::filesystem::remove_all(entry.path());
    EXPECT_THAT(error_message<PrivacyError>([&] { resume(name, with_embedding({change})); }),
                HasSubstr("are charged and lost"));
    EXPECT_EQ(same_start("run", name), same) << name;
    EXPECT_EQ(read_file(released(name)), embedding);
    EXPECT_EQ(ledger(name).stage_charges.at("mean_embedding"), 1);
  }
}

TEST_F(EmbeddingWarmUp, ComesAfterTheCentralImages) {
  const std::vector<std::string> both =
      with_embedding({"mechanism.stages.central_images.noise_multiplier=2", "warmup.steps=2"});
  EXPECT_EQ(start("both", both).steps, 6);
  EXPECT_EQ(ledger("both").stage_charges.size(), 2u);
  // Were the second part left out, or the first, the weights would be others.
  std::vector<std::string> first = both, second = both;
  first.push_back("warmup.embedding.steps=0");
  second.push_back("warmup.steps=0");
  for (const auto& [name, changes] : {std::pair{"first", first}, {"second", second}}) {
    start(name, changes);
    EXPECT_FALSE(same_start("both", name)) << name;
  }
}

TEST_F(EmbeddingWarmUp, AGeneratorOfOtherImagesIsRefused) {
  const auto file = folder / "generator.json";
  write_file_atomic(file, usual_embedding_generator({1, 16, 16}, 2).dump());
  EXPECT_THAT(error_message<DataError>([&] {
                start("run",
                      with_embedding({"warmup.embedding.generator_config=" + file.string()}));
              }),
              AllOf(HasSubstr("16x16"), HasSubstr("8x8")));
}

TEST_F(EmbeddingWarmUp, AStopIsHeardWhileTheGeneratorIsFitted) {
  set_stop_requested(true);
  EXPECT_THAT(error_message<Interrupted>([&] { start("run", with_embedding()); }),
              HasSubstr("warm-up"));
  EXPECT_FALSE(std::filesystem::exists(checkpoint_path("run", 0)));
  set_stop_requested(false);
  EXPECT_EQ(resume("run", with_embedding()).steps, 6);
  EXPECT_EQ(ledger("run").stage_charges.at("mean_embedding"), 1);
}

}  // namespace
}  // namespace sfumato
