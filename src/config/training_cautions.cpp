#include "sfumato/config/training_cautions.h"

#include <fmt/format.h>

namespace sfumato {

std::vector<std::string> training_cautions(const Config& config) {
  std::vector<std::string> cautions;
  const auto idle = [&](const StageSettings& stage, const Setting<int64_t>& use, int64_t none = 0,
                        const char* so = "training does not begin with it") {
    if (!config.privacy.enabled() || !stage.on() || use() > none) return;
    cautions.push_back(fmt::format(
        "{} is part of the budget and of the release, but {} is {}, so that {}; set {}, or leave "
        "the stage out",
        stage.section_name(), place(use), none, so, use.key()));
  };
  idle(config.semantic_query, config.semantic_warmup.steps);
  idle(config.central_images, config.warmup.steps);
  idle(config.class_gaussians, config.gaussians_warmup.steps);
  idle(config.mean_embedding, config.embedding_warmup.steps);
  const MechanismSettings& mechanism = config.mechanism;
  const double records = mechanism.expected_batch_size() / mechanism.sample_rate();
  if (config.privacy.enabled() && mechanism.delta() * records >= 1)
    cautions.push_back(fmt::format(
        "{} is {}, which is not below one over the number of records (some {:.0f}, by "
        "expected_batch_size and sample_rate): giving away a record whole would keep such a "
        "promise; set a smaller one",
        place(mechanism.delta), mechanism.delta(), records));
  const char* nothing = "nothing is chosen by it";
  idle(config.feature_means, config.sample.candidates, 1, nothing);
  idle(config.feature_classifier, config.sample.candidates, 1, nothing);
  if (config.privacy.enabled() && config.feature_classifier.on() && !config.feature_means.on() &&
      config.sample.candidates() > 1)
    cautions.push_back(fmt::format(
        "{} is part of the budget and of the release, but without {} {}; set both, or neither",
        config.feature_classifier.section_name(), config.feature_means.section_name(), nothing));
  return cautions;
}

}  // namespace sfumato
