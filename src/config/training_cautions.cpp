#include "sfumato/config/training_cautions.h"

#include <fmt/format.h>

namespace sfumato {

std::vector<std::string> training_cautions(const Config& config) {
  std::vector<std::string> cautions;
  const auto idle = [&](const StageSettings& stage, const Setting<int64_t>& steps) {
    if (!config.privacy.enabled() || !stage.on() || steps() > 0) return;
    cautions.push_back(fmt::format(
        "{} is part of the budget and of the release, but {} is 0, so that training does not begin "
        "with it; set {}, or leave the stage out",
        stage.section_name(), place(steps), steps.key()));
  };
  idle(config.semantic_query, config.semantic_warmup.steps);
  idle(config.central_images, config.warmup.steps);
  idle(config.mean_embedding, config.embedding_warmup.steps);
  return cautions;
}

}  // namespace sfumato
