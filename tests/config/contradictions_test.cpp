// Settings that do not go together, and sections that are not where they were written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/load_helpers.h"

namespace sfumato {
namespace {

using test::load_text;
using test::mistakes_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST(Contradictions, NoiseAndTarget) {
  const std::vector<std::string> both{"mechanism.noise_multiplier=1", "mechanism.target_epsilon=8"};
  EXPECT_THAT(mistakes_of("", both), ElementsAre(HasSubstr("are both set")));
  EXPECT_THAT(mistakes_of("privacy: {enabled: false}", both), IsEmpty());
  EXPECT_NO_THROW(load_text("mechanism: {noise_multiplier: 1}",
                            {"mechanism.noise_multiplier=null", "mechanism.target_epsilon=8"}));
}

TEST(Contradictions, TrainingNeedsOneOfNoiseAndTarget) {
  EXPECT_THROW(validate_for_training(*load_text("")), UsageError);
  EXPECT_NO_THROW(validate(*load_text("")));
  EXPECT_NO_THROW(validate_for_training(*load_text("", {"mechanism.noise_multiplier=1"})));
  EXPECT_NO_THROW(validate_for_training(*load_text("", {"mechanism.target_epsilon=8"})));
  EXPECT_NO_THROW(validate_for_training(*load_text("", {"privacy.enabled=false"})));
  Config config;
  config.mechanism.noise_multiplier.set(1.0);
  config.mechanism.target_epsilon.set(1.0);
  EXPECT_THROW(validate_for_training(config), UsageError);
  EXPECT_THROW(validate(config), UsageError);
}

TEST(Contradictions, MergedFoldersAndClasses) {
  EXPECT_THAT(mistakes_of("data: {merge_folders: true, num_classes: 1}"), IsEmpty());
  EXPECT_THAT(mistakes_of("data: {merge_folders: true, class_names: [a, b]}"),
              ElementsAre(HasSubstr("is 2; leave one of them out")));
}

TEST(Contradictions, DepthAndItsRange) {
  EXPECT_THAT(mistakes_of("", {"data.depth=min_max", "data.depth_range=0,4095"}), IsEmpty());
  EXPECT_THAT(mistakes_of("data: {depth: min_max}"),
              ElementsAre(HasSubstr("needs data.depth_range to be two numbers")));
  for (const char* range : {"data.depth_range=5", "data.depth_range=9,9", "data.depth_range=9,1"})
    EXPECT_THAT(mistakes_of("", {"data.depth=min_max", range}),
                ElementsAre(HasSubstr("the smaller first")));
  EXPECT_THAT(mistakes_of("data: {depth_range: [0, 255]}"),
              ElementsAre(HasSubstr("does not use it")));
}

TEST(Contradictions, Others) {
  EXPECT_THAT(mistakes_of("diffusion: {beta_start: 0.3}"),
              ElementsAre(StartsWith("diffusion.beta_start (c.yaml:1) is greater than "
                                     "diffusion.beta_end (default)")));
  EXPECT_THAT(mistakes_of("diffusion: {beta_start: 0.3, schedule: squaredcos_cap_v2}"), IsEmpty());
  EXPECT_THAT(mistakes_of("diffusion: {rescale_betas_zero_snr: true}"),
              ElementsAre(HasSubstr("needs diffusion.prediction=v_prediction")));
  EXPECT_THAT(mistakes_of("diffusion: {rescale_betas_zero_snr: true, prediction: sample}"),
              IsEmpty());
  EXPECT_THAT(mistakes_of("model: {init: a, config: b}"),
              ElementsAre(HasSubstr("model.init (c.yaml:1) and model.config (c.yaml:1)")));
}

TEST(Contradictions, Stages) {
  const std::string two = "data.num_classes=2";
  const std::string stage = "mechanism.stages.";
  EXPECT_THAT(mistakes_of("", {two, stage + "label_histogram.share=0.1",
                               stage + "label_histogram.epsilon=1", "mechanism.target_epsilon=8"}),
              ElementsAre(HasSubstr("more than one of noise_multiplier, epsilon and share")));
  EXPECT_THAT(mistakes_of("", {two, stage + "label_histogram.share=0.1"}),
              ElementsAre(HasSubstr("share of mechanism.target_epsilon, which is not set")));
  EXPECT_THAT(mistakes_of("", {two, stage + "label_histogram.share=0.5",
                               stage + "central_images.share=0.5", "mechanism.target_epsilon=8"}),
              ElementsAre(HasSubstr("leaves nothing for training")));
  EXPECT_THAT(mistakes_of("", {stage + "label_histogram.noise_multiplier=50"}),
              ElementsAre(HasSubstr("data.num_classes is 0")));
  EXPECT_THAT(mistakes_of("", {"warmup.steps=3"}), ElementsAre(HasSubstr("needs central images")));
  EXPECT_THAT(mistakes_of("", {"warmup.embedding.steps=3"}),
              ElementsAre(AllOf(HasSubstr("warmup.embedding.steps"), HasSubstr("mean_embedding"))));
  EXPECT_THAT(
      mistakes_of("", {"warmup.embedding.steps=3", stage + "mean_embedding.noise_multiplier=7"}),
      IsEmpty());
  EXPECT_THAT(
      mistakes_of("", {"warmup.gaussians.steps=3"}),
      ElementsAre(AllOf(HasSubstr("warmup.gaussians.steps"), HasSubstr("class_gaussians"))));
  EXPECT_THAT(mistakes_of("", {stage + "class_gaussians.noise_multiplier=7",
                               stage + "class_gaussians.frequencies=33"}),
              ElementsAre(HasSubstr("images have 32 pixels a side")));
  EXPECT_THAT(
      mistakes_of("", {"warmup.gaussians.steps=3", stage + "class_gaussians.noise_multiplier=7"}),
      IsEmpty());
  EXPECT_THAT(mistakes_of("", {"warmup.semantic.steps=3"}),
              ElementsAre(AllOf(HasSubstr("warmup.semantic.steps"), HasSubstr("semantic_query"))));
  EXPECT_THAT(mistakes_of("", {stage + "semantic_query.noise_multiplier=7"}),
              ElementsAre(HasSubstr("semantic_query.public_store")));
  EXPECT_THAT(mistakes_of("", {stage + "semantic_query.noise_multiplier=7",
                               stage + "semantic_query.public_store=public"}),
              IsEmpty());
  const std::vector<std::string> sound{two, stage + "label_histogram.share=0.01", "warmup.steps=3",
                                       stage + "central_images.share=0.1",
                                       "mechanism.target_epsilon=8"};
  EXPECT_THAT(mistakes_of("", sound), IsEmpty());
  EXPECT_NO_THROW(validate_for_training(*load_text("", sound)));
  std::vector<std::string> open = sound;
  open.push_back("privacy.enabled=false");
  EXPECT_THROW(validate_for_training(*load_text("", open)), UsageError);
}

TEST(Mistake, AMisspeltSectionIsTakenToWhereItLives) {
  const auto said = [](const std::string& yaml, const std::vector<std::string>& overrides = {}) {
    const auto mistakes = mistakes_of(yaml, overrides);
    return mistakes.size() == 1 ? mistakes[0] : std::string("not one mistake");
  };
  EXPECT_THAT(said("central_image:\n  epsilon: 1\n"),
              HasSubstr("did you mean 'mechanism.stages.central_images'?"));
  EXPECT_THAT(said("stage:\n  central_images: {epsilon: 1}\n"),
              HasSubstr("did you mean 'mechanism.stages'?"));
  EXPECT_THAT(said("warmup:\n  embeding: {steps: 1}\n"), HasSubstr("did you mean 'embedding'?"));
  EXPECT_THAT(said("privacy:\n  stages: {}\n"), HasSubstr("did you mean 'mechanism.stages'?"));
  EXPECT_THAT(said("", {"mechanism.stage.central_images.epsilon=1"}),
              HasSubstr("did you mean 'mechanism.stages.central_images.epsilon'?"));
  EXPECT_THAT(said("", {"warm_up.steps=1"}), HasSubstr("did you mean 'warmup.steps'?"));
  EXPECT_THAT(said("", {"smaple.stps=1"}), HasSubstr("did you mean 'sample"));
}

}  // namespace
}  // namespace sfumato
