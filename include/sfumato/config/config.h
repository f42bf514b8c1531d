#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sfumato/config/sections.h"
#include "sfumato/config/settings_tree.h"

namespace sfumato {

/// Every setting of the program. Neither copied nor moved: hold it by std::unique_ptr.
struct Config : SettingsTree {
  RunSettings run{this};
  DataSettings data{this};
  ModelSettings model{this};
  PrivacySettings privacy{this};
  MechanismSettings mechanism{this};
  SelectionSettings selection{this};  // mechanism.selection
  StageSettings label_histogram{
      this,
      {.name = "label_histogram",
       .result = "label_histogram.json",
       .help = "A noisy count of the images of each class, released before training; sample then "
               "draws classes in these proportions. It decides ε: it is part of the mechanism.",
       .noise = "Standard deviation of the noise on each class's count.",
       .noise_unit = "images",
       .share = "0.01 is plenty for counts."}};
  CentralImagesSettings central_images{this};          // mechanism.stages.central_images
  ClassGaussiansSettings class_gaussians{this};        // mechanism.stages.class_gaussians
  MeanEmbeddingSettings mean_embedding{this};          // mechanism.stages.mean_embedding
  SemanticQuerySettings semantic_query{this};          // mechanism.stages.semantic_query
  FeatureMeansSettings feature_means{this};            // mechanism.stages.feature_means
  FeatureClassifierSettings feature_classifier{this};  // mechanism.stages.feature_classifier
  AccuracySettings accuracy{this};                     // mechanism.stages.accuracy
  FrechetDistanceSettings frechet_distance{this};      // mechanism.stages.frechet_distance
  DiffusionSettings diffusion{this};
  GanSettings gan{this};
  OptimizerSettings optimizer{this};
  WarmupSettings warmup{this};
  GaussiansWarmupSettings gaussians_warmup{this};  // warmup.gaussians
  EmbeddingWarmupSettings embedding_warmup{this};  // warmup.embedding
  SemanticWarmupSettings semantic_warmup{this};    // warmup.semantic
  PerformanceSettings performance{this};
  PreviewSettings preview{this};
  SampleSettings sample{this};
};

/// Defaults, then `file`, then `overrides` ("section.name=value"; a later one wins), then
/// validate(). One UsageError lists every mistake, one per line, as
/// "file:line:column: message; did you mean 'x'?" or "command line: 'a.b=c': message".
std::unique_ptr<Config> load_config(const std::optional<std::filesystem::path>& file,
                                    std::span<const std::string> overrides);

/// The same of a YAML document that is at hand; messages call it `file_name`.
std::unique_ptr<Config> parse_config(std::string_view text, const std::string& file_name);

/// Settings that are right each on its own but contradict each other: UsageError with all of them.
void validate(const Config& config);

/// What only training needs, on top of validate(): with privacy.enabled, exactly one of
/// mechanism.noise_multiplier and mechanism.target_epsilon; without it, no stages.
void validate_for_training(const Config& config);

/// base_yaml() of the defaults: configs/base.yaml.
std::string documented_yaml();

/// All keys with defaults and one line each, for the end of --help.
std::string settings_help();

}  // namespace sfumato
