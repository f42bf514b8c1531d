#include "sfumato/grad/parameter_slices.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>

#include "kernels/chacha_gaussian.h"

namespace sfumato {
namespace {

int64_t rounded_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

/// A dense tensor in the order of its memory.
at::Tensor in_memory_order(const at::Tensor& tensor) {
  return tensor.as_strided({tensor.numel()}, {1});
}

}  // namespace

ParameterSlices::ParameterSlices(std::vector<Parameter*> parameters,
                                 std::shared_ptr<Communicator> ranks)
    : parameters_(std::move(parameters)), ranks_(ranks ? std::move(ranks) : single_process()) {
  for (const Parameter* parameter : parameters_) {
    offsets_.push_back(size_);
    elements_ += parameter->value.numel();
    size_ += rounded_up(parameter->value.numel(), kNormalsPerGroup);
  }
  size_ = rounded_up(size_, kNormalsPerGroup * ranks_->size());
}

ParameterSlices::Part ParameterSlices::part(std::size_t index) const {
  const int64_t count = parameters_[index]->value.numel();
  const Slice slice = slice_of(size_, ranks_->rank(), ranks_->size());
  const int64_t begin = std::clamp<int64_t>(slice.begin - offsets_[index], 0, count);
  const int64_t end = std::clamp<int64_t>(slice.end - offsets_[index], 0, count);
  // What ends a tensor is no beginning: an empty part is that of nothing.
  return begin < end ? Part{begin, end - begin} : Part{};
}

at::Tensor ParameterSlices::own(const at::Tensor& tensor, std::size_t index) const {
  const Part mine = part(index);
  const bool is_whole = tensor.numel() == parameters_[index]->value.numel();
  return is_whole ? in_memory_order(tensor).narrow(0, mine.begin, mine.count) : tensor;
}

at::Tensor ParameterSlices::in_flat(const at::Tensor& flat, std::size_t index) const {
  return flat.narrow(0, offsets_[index], parameters_[index]->value.numel());
}

at::Tensor ParameterSlices::as_parameter(const at::Tensor& flat, std::size_t index) const {
  const at::Tensor& value = parameters_[index]->value;
  return flat.as_strided(value.sizes(), value.strides(), flat.storage_offset() + offsets_[index]);
}

at::Tensor ParameterSlices::zeros(std::size_t index) const {
  return at::zeros_like(parameters_[index]->value.detach());
}

at::Tensor ParameterSlices::shared_flat(const std::vector<at::Tensor>& tensors) const {
  const at::Tensor flat = at::zeros({size_}, parameters_.front()->value.detach().options());
  for (std::size_t j = 0; j < tensors.size(); ++j)
    own(in_flat(flat, j), j).copy_(own(tensors[j], j));
  ranks_->share_slices({flat});
  return flat;
}

void ParameterSlices::share(const std::vector<at::Tensor>& whole) const {
  if (this->whole()) return;
  const at::Tensor flat = shared_flat(whole);
  for (std::size_t j = 0; j < whole.size(); ++j) in_memory_order(whole[j]).copy_(in_flat(flat, j));
}

void ParameterSlices::sum(const std::vector<at::Tensor>& whole) const {
  if (this->whole()) return;
  const at::Tensor flat = at::zeros({size_}, parameters_.front()->value.detach().options());
  for (std::size_t j = 0; j < whole.size(); ++j) as_parameter(flat, j).copy_(whole[j]);
  ranks_->all_reduce_sum({flat});
  for (std::size_t j = 0; j < whole.size(); ++j) whole[j].copy_(as_parameter(flat, j));
}

std::vector<at::Tensor> ParameterSlices::gathered(const std::vector<at::Tensor>& parts) const {
  const at::Tensor flat = shared_flat(parts);
  std::vector<at::Tensor> whole;
  for (std::size_t j = 0; j < parts.size(); ++j) whole.push_back(as_parameter(flat, j));
  return whole;
}

}  // namespace sfumato
