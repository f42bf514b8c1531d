#pragma once
#include <filesystem>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/models/image_shape.h"
#include "sfumato/train/warm_up.h"
#include "train/train_ranks.h"

namespace sfumato {

/// Whether anything is trained on before the first private step.
bool warms_up(const Config& config);

/// What is trained on then, in order: chosen public images, central images, then those of a mean
/// embedding, from what stages left in `release`, which rank 0 alone looks at. Collective.
std::vector<WarmUpImages> warm_up_parts(const Config& config, const std::filesystem::path& release,
                                        const ImageShape& shape, TrainRanks& ranks);

/// Interrupted if `stop`.
void stop_warm_up_if(bool stop);

}  // namespace sfumato
