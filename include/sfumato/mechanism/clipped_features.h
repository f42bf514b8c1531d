#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "sfumato/features/feature_network.h"

namespace sfumato {

/// By what a corpus is compared with private images where moments of the latter are released:
/// features of a fixed network, brought to few dimensions and into the unit ball by a map that is
/// as public as the corpus.
///
///   x = y min(1, 1 / |y|),  y = (P f - c) / R,
///
/// with f the features, P a random projection (orthonormal directions of a fixed public seed; none
/// where the network has no more features than `dimension`), c the corpus's mean of P f and R
/// kRadius times its root mean square distance from c. P is drawn and not fitted: the directions in
/// which the corpus varies most would be blind to what it lacks, and a generator that has collapsed
/// would look good.
class ClippedFeatures {
 public:
  /// R over the root mean square: larger leaves more of what lies far out as it is, and makes the
  /// noise larger beside the features.
  static constexpr double kRadius = 1.5;

  /// `corpus`: uint8 [N, H, W, C], images that were released. PrivacyError: a network whose weights
  /// were learnt from reference images. DataError: features that are not finite, or the same for
  /// all images. UsageError: fewer than one dimension.
  ClippedFeatures(std::unique_ptr<FeatureNetwork> network, const at::Tensor& corpus,
                  std::int64_t dimension);

  /// Features float [n, D] of the network -> x, double [n, dimension()], of norm 1 at most up to
  /// rounding; not finite where the features are not. A row follows from its own features alone
  /// where it is asked for alone.
  at::Tensor operator()(const at::Tensor& features) const;

  const FeatureNetwork& network() const { return *network_; }
  std::int64_t dimension() const { return centre_.numel(); }
  double radius() const { return radius_; }  ///< R, in units of the (projected) features
  /// The corpus in the ball, double [N, dimension()].
  const at::Tensor& corpus() const { return corpus_; }
  /// What share of the corpus lay outside of the ball, and was brought onto its surface.
  double corpus_clipped() const { return corpus_clipped_; }

 private:
  at::Tensor projected(const at::Tensor& features) const;
  at::Tensor in_ball(const at::Tensor& projected) const;

  std::unique_ptr<FeatureNetwork> network_;
  at::Tensor projection_;  ///< double [D, dimension]; undefined: none
  at::Tensor centre_;      ///< double [dimension]
  double radius_ = 0;
  at::Tensor corpus_;
  double corpus_clipped_ = 0;
};

}  // namespace sfumato
