#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/mechanism/random_features.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// Noisy mean embeddings of the classes: what a generator of images may be fitted to without
/// further cost.
struct MeanEmbedding {
  at::Tensor means;               ///< float32 [classes, features], of RandomFeatures(features)
  RandomFeatureOptions features;  ///< what they are features of
  double noise_stddev = 0;        ///< of the noise on each number
  void save(const std::filesystem::path& path) const;
  /// DataError if the file is damaged or holds something else.
  static MeanEmbedding load(const std::filesystem::path& path);
};

/// Runs the stage (DP-MERF, Harder et al. 2021; the frequency stage of FETA-Pro): one release over
/// all records of the class sums of their random features, divided by `expected_class_size`, a
/// public number. Sensitivity 1, the norm of the features of any image. One class if the store has
/// none. PrivacyError if the stage is not one release of every record with that norm.
MeanEmbedding release_mean_embedding(const RecordStore& store, const StagePlan& stage,
                                     const RandomFeatureOptions& features,
                                     double expected_class_size, MechanismSession& session);

/// The random features of a configuration.
RandomFeatureOptions random_feature_options(const Config& config);

}  // namespace sfumato
