#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "sfumato/device/kernel_bridge.h"

namespace sfumato {

class ParameterSlices;

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

}  // namespace sfumato
