#include "sfumato/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "sfumato/config/paths.h"
#include "sfumato/config/sampling_rules.h"
#include "sfumato/core/class_name.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"

namespace sfumato {
namespace {

void throw_if_any(const std::vector<std::string>& mistakes) {
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
}

void append(std::vector<std::string>& mistakes, const std::vector<std::string>& more) {
  mistakes.insert(mistakes.end(), more.begin(), more.end());
}

/// What is wrong with how the noise of a stage is set.
void check_stage(const Config& config, const StageSettings& stage,
                 std::vector<std::string>& mistakes) {
  const int ways = int{stage.noise_multiplier().has_value()} + int{stage.epsilon().has_value()} +
                   int{stage.share().has_value()};
  if (ways > 1)
    mistakes.push_back(fmt::format(
        "section '{}' sets more than one of noise_multiplier, epsilon and share; each decides the "
        "noise, so set the others to null",
        stage.section_name()));
  if (stage.share() && config.privacy.enabled() && !config.mechanism.target_epsilon())
    mistakes.push_back(
        fmt::format("{} is a share of mechanism.target_epsilon, which is not set; set it, or "
                    "noise_multiplier or epsilon of the stage",
                    place(stage.share)));
}

/// What stages and the warm-up on what they release need of each other.
std::vector<std::string> warm_up_mistakes(const Config& config) {
  std::vector<std::string> mistakes;
  if (config.warmup.steps() > 0 && !config.central_images.on())
    mistakes.push_back(
        fmt::format("{} needs central images; set the noise_multiplier, epsilon or "
                    "share of mechanism.stages.central_images, or {}=0",
                    place(config.warmup.steps), config.warmup.steps.key()));
  if (config.gaussians_warmup.steps() > 0 && !config.class_gaussians.on())
    mistakes.push_back(
        fmt::format("{} needs Gaussians of the classes; set the noise_multiplier, epsilon or share "
                    "of mechanism.stages.class_gaussians, or {}=0",
                    place(config.gaussians_warmup.steps), config.gaussians_warmup.steps.key()));
  if (config.class_gaussians.on() &&
      config.class_gaussians.frequencies() > config.data.image_size())
    mistakes.push_back(fmt::format("{} is {}, and images have {} pixels a side (data.image_size)",
                                   place(config.class_gaussians.frequencies),
                                   config.class_gaussians.frequencies(), config.data.image_size()));
  if (config.embedding_warmup.steps() > 0 && !config.mean_embedding.on())
    mistakes.push_back(
        fmt::format("{} needs a mean embedding; set the noise_multiplier, epsilon or share of "
                    "mechanism.stages.mean_embedding, or {}=0",
                    place(config.embedding_warmup.steps), config.embedding_warmup.steps.key()));
  if (config.semantic_warmup.steps() > 0 && !config.semantic_query.on())
    mistakes.push_back(
        fmt::format("{} needs public images that were chosen; set the noise_multiplier, epsilon or "
                    "share of mechanism.stages.semantic_query, or {}=0",
                    place(config.semantic_warmup.steps), config.semantic_warmup.steps.key()));
  if (config.semantic_query.on() && config.semantic_query.public_store().empty())
    mistakes.push_back(
        fmt::format("mechanism.stages.semantic_query has no public images to choose from; name a "
                    "prepared store "
                    "of them, with classes, in {}",
                    config.semantic_query.public_store.key()));
  return mistakes;
}

std::vector<std::string> stage_mistakes(const Config& config) {
  std::vector<std::string> mistakes;
  double shares = 0;
  std::vector<std::string> shared;
  for (const StageSettings* stage : stage_settings(config)) {
    check_stage(config, *stage, mistakes);
    if (!stage->share()) continue;
    shares += *stage->share();
    shared.push_back(place(stage->share));
  }
  if (shares >= 1)
    mistakes.push_back(fmt::format("{} add up to {}, which leaves nothing for training",
                                   fmt::join(shared, " and "), shares));
  if (config.label_histogram.on() && config.data.num_classes() == 0)
    mistakes.push_back(
        "mechanism.stages.label_histogram counts classes, but data.num_classes is 0; set "
        "data.num_classes or leave the stage out");
  const auto needs_classes = [&](const StageSettings& stage, const char* why) {
    if (!stage.on() || config.data.num_classes() >= 2) return;
    mistakes.push_back(fmt::format(
        "{} {}, but data.num_classes is {}; set data.num_classes or leave the stage out",
        stage.section_name(), why, config.data.num_classes()));
  };
  needs_classes(config.feature_classifier, "tells classes apart");
  needs_classes(config.accuracy, "tests classifiers");
  if (const FrechetDistanceSettings& distance = config.frechet_distance;
      distance.on() && distance.features() == "lenet" && config.data.channels() != 1)
    mistakes.push_back(
        fmt::format("{}: lenet is for grey images, but data.channels is {}; name "
                    "other features, or leave the stage out",
                    place(distance.features), config.data.channels()));
  append(mistakes, warm_up_mistakes(config));
  return mistakes;
}

void check_depth(const DataSettings& data, std::vector<std::string>& mistakes) {
  const auto& range = data.depth_range();
  if (data.depth() == DepthRule::kFull && !range.empty())
    mistakes.push_back(fmt::format("{} is set, but {} does not use it; set {}=min_max",
                                   place(data.depth_range), place(data.depth), data.depth.key()));
  if (data.depth() == DepthRule::kMinMax && (range.size() != 2 || range[0] >= range[1]))
    mistakes.push_back(fmt::format(
        "{} needs {} to be two numbers, the smaller first: the sample values that become black "
        "and white, for example 0,4095 for pictures of 12 bits",
        place(data.depth), data.depth_range.key()));
}

std::vector<std::string> class_mistakes(const Config& config) {
  std::vector<std::string> mistakes;
  std::vector<std::string> names = config.data.class_names();
  if (config.data.merge_folders() && config.data.num_classes() > 1)
    mistakes.push_back(fmt::format(
        "{} takes all folders as one set without classes, but {} is {}; leave one of them out",
        place(config.data.merge_folders), place(config.data.num_classes),
        config.data.num_classes()));
  if (names.empty()) return mistakes;
  for (const std::string& name : names)
    if (const std::string defect = class_name_defect(name); !defect.empty())
      mistakes.push_back(fmt::format("{}: the class name '{}' {}", place(config.data.class_names),
                                     printable(name), defect));
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    mistakes.push_back(
        fmt::format("{} has '{}' twice", place(config.data.class_names), printable(*twice)));
  if (config.data.num_classes() != std::ssize(names))
    mistakes.push_back(
        fmt::format("{} has {} names, but {} is {}; leave data.num_classes out, or make them agree",
                    place(config.data.class_names), names.size(), place(config.data.num_classes),
                    config.data.num_classes()));
  return mistakes;
}

/// Takes the names from their file, and the number of classes from the names.
std::vector<std::string> take_class_names(Config& config) {
  DataSettings& data = config.data;
  std::vector<std::string> mistakes;
  if (!data.class_names_file().empty() && !data.class_names().empty()) {
    mistakes.push_back(fmt::format("{} and {} are both set; set one of them to the empty value",
                                   place(data.class_names), place(data.class_names_file)));
  } else if (!data.class_names_file().empty()) {
    try {
      require_paths({&data.class_names_file});
      // The setting's name as origin, not the file's: resolved settings are part of a release. And
      // they are read again, perhaps where the file is not.
      data.class_names.set(read_class_names(data.class_names_file()), data.class_names_file.key());
      data.class_names_file.set("", data.class_names.key());
    } catch (const DataError& error) {
      mistakes.push_back(fmt::format("{}: {}", data.class_names_file.key(), error.what()));
    }
  }
  if (!data.class_names().empty() && data.num_classes.is_default())
    data.num_classes.set(std::ssize(data.class_names()), data.class_names.key());
  return mistakes;
}

/// What the network will be taken for; nothing where files beside it may still say so.
std::optional<Parameterization> known_parameterization(const Config& config, bool training) {
  const auto& setting = config.diffusion.parameterization;
  const bool open = setting.is_default() && (!training || !config.model.init().empty());
  return open ? std::nullopt : std::optional(setting());
}

std::vector<std::string> contradictions(const Config& config, bool training = false) {
  std::vector<std::string> mistakes = class_mistakes(config);
  const MechanismSettings& mechanism = config.mechanism;
  if (config.privacy.enabled() && mechanism.noise_multiplier() && mechanism.target_epsilon())
    mistakes.push_back(fmt::format(
        "{} and {} are both set; one follows from the other, so set one of them to null",
        place(mechanism.noise_multiplier), place(mechanism.target_epsilon)));
  const SelectionSettings& selection = config.selection;
  if (selection.mean_runs() > 0 && selection.mean_runs() < 1)
    mistakes.push_back(
        fmt::format("{} is {}: a selection has at least one run; set it to 0 for none",
                    place(selection.mean_runs), selection.mean_runs()));
  if (selection.mean_runs() > 0 && mechanism.candidates() > 1)
    mistakes.push_back(
        fmt::format("{} and {} are both set: the law of a selection counts the runs already; set "
                    "{}=1, or {}=0 to charge every run in full",
                    place(selection.mean_runs), place(mechanism.candidates),
                    mechanism.candidates.key(), selection.mean_runs.key()));
  const DiffusionSettings& diffusion = config.diffusion;
  if (diffusion.schedule() != BetaSchedule::kSquaredCosCapV2 &&
      diffusion.beta_start() > diffusion.beta_end())
    mistakes.push_back(fmt::format("{} is greater than {}; the noise must grow with the timestep",
                                   place(diffusion.beta_start), place(diffusion.beta_end)));
  // The files of model.init may still say what a silent configuration leaves open.
  const bool open = !config.model.init().empty() && diffusion.prediction.is_default();
  if (diffusion.rescale_betas_zero_snr() && diffusion.prediction() == Prediction::kEpsilon && !open)
    mistakes.push_back(fmt::format(
        "{} needs diffusion.prediction=v_prediction or sample: the last timestep then holds no "
        "image, and a predicted noise cannot recover one",
        place(diffusion.rescale_betas_zero_snr)));
  if (!config.model.init().empty() && !config.model.config().empty())
    mistakes.push_back(fmt::format(
        "{} and {} are both set; a pretrained folder brings its own config.json, so set one of "
        "them to the empty text",
        place(config.model.init), place(config.model.config)));
  if (config.gan.adaptive() && config.gan.loss() == GanLoss::kRelativistic)
    mistakes.push_back(fmt::format(
        "{} measures which fakes the discriminator finds, and with {} its scores tell nothing of "
        "fakes alone, only of their difference to private images; set {}=false and {}",
        place(config.gan.adaptive), place(config.gan.loss), config.gan.adaptive.key(),
        config.gan.discriminator_steps.key()));
  if (config.model.family() == "gan" && config.gan.discriminator_steps() > config.mechanism.steps())
    mistakes.push_back(fmt::format(
        "{} is {}, and {} is {}: the generator would never step before the budget is spent; lower "
        "the first",
        place(config.gan.discriminator_steps), config.gan.discriminator_steps(),
        place(config.mechanism.steps), config.mechanism.steps()));
  const std::optional<Parameterization> known = known_parameterization(config, training);
  append(mistakes, diffusion_mistakes(diffusion, known));
  append(mistakes, sampling_mistakes(config.sample, known));
  check_depth(config.data, mistakes);
  append(mistakes, stage_mistakes(config));
  return mistakes;
}

/// What comes after reading; UsageError with the mistakes so far and those that are left.
void complete(Config& config, std::vector<std::string> mistakes) {
  append(mistakes, take_class_names(config));
  append(mistakes, contradictions(config));
  throw_if_any(mistakes);
}

}  // namespace

std::unique_ptr<Config> load_config(const std::optional<std::filesystem::path>& file,
                                    std::span<const std::string> overrides) {
  auto config = std::make_unique<Config>();
  std::vector<std::string> mistakes;
  if (file) {
    try {
      append(mistakes, config->read_yaml(read_file(*file), file->string()));
    } catch (const DataError& error) {  // a wrong --config is a mistake of usage
      mistakes.push_back(error.what());
    }
  }
  for (const std::string& text : overrides)
    if (const auto mistake = config->try_override(text)) mistakes.push_back(*mistake);
  find_beside_configuration(*config);
  complete(*config, std::move(mistakes));
  return config;
}

std::unique_ptr<Config> parse_config(std::string_view text, const std::string& file_name) {
  auto config = std::make_unique<Config>();
  complete(*config, config->read_yaml(text, file_name));
  return config;
}

void validate(const Config& config) { throw_if_any(contradictions(config)); }

void validate_for_training(const Config& config) {
  std::vector<std::string> mistakes = contradictions(config, /*training=*/true);
  const MechanismSettings& mechanism = config.mechanism;
  if (config.privacy.enabled() && !mechanism.noise_multiplier() && !mechanism.target_epsilon())
    mistakes.push_back(
        "neither mechanism.noise_multiplier nor mechanism.target_epsilon is set; set exactly one "
        "of them, for example mechanism.target_epsilon=10, or privacy.enabled=false to train "
        "without any guarantee");
  if (!config.privacy.enabled() &&
      std::ranges::any_of(stage_settings(config), [](const auto* stage) { return stage->on(); }))
    mistakes.push_back(
        fmt::format("{} trains without a guarantee, but stages of the private mechanism are set; "
                    "set those of mechanism.stages.* to null (and warmup.steps, "
                    "warmup.gaussians.steps, warmup.embedding.steps, warmup.semantic.steps to 0)",
                    place(config.privacy.enabled)));
  if (!config.privacy.enabled() && config.selection.mean_runs() > 0)
    mistakes.push_back(fmt::format(
        "{} trains without a guarantee, but {} asks for a private selection; set the latter to 0",
        place(config.privacy.enabled), place(config.selection.mean_runs)));
  throw_if_any(mistakes);
}

}  // namespace sfumato
