#pragma once
#include <ATen/core/Tensor.h>

#include "sfumato/nn/module.h"

namespace sfumato {

/// Spectral normalisation (Miyato et al. 2018) as torch.nn.utils.spectral_norm defines it: the
/// weight in use is W / sigma with sigma = u^T W v, W as a matrix of dimension 0 by all others, and
/// u, v of power iteration on W alone. Gradients take u and v for constants:
///   dl/dW = (G - <G, W / sigma> u v^T) / sigma,  G = dl/d(W / sigma).
/// So clipping bounds G, and the Jacobian, which depends on no image, comes after the noise.
///
/// u and v are state: they move once an update, by follow(), never in a forward pass.
class SpectralNorm final : public WeightMap {
 public:
  /// Becomes the map of `weight`, which it borrows.
  explicit SpectralNorm(Parameter& weight);
  SpectralNorm(const SpectralNorm&) = delete;
  SpectralNorm& operator=(const SpectralNorm&) = delete;

  /// u of `generator`, then 15 iterations, as PyTorch's parametrization begins.
  void initialise(at::Generator& generator);

  at::Tensor weight() const override;
  void pull_back(at::Tensor& gradient) const override;
  /// One power iteration: v = W^T u, u = W v, each of norm 1.
  void follow() override;

  at::Tensor u;  ///< [rows]: the buffer weight_u
  at::Tensor v;  ///< [columns]: the buffer weight_v

 private:
  at::Tensor matrix() const;
  /// A scalar on the weight's device. 1 for a weight of zeros, which stays as it is.
  at::Tensor sigma() const;
  Parameter& weight_;
};

}  // namespace sfumato
