#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/feature_network.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// Noisy means of the features of each class: what drawn images may be held against without further
/// cost (corpus/candidate_choice.h).
struct FeatureMeans {
  at::Tensor means;         ///< float64 [classes, dimension], of features_within_unit_norm
  double noise_stddev = 0;  ///< of the noise on each number
  std::string features, features_weights;  ///< network and what its weights are (FeatureFacts)

  /// As JSON.
  void save(const std::filesystem::path& path) const;
  /// DataError if the file is damaged or holds something else.
  static FeatureMeans load(const std::filesystem::path& path);
  /// The same of what the file holds; `path` is for messages.
  static FeatureMeans parse(const std::string& bytes, const std::filesystem::path& path);
};

/// What is averaged: features times min(1, 1 / their norm). float32 [n, dimension] -> float64.
at::Tensor features_within_unit_norm(const at::Tensor& features);

/// Runs the stage: one release over all records of the class sums of their features, each of norm 1
/// at most, divided by `expected_class_size`, a public number. One class if the store has none.
///
/// Sensitivity 1: a record adds one vector of that norm to the row of its class, and the vector
/// follows from its own bytes, since it goes through the network alone; replaced by another, maybe
/// in another row, it moves the sums by at most 2, the factor that the adjacency accounts for.
/// PrivacyError unless the stage is one release of every record with that norm. Interrupted, before
/// anything is charged, if a stop signal came.
FeatureMeans release_feature_means(const RecordStore& store, const StagePlan& stage,
                                   const FeatureNetwork& network, double expected_class_size,
                                   MechanismSession& session);

}  // namespace sfumato
