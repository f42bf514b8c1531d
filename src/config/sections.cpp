#include "sfumato/config/sections.h"

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
              "that they chose, noisy central images, or images that follow from Gaussians of the "
              "classes or from a mean embedding. Does not decide ε: it is post-processing.") {}

GaussiansWarmupSettings::GaussiansWarmupSettings(SettingsTree* tree)
    : Section(tree, "warmup.gaussians",
              "Images of the Gaussians of the classes, and the warm-up on them. Does not decide ε: "
              "it is post-processing of what was released.") {}

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
