#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/data/record_store.h"
#include "sfumato/mechanism/clipped_features.h"
#include "sfumato/mechanism/noisy_release.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// The stage's name in settings, plans, ledgers and cards.
inline constexpr std::string_view kFrechetDistanceStage = "frechet_distance";

/// Of rows in the unit ball: what a Fréchet distance is made of.
struct FeatureMoments {
  at::Tensor mean;        ///< double [d]
  at::Tensor covariance;  ///< double [d, d], divided by N - 1, positive semi-definite
};

/// How many numbers a record adds: d + d (d + 1) / 2.
std::int64_t moment_sums(std::int64_t dimension);

/// What a record with clipped features x, |x| <= 1, adds: (a x, b U(x x')), where U holds the upper
/// triangle, row by row, with what is not on the diagonal times sqrt(2), so that |U(x x')| = |x|^2,
/// and a^2 = 1 / (d + 1), b^2 = d / (d + 1): |v|^2 = a^2 |x|^2 + b^2 |x|^4 <= 1. The covariance has
/// about d times as many numbers as the mean, each of which the noise moves, so it gets that much
/// more of the norm. `terms`: moment_sums(d) numbers.
void write_moment_terms(std::span<const double> x, std::span<float> terms);

/// Sums of such terms, noisy or not, and a public number of records -> moments. Eigenvalues of the
/// covariance that noise brought below 0 are set to 0.
FeatureMoments moments_of(std::span<const double> sums, std::int64_t dimension,
                          double expected_records);
/// The sums that `moments_of` would make these moments of.
std::vector<double> sums_of(const FeatureMoments& moments, double expected_records);

/// The sums of all records of `store`, ready to be released by MechanismSession::release.
///
/// Sensitivity 1: what a record adds has norm 1 at most (StatisticSum clips what rounding adds, and
/// what is not finite adds nothing) and follows from its own bytes and from `features`, which are
/// public as the corpus is, since its image goes through the network alone. Where it is added,
/// removed or blanked out the sums move by at most 1 in L2, and by at most 2 where it is replaced,
/// the factor that the adjacency accounts for. The map is chosen after what training released: the
/// adaptive part of the composition, in which the plan counts training and this release in full, on
/// whichever private records it is made.
///
/// PrivacyError unless the stage is one release of every record with norm 1. Interrupted, before
/// anything is charged, if a stop signal came.
StatisticSum sum_moments(const StagePlan& stage, const RecordStore& store,
                         const ClippedFeatures& features);

/// What the stage released and what follows from it. Not a FID, and comparable to no distance
/// without noise: it is one of features that were projected and clipped (ClippedFeatures), in units
/// of the squared radius of their ball, and the noise pushes it upwards, by about noise_alone_mean
/// where the images are like the corpus.
struct NoisyFrechetDistance : NoisyRelease {
  std::string features, features_weights, preprocessing;  ///< as FeatureFacts
  std::int64_t dimension = 0;                             ///< of the space that was compared
  double ball_radius = 0;                                 ///< ClippedFeatures::radius()
  double corpus_clipped = 0;                              ///< ClippedFeatures::corpus_clipped()
  double distance = 0;  ///< of the noisy moments from those of the corpus
  /// Mean and standard deviation of the distance of the corpus from itself with such noise.
  double noise_alone_mean = 0, noise_alone_std = 0;
  std::vector<double> noisy_sums;  ///< as released: of write_moment_terms
  bool operator==(const NoisyFrechetDistance&) const = default;
};
/// release/frechet_distance.json.
nlohmann::ordered_json to_json(const NoisyFrechetDistance& distance);
/// The inverse. DataError, which names the file, for what is none.
NoisyFrechetDistance read_noisy_frechet_distance(const std::filesystem::path& file);

}  // namespace sfumato
