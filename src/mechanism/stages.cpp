#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "sfumato/core/error.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {

// Each is defined in the file of its name.
Stage label_histogram_stage();
Stage central_images_stage();
Stage class_gaussians_stage();
Stage mean_embedding_stage();
Stage semantic_query_stage();
Stage feature_means_stage();
Stage feature_classifier_stage();
Stage accuracy_stage();
Stage frechet_distance_stage();

std::span<const Stage> stage_table() {
  static const Stage table[] = {
      label_histogram_stage(),    central_images_stage(), class_gaussians_stage(),
      mean_embedding_stage(),     semantic_query_stage(), feature_means_stage(),
      feature_classifier_stage(), accuracy_stage(),       frechet_distance_stage(),
  };
  return table;
}

double class_size_divisor(const Config& config, const Setting<double>& expected_class_size) {
  if (expected_class_size() > 0) return expected_class_size();
  return expected_records_of(config) /
         static_cast<double>(std::max<std::int64_t>(config.data.num_classes(), 1));
}

double expected_records_of(const Config& config) {
  return config.mechanism.expected_batch_size() / config.mechanism.sample_rate();
}

const Stage& find_stage(std::span<const Stage> table, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Stage::name);
  if (found == table.end()) throw PrivacyError(fmt::format("this program has no stage '{}'", name));
  return *found;
}

Phase executed_phase(const StagePlan& stage) {
  const std::optional<Phase> phase = stage.executed();
  if (!phase)
    throw PrivacyError(fmt::format("the stage '{}' is not one that a run executes", stage.name));
  return *phase;
}

Phase executed_release(const StagePlan& stage, double clip_norm_l2, const std::string& what) {
  const Phase phase = executed_phase(stage);
  if (phase.sample_rate != 1 || phase.steps != 1 || stage.clip_norm_l2 != clip_norm_l2)
    throw PrivacyError(what);
  return phase;
}

void check_divisor(double expected) {
  if (!(expected > 0) || !std::isfinite(expected))
    throw PrivacyError(
        "the expected number of images that sums are divided by must be positive and finite");
}

}  // namespace sfumato
