#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace sfumato {

std::vector<at::Tensor> copies_of_tensors(const std::vector<at::Tensor>& tensors);
/// Element by element; shapes are the same.
void put_tensors(const std::vector<at::Tensor>& values, std::vector<at::Tensor>& tensors);

/// The moving average of weights and statistics; the last ones where there is none (decay 0).
class TensorAverage {
 public:
  TensorAverage(std::vector<at::Tensor> tensors, double decay);
  /// The first updates count more: (1 + n) / (10 + n), as torch_ema has it.
  void update();
  /// Puts the average in the network; what stood there is returned.
  std::vector<at::Tensor> take();
  void give_back(const std::vector<at::Tensor>& last) { put_tensors(last, tensors_); }

 private:
  std::vector<at::Tensor> tensors_;
  double decay_, updates_ = 0;
  std::vector<at::Tensor> average_;
};

}  // namespace sfumato
