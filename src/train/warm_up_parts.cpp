#include "train/warm_up_parts.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/generate/placement.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/mechanism/class_gaussians.h"
#include "sfumato/mechanism/mean_embedding.h"
#include "sfumato/mechanism/semantic_query.h"
#include "sfumato/train/chosen_images.h"
#include "sfumato/train/embedded_images.h"
#include "sfumato/train/gaussian_images.h"

namespace sfumato {
namespace {

/// Fills in the images, on rank 0.
void find_images(const Config& config, const std::filesystem::path& release,
                 const ImageShape& shape, std::vector<WarmUpImages>& parts) {
  auto part = parts.begin();
  if (config.semantic_warmup.steps() > 0)
    *part++ = images_of_semantic_query(
        config, SemanticQuery::load(release / config.semantic_query.stage.result));
  if (config.warmup.steps() > 0)
    *part++ = warm_up_images(CentralImages::load(release / config.central_images.stage.result),
                             part->steps);
  if (config.gaussians_warmup.steps() > 0)
    (part++)->images = images_of_gaussians(
        config, ClassGaussians::load(release / config.class_gaussians.stage.result));
  if (config.embedding_warmup.steps() > 0)
    part->images = images_of_embedding(
        config, MeanEmbedding::load(release / config.mean_embedding.stage.result), shape,
        open_placement(config.performance).device,
        [] { stop_warm_up_if(stop_requested()); });  // of this rank alone: the others wait
  for (const WarmUpImages& each : parts)
    log_info(fmt::format("warm-up: {} steps on {} {}", each.steps, each.images.size(0), each.name));
}

}  // namespace

bool warms_up(const Config& config) {
  return config.semantic_warmup.steps() > 0 || config.warmup.steps() > 0 ||
         config.gaussians_warmup.steps() > 0 || config.embedding_warmup.steps() > 0;
}

void stop_warm_up_if(bool stop) {
  if (stop)
    throw Interrupted(
        "stopped during the warm-up, which begins anew with --resume; no private step was taken");
}

std::vector<WarmUpImages> warm_up_parts(const Config& config, const std::filesystem::path& release,
                                        const ImageShape& shape, TrainRanks& ranks) {
  const int64_t classes = std::max<int64_t>(config.data.num_classes(), 1);
  std::vector<WarmUpImages> parts;
  for (const auto& [steps, name] :
       {std::pair{config.semantic_warmup.steps(), kChosenImagesName},
        std::pair{config.warmup.steps(), kCentralImagesName},
        std::pair{config.gaussians_warmup.steps(), "images of the classes' Gaussians"},
        std::pair{config.embedding_warmup.steps(), "images of the mean embedding"}})
    if (steps > 0) parts.push_back({{}, classes, steps, name});
  ranks.on_leader([&] { find_images(config, release, shape, parts); });
  for (WarmUpImages& part : parts) {
    part.images = ranks.from_leader(part.images);
    if (part.name == kChosenImagesName) part.labels = ranks.from_leader(part.labels);
  }
  return parts;
}

}  // namespace sfumato
