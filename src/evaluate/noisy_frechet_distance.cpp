#include "sfumato/evaluate/noisy_frechet_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

#include <cmath>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/evaluate/frechet_distance.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {

FeatureMoments moments_of_rows(const at::Tensor& rows) {
  FeatureSet set;
  set.facts.dimension = rows.size(1);
  set.features = rows.to(at::kFloat);
  const FrechetStatistics found = frechet_statistics(set, "the corpus");
  return {found.mean,
          found.factor.defined() ? at::matmul(found.factor.t(), found.factor) : found.covariance};
}

double frechet_distance(const FeatureMoments& a, const FeatureMoments& b) {
  const auto statistics = [](const FeatureMoments& moments) {
    FrechetStatistics out;
    out.mean = moments.mean;
    out.covariance = moments.covariance;
    return out;
  };
  return frechet_distance(statistics(a), statistics(b));
}

NoiseAlone distance_by_noise_alone(const FeatureMoments& corpus, double expected_records,
                                   double noise_stddev) {
  const SeededStreams streams("sfumato noise around a corpus's moments 1", 0);
  const std::int64_t d = corpus.mean.numel();
  const std::vector<double> sums = sums_of(corpus, expected_records);
  std::vector<float> normals(sums.size());
  std::vector<double> noisy(sums.size());
  double sum = 0, squares = 0;
  for (int draw = 0; draw < kNoiseDraws; ++draw) {
    if (stop_requested()) throw Interrupted("stopped; nothing was charged or written");
    streams.normals(normals.data(), std::ssize(normals), 0, static_cast<std::uint64_t>(draw));
    for (std::size_t i = 0; i < sums.size(); ++i) noisy[i] = sums[i] + noise_stddev * normals[i];
    const double distance = frechet_distance(moments_of(noisy, d, expected_records), corpus);
    sum += distance;
    squares += distance * distance;
  }
  const double mean = sum / kNoiseDraws;
  return {mean, std::sqrt(std::max(squares / kNoiseDraws - mean * mean, 0.0) * kNoiseDraws /
                          (kNoiseDraws - 1))};
}

}  // namespace sfumato
