#pragma once
#include <cstdint>

#include "sfumato/evaluate/feature_set.h"
#include "sfumato/evaluate/numpy_random.h"

namespace sfumato {

struct KernelOptions {
  int64_t subsets = 100;
  int64_t subset_size = 1000;  ///< rows of each, drawn without replacement
  uint32_t seed = kFidelitySeed;
};

/// The unbiased estimate of MMD^2 with the kernel (x.y / d + 1)^3 over random subsets (Binkowski et
/// al. 2018), with torch-fidelity's subsets.
struct KernelDistance {
  double mean = 0;
  double std = 0;  ///< over the subsets
  int64_t subsets = 0, subset_size = 0;
};

/// Subsets are as large as the smaller set where that has fewer rows than asked for. DataError:
/// fewer than two rows.
KernelDistance kernel_distance(const FeatureSet& corpus, const FeatureSet& reference,
                               KernelOptions options = {});

inline constexpr int64_t kInceptionSplits = 10;

/// exp of the mean divergence of class probabilities from their mean over the images, over splits
/// of a permutation (Salimans et al. 2016; torch-fidelity: 10 splits, seed 2020).
struct InceptionScore {
  double mean = 0;
  double std = 0;  ///< over the splits
  int64_t splits = 0;
};
/// From the corpus' logits alone. DataError: no logits, fewer rows than splits.
InceptionScore inception_score(const FeatureSet& corpus, int64_t splits = kInceptionSplits,
                               uint32_t seed = kFidelitySeed);

}  // namespace sfumato
