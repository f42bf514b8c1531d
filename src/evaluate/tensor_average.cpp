#include "evaluate/tensor_average.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

namespace sfumato {

std::vector<at::Tensor> copies_of_tensors(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.detach().clone());
  return copies;
}

void put_tensors(const std::vector<at::Tensor>& values, std::vector<at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].copy_(values[i]);
}

TensorAverage::TensorAverage(std::vector<at::Tensor> tensors, double decay)
    : tensors_(std::move(tensors)), decay_(decay) {
  if (decay > 0) average_ = copies_of_tensors(tensors_);
}

void TensorAverage::update() {
  if (decay_ == 0) return;
  const at::NoGradGuard no_grad;
  ++updates_;
  const double decay = std::min(decay_, (1 + updates_) / (10 + updates_));
  for (std::size_t i = 0; i < tensors_.size(); ++i) average_[i].lerp_(tensors_[i], 1 - decay);
}

std::vector<at::Tensor> TensorAverage::take() {
  std::vector<at::Tensor> last = copies_of_tensors(tensors_);
  if (decay_ > 0) put_tensors(average_, tensors_);
  return last;
}

}  // namespace sfumato
