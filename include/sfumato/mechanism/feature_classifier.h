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

/// A linear classifier of features, trained with noise on the private images: what drawn images may
/// be told apart by without further cost (corpus/candidate_choice.h).
struct FeatureClassifier {
  at::Tensor weights;  ///< float64 [classes, dimension], of features_within_unit_norm
  at::Tensor biases;   ///< float64 [classes]
  std::string features, features_weights;  ///< network and what its weights are (FeatureFacts)

  /// float64 [n, dimension], of features_within_unit_norm -> [n, classes]: the larger, the
  /// likelier.
  at::Tensor scores(const at::Tensor& rows) const;

  /// As JSON.
  void save(const std::filesystem::path& path) const;
  /// DataError if the bytes are damaged or hold something else; `path` is for messages.
  static FeatureClassifier parse(const std::string& bytes, const std::filesystem::path& path);
};

/// By how much features of norm 1 are lengthened for training, so that they learn as fast as the
/// bias does. Chosen on MNIST (docs/utility.md).
inline constexpr double kClassifierFeatureScale = 4;

/// Runs the stage: DP-SGD (Abadi et al. 2016) of softmax regression on the features of
/// features_within_unit_norm, lengthened and followed by a 1, as Tramer and Boneh (2021) train on
/// handcrafted features. Each of the planned releases is the sum, over a Poisson sample, of the
/// gradients of the cross entropy, each clipped to norm 1; divided by the size that the sample is
/// expected to have, sample_rate * `expected_records` (a public number), it moves the weights with
/// momentum. The classifier is the mean of the weights after the releases of the second half, which
/// is post-processing.
///
/// Sensitivity 1: what a record adds follows from its own bytes, its class and the weights, which
/// follow from earlier releases; it is computed for each record by itself, so that no bit of it
/// hangs on what else the sample holds. Replaced by another it moves the sum by at most 2, the
/// factor that the adjacency accounts for. 4 n dimension bytes hold the features of the n records
/// while it runs.
///
/// PrivacyError unless the stage's clip norm is 1 and `expected_records` positive and finite.
/// UsageError for a store of fewer than two classes. Interrupted, before anything is charged, if a
/// stop signal came; one that comes later is heard when the stage is done, since its charges would
/// be lost.
FeatureClassifier release_feature_classifier(const RecordStore& store, const StagePlan& stage,
                                             const FeatureNetwork& network, double expected_records,
                                             double learning_rate, MechanismSession& session);

}  // namespace sfumato
