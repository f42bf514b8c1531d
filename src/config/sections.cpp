#include "sfumato/config/sections.h"

#include <utility>

// Constructors are here, not in the header, so that the declarations are compiled once.
namespace sfumato {

RunSettings::RunSettings(SettingsTree* tree)
    : Section(tree, "run", "Where a run lives and when it writes. Does not decide ε.") {}

DataSettings::DataSettings(SettingsTree* tree)
    : Section(tree, "data",
              "The private images and the public facts about them. Does not decide ε, but "
              "records_per_user decides what unit the guarantee protects.") {}

ModelSettings::ModelSettings(SettingsTree* tree)
    : Section(tree, "model", "The network and which of its parameters train. Does not decide ε.") {}

PrivacySettings::PrivacySettings(SettingsTree* tree)
    : Section(tree, "privacy",
              "Whether there is a guarantee at all; what it is, the section mechanism decides.") {}

MechanismSettings::MechanismSettings(SettingsTree* tree)
    : Section(tree, "mechanism",
              "This section decides ε, together with its stages and privacy.enabled, and nothing "
              "else does. It is frozen when training starts: a run resumes only with the same "
              "mechanism.") {}

SelectionSettings::SelectionSettings(SettingsTree* tree)
    : Section(tree, "mechanism.selection",
              "A random number of runs, of which only the best leaves. It decides ε: it is part of "
              "the mechanism, the same in all runs of the selection.") {}

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

DiffusionSettings::DiffusionSettings(SettingsTree* tree)
    : Section(tree, "diffusion",
              "The loss of one image: noise schedule, draws, augmentation. Does not decide ε: "
              "whatever happens inside one image's loss is clipped once.") {}

GanSettings::GanSettings(SettingsTree* tree)
    : Section(tree, "gan",
              "A discriminator that is trained privately, and the generator that learns from it "
              "(model.family: gan). Does not decide ε: what happens inside one record's loss is "
              "clipped once, and the generator is post-processing.") {}

OptimizerSettings::OptimizerSettings(SettingsTree* tree)
    : Section(tree, "optimizer",
              "What is done with the noisy gradient. Does not decide ε: it is post-processing.") {}

WarmupSettings::WarmupSettings(SettingsTree* tree)
    : Section(tree, "warmup",
              "The first, non-private phase of training, on what stages released: public images "
              "that they chose, noisy central images, or images that follow from a mean "
              "embedding. Does not decide ε: it is post-processing.") {}

EmbeddingWarmupSettings::EmbeddingWarmupSettings(SettingsTree* tree)
    : Section(tree, "warmup.embedding",
              "Images whose mean embedding is the released one, and the warm-up on them. Does not "
              "decide ε: it is post-processing of what was released.") {}

SemanticWarmupSettings::SemanticWarmupSettings(SettingsTree* tree)
    : Section(
          tree, "warmup.semantic",
          "Public images of the classes that the released counts choose, and the warm-up on them. "
          "Does not decide ε: it is post-processing of what was released.") {}

PerformanceSettings::PerformanceSettings(SettingsTree* tree)
    : Section(tree, "performance",
              "Speed and memory. Changes neither ε nor the clipped sum, beyond rounding.") {}

PreviewSettings::PreviewSettings(SettingsTree* tree)
    : Section(
          tree, "preview",
          "Pictures of a run while it trains, from the average that would be released. Does not "
          "decide ε: they are post-processing, and stay in private/ all the same.") {}

SampleSettings::SampleSettings(SettingsTree* tree)
    : Section(tree, "sample",
              "Drawing the synthetic corpus. Does not decide ε: any number of images is "
              "post-processing.") {}

}  // namespace sfumato
