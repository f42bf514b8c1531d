#include "sfumato/config/stage_sections.h"

#include <fmt/format.h>

#include <utility>

namespace sfumato {

StageSettings::StageSettings(SettingsTree* tree, StageFacts facts)
    : Section(tree, "mechanism.stages." + facts.name, facts.help), stage(std::move(facts)) {}

std::vector<const StageSettings*> stage_settings(const SettingsTree& settings) {
  std::vector<const StageSettings*> stages;
  for (const Section* section : settings.sections())
    if (const auto* stage = dynamic_cast<const StageSettings*>(section)) stages.push_back(stage);
  return stages;
}

CentralImagesSettings::CentralImagesSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "central_images",
           .result = "central_images.safetensors",
           .help = "Noisy means of random images of each class, released before training for the "
                   "warm-up (DP-FETA). It decides ε: it is part of the mechanism.",
           .noise = "Standard deviation of the noise on each sum of images, divided by "
                    "clip_norm_l2.",
           .noise_unit = "",
           .share = "Some 0.05 is enough for a warm-up."}) {}

ClassGaussiansSettings::ClassGaussiansSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "class_gaussians",
           .result = "class_gaussians.safetensors",
           .help = "A noisy mean and a noisy covariance of the images of each class, released "
                   "before training: images drawn from these Gaussians are what the network warms "
                   "up on. It decides ε: it is part of the mechanism.",
           .noise = "Standard deviation of the noise on both sums, to each of which an image adds "
                    "a vector of norm 1.",
           .noise_unit = "images",
           .share = "0.05 of ε = 10 is noise of some 3 images, little beside thousands."}) {}

MeanEmbeddingSettings::MeanEmbeddingSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "mean_embedding",
           .result = "mean_embedding.safetensors",
           .help =
               "Noisy means of random features of each class, released once before training: an "
               "auxiliary generator fitted to them draws images for the warm-up (DP-MERF, "
               "FETA-Pro). It decides ε: it is part of the mechanism.",
           .noise =
               "Standard deviation of the noise on each sum of features, to which an image adds "
               "a vector of norm 1.",
           .noise_unit = "images",
           .share = "Some 0.05 is enough for a warm-up."}) {}

SemanticQuerySettings::SemanticQuerySettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "semantic_query",
           .result = "semantic_query.json",
           .help =
               "A noisy count, for each class, of the images that lie nearest to each class of a "
               "public set, released once before training: the warm-up is then on the public "
               "classes that were chosen (PrivImage). It decides ε: it is part of the mechanism.",
           .noise = "Standard deviation of the noise on each count of votes, divided by the square "
                    "root of votes_per_record.",
           .noise_unit = "images",
           .share = "0.01 is plenty for counts."}) {}

FeatureMeansSettings::FeatureMeansSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "feature_means",
           .result = "feature_means.json",
           .help = "Noisy means of features of each class, released once before training: of "
                   "sample.candidates, those are kept that are like their class. It decides ε: it "
                   "is part of the mechanism.",
           .noise = "Standard deviation of the noise on each sum of features, to which an image "
                    "adds a vector of norm 1.",
           .noise_unit = "images",
           .share = "0.01 is plenty for means of thousands of images."}) {}

FeatureClassifierSettings::FeatureClassifierSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "feature_classifier",
           .result = "feature_classifier.json",
           .help =
               "A linear classifier of features, trained before the generator in noisy steps: of "
               "sample.candidates, those are kept that it takes for images of their class. It "
               "decides ε: it is part of the mechanism.",
           .noise = "Standard deviation of the noise on each sum of gradients, to which an image "
                    "adds a vector of norm 1 at most.",
           .noise_unit = "",
           .share = "0.02 is plenty for thousands of images of a class."}) {}

AccuracySettings::AccuracySettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "accuracy",
           .result = "accuracy.json",
           .help =
               "A noisy number of the private images that classifiers recognise which were trained "
               "on a corpus of the run, released once by `sfumato evaluate --release-with-noise` "
               "when the run is finished. ε counts it from the start, made or not: it decides ε "
               "and is part of the mechanism.",
           .noise = "Standard deviation of the noise on each number of right answers, divided by "
                    "the square root of classifiers.",
           .noise_unit = "images",
           .share = "0.01 is plenty for some thousand images."}) {}

FrechetDistanceSettings::FrechetDistanceSettings(SettingsTree* tree)
    : StageSettings(
          tree,
          {.name = "frechet_distance",
           .result = "frechet_distance.json",
           .help =
               "Noisy sums of projected and clipped features of the private images and of their "
               "products, released once by `sfumato evaluate --release-with-noise` when the run is "
               "finished: a Fréchet distance of a corpus of the run follows from them, in that "
               "space alone, which the noise pushes upwards. ε counts it from the start, made or "
               "not: it decides ε and is part of the mechanism.",
           .noise = "Standard deviation of the noise on each sum, to which an image adds a vector "
                    "of norm 1 at most.",
           .noise_unit = "images",
           .share = "0.05 is enough for some ten thousand images."}) {}

std::string AccuracySettings::measures() const {
  return fmt::format("classifiers={}, expected_records={}", classifiers(), expected_records());
}

std::string FrechetDistanceSettings::measures() const {
  return fmt::format("features={}, dimension={}, expected_records={}", features(), dimension(),
                     expected_records());
}

}  // namespace sfumato
