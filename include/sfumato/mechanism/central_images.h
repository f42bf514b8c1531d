#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// Noisy means of random images, by class: what a network may be trained on without further cost.
struct CentralImages {
  at::Tensor
      images;  ///< float32 [releases, classes, channels, height, width], not limited to [-1, 1]
  void save(const std::filesystem::path& path) const;
  /// DataError if the file is damaged or holds something else.
  static CentralImages load(const std::filesystem::path& path);
};

/// Runs the stage (DP-FETA, Gong et al. 2025): for each release a Poisson sample of all records; of
/// each class the sum of its sampled images, values in [-1, 1] and each image clipped to
/// stage.clip_norm_l2; noise; divided by `expected_class_batch`, a public number. (The realised
/// number of images, by which DPImageBench divides, is private and would need noise of its own.)
/// One class if the store has none.
CentralImages release_central_images(const RecordStore& store, const StagePlan& stage,
                                     double expected_class_batch, MechanismSession& session);

/// Divisor of the noisy sums, from public literals only: expected_class_batch where set, else
/// sample_rate / mechanism.sample_rate mechanism.expected_batch_size / data.num_classes.
double central_images_divisor(const Config& config);

}  // namespace sfumato
