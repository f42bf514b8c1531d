#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <vector>

#include "sfumato/device/kernel_bridge.h"

namespace sfumato {

class ParameterSlices;
struct Parameter;

/// The gradient of a batch in which nothing is private: sums of autograd, divided by `batch_size`.
/// For runs with privacy.enabled = false, whose card says NOT PRIVATE, and for batches of released
/// images. A type of its own, so that every place where weights move without noise says so.
class PublicGradient {
 public:
  /// The tensors are consumed: zero after apply().
  explicit PublicGradient(std::vector<at::Tensor> sums, double batch_size);

  /// Division and the update that `rule` describes, in one pass. `tensors`, without sums, in the
  /// order of `sums`; with `slices`, of the parts that this rank owns.
  void apply(const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors,
             const ParameterSlices* slices = nullptr) &&;

  /// The gradients themselves.
  std::vector<at::Tensor> gradients() &&;

 private:
  std::vector<at::Tensor> sums_;
  double batch_size_;
};

/// Of a mean loss, by plain autograd; zeros for a parameter that has no part in it, as a table of
/// classes where there are none. Empty where a value is not finite. The parameters keep no
/// gradients.
std::optional<PublicGradient> public_gradient_by_autograd(const at::Tensor& loss,
                                                          std::span<Parameter* const> parameters);

}  // namespace sfumato
