#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/evaluate/feature_set.h"

namespace sfumato {

struct ManifoldOptions {
  int64_t precision_k = 3;  ///< neighbours of a ball, not counting its centre
  int64_t density_k = 5;
  int64_t tile = 2048;  ///< rows of a block of distances
};

/// How two sets of features lie in each other: around every image of a set a ball that reaches to
/// the k-th nearest other image of that set. The sides matter and are named.
struct ManifoldScores {
  /// Share of the corpus' images inside some ball of the reference (Kynkaanniemi et al. 2019).
  double precision = 0;
  /// Share of the reference's images inside some ball of the corpus.
  double recall = 0;
  /// Balls of the reference that hold an image of the corpus, on average, over k; may exceed 1
  /// (Naeem et al. 2020).
  double density = 0;
  /// Share of the reference's balls that hold an image of the corpus.
  double coverage = 0;
  int64_t precision_k = 0, density_k = 0;
  /// Of each image of the corpus, its nearest of the reference.
  std::vector<int64_t> nearest;
  std::vector<double> nearest_distance;
};

/// Squared distances by blocks of tile x tile, |a|^2 - 2 a.b + |b|^2 with float32 products of rows
/// around the reference's mean, each pair of one set once; besides the features memory is that of
/// two blocks. DataError: no more images than neighbours.
ManifoldScores manifold_scores(const FeatureSet& corpus, const FeatureSet& reference,
                               ManifoldOptions options = {});

}  // namespace sfumato
