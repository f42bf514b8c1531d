#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "sfumato/evaluate/feature_set.h"

namespace sfumato {

/// Mean and covariance of features, in double precision.
struct FrechetStatistics {
  FeatureFacts facts;
  int64_t count = 0;
  at::Tensor mean;        ///< double [d]
  at::Tensor covariance;  ///< double [d, d], divided by N - 1; undefined where `factor` is kept
  /// Where N < d: rows minus their mean, over sqrt(N - 1), double [N, d]: the covariance is its
  /// product with itself, of lower rank, and never formed.
  at::Tensor factor;
};

/// Sums in double of blocks of rows, shifted by the first block's mean, so that nothing cancels.
/// DataError: fewer than two rows or values that are not finite.
FrechetStatistics frechet_statistics(const FeatureSet& set, const std::string& what);

/// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), the squared 2-Wasserstein distance of Gaussians
/// (Dowson and Landau 1982; Heusel et al. 2017). The trace of the root is the sum of the roots of
/// the eigenvalues of L' S2 L with S1 = L L', which are those of S1^1/2 S2 S1^1/2: L is a Cholesky
/// factor, the rows themselves where N < d, or the symmetric root where S1 is singular. Eigenvalues
/// below 0 are rounding and count 0. No stop signal interrupts it: one side may be what a charge
/// has paid for.
double frechet_distance(const FrechetStatistics& a, const FrechetStatistics& b);

/// Of one class. With fewer rows than dimensions the estimate is biased upwards by far, and
/// comparable only to others of the same N.
struct ClassDistance {
  int64_t corpus_count = 0, reference_count = 0;
  double distance = 0;  ///< NaN: fewer than two images on a side
  bool fewer_than_dimensions = false;
};
/// Class by class; labels int64 [N].
std::vector<ClassDistance> class_frechet_distances(const FeatureSet& corpus,
                                                   const at::Tensor& corpus_labels,
                                                   const FeatureSet& reference,
                                                   const at::Tensor& reference_labels,
                                                   int64_t num_classes);

}  // namespace sfumato
