#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "sfumato/mechanism/frechet_distance.h"

namespace sfumato {

/// Moments of rows in the unit ball, double or float [N, d], without noise: what a corpus is
/// compared by (frechet_statistics). DataError for fewer than two rows.
FeatureMoments moments_of_rows(const at::Tensor& rows);

/// The squared Fréchet distance (frechet_distance.h) of such moments.
double frechet_distance(const FeatureMoments& a, const FeatureMoments& b);

/// What noise alone makes of a distance.
struct NoiseAlone {
  double mean = 0, std = 0;
};
/// The distance of `corpus` from itself after its sums over `expected_records` images have got
/// noise of this standard deviation: mean and standard deviation of kNoiseDraws draws of a public
/// seed. What noise does depends on public numbers alone here; images unlike the corpus have a
/// distance that the same noise moves further, in both directions.
inline constexpr int kNoiseDraws = 100;
NoiseAlone distance_by_noise_alone(const FeatureMoments& corpus, double expected_records,
                                   double noise_stddev);

}  // namespace sfumato
