#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// How the images of each class are distributed as far as noisy means and covariances tell: what a
/// Gaussian of each class may be drawn from without further cost. Covariances are those of the
/// `frequencies` lowest cosines (DCT-II) in each direction, k: of d = channels k² coefficients,
/// channel by channel and row by row.
struct ClassGaussians {
  at::Tensor counts;       ///< float32 [classes]: noisy numbers of images
  at::Tensor means;        ///< float32 [classes, C, H, W] of values in [-1, 1], with noise
  at::Tensor covariances;  ///< float32 [classes, d, d], symmetric, not made positive
  /// Standard deviation of the noise on each number of counts[c] covariances[c] off the diagonal;
  /// on the diagonal it is sqrt(2) times that.
  double noise_stddev = 0;
  std::int64_t frequencies() const;  ///< k
  /// float64, of the shape of means: what the covariances are about. The means limited to [-1, 1],
  /// where those of all images are.
  at::Tensor centres() const;
  void save(const std::filesystem::path& path) const;
  /// DataError if the file is damaged or holds something else.
  static ClassGaussians load(const std::filesystem::path& path);
};

/// float64 [frequencies, pixels]: rows that are orthonormal, cos(pi u (i + 1/2) / pixels) for
/// frequency u and pixel i, scaled.
at::Tensor cosine_basis(std::int64_t frequencies, std::int64_t pixels);

/// Runs the stage, two releases over all records of sums for each class. The first is of (w,
/// sqrt(1 - w²) x / sqrt(CHW)) for an image x, w = 0.1: a noisy count and a noisy mean. The second
/// is of z z' / clip_norm_l2² for the coefficients z of x minus the centre of its class: the
/// diagonal, and sqrt(2) times what is above it, so that the vector has the norm |z|² /
/// clip_norm_l2², which the sum limits to 1 ("Analyze Gauss", Dwork, Talwar, Thakurta and Zhang
/// 2014, about a released mean). The sensitivity of both is 1. Divides by the noisy count, or by
/// the noise on it where that is larger: no public number is needed. One class if the store has
/// none. Once the first is charged no request to stop is heard until the second is. Before that,
/// PrivacyError unless the stage is two releases of every record with norm 1; UsageError unless
/// clip_norm_l2 is 1e-6 to 1e6, and where `frequencies` are more than the pixels of a side, or too
/// many for a sum.
ClassGaussians release_class_gaussians(const RecordStore& store, const StagePlan& stage,
                                       std::int64_t frequencies, double clip_norm_l2,
                                       MechanismSession& session);

}  // namespace sfumato
