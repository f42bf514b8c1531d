#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sfumato/features/feature_network.h"
#include "sfumato/mechanism/feature_classifier.h"
#include "sfumato/mechanism/feature_means.h"

namespace sfumato {

/// Chooses, among drawn candidates, those that are like their class by noisy means of features that
/// a run released: post-processing, so it costs no privacy.
///
/// Candidates that are taken for another class are left out: by a released classifier of features
/// where there is one, else by the nearest mean (a linear discriminant). Of the others those are
/// taken, one after the other, that bring the mean of what is taken nearest to the released mean
/// (kernel herding, Welling 2009, of a linear kernel): so few images stand for their class better
/// than as many at random. Where too few of a class are left, those with the largest margin are all
/// that it has. Distances are in the metric of the candidates' own scatter within classes, made
/// well-conditioned by a share of its trace.
class CandidateChoice {
 public:
  /// UsageError if `means` or the `classifier` are by a network of other weights, of images of
  /// another shape, or of other classes than each other.
  CandidateChoice(FeatureMeans means, std::unique_ptr<FeatureNetwork> network,
                  std::optional<FeatureClassifier> classifier = std::nullopt);

  int64_t num_classes() const { return means_.means.size(0); }

  /// `candidates` uint8 [n, H, W, C], row i of class `labels`[i]. Of a class with m rows, m / `of`
  /// are taken, of which `of` is a divisor. Rows of `candidates`, by class and in the order in
  /// which they were taken; of equal ones the earlier row.
  std::vector<std::vector<int64_t>> choose(const at::Tensor& candidates,
                                           std::span<const int64_t> labels, int64_t of) const;

 private:
  FeatureMeans means_;
  std::optional<FeatureClassifier> classifier_;
  std::unique_ptr<FeatureNetwork> network_;
};

}  // namespace sfumato
