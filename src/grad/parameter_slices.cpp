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
  return part_within(index, slice_of(size_, ranks_->rank(), ranks_->size()));
}

ParameterSlices::Part ParameterSlices::part_within(std::size_t index, const Slice& slice) const {
  const int64_t count = parameters_[index]->value.numel();
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

// Slice after slice, in pieces that its owner sends to all: through a small buffer, because most
// tensors are smaller than what is worth a message.
void ParameterSlices::share(const std::vector<at::Tensor>& whole) const {
  if (this->whole()) return;
  constexpr int64_t kPiece = 1 << 22;  // elements
  const at::Tensor buffer = at::zeros({std::min(kPiece, slice_of(size_, 0, ranks_->size()).end)},
                                      parameters_.front()->value.detach().options());
  for (int64_t owner = 0; owner < ranks_->size(); ++owner) {
    const Slice slice = slice_of(size_, owner, ranks_->size());
    for (int64_t begin = slice.begin; begin < slice.end; begin += kPiece) {
      const Slice piece{begin, std::min(begin + kPiece, slice.end)};
      const at::Tensor sent = buffer.narrow(0, 0, piece.size());
      if (owner == ranks_->rank()) copy_piece(whole, piece, sent, /*out=*/false);
      ranks_->broadcast({sent}, owner);
      if (owner != ranks_->rank()) copy_piece(whole, piece, sent, /*out=*/true);
    }
  }
}

void ParameterSlices::copy_piece(const std::vector<at::Tensor>& whole, const Slice& piece,
                                 const at::Tensor& buffer, bool out) const {
  for (std::size_t j = 0; j < whole.size(); ++j) {
    const Part part = part_within(j, piece);
    if (part.count == 0) continue;
    const at::Tensor theirs = in_memory_order(whole[j]).narrow(0, part.begin, part.count);
    const at::Tensor ours = buffer.narrow(0, offsets_[j] + part.begin - piece.begin, part.count);
    if (out)
      theirs.copy_(ours);
    else
      ours.copy_(theirs);
  }
}

void ParameterSlices::sum(const std::vector<at::Tensor>& whole) const {
  if (this->whole()) return;
  const at::Tensor flat = at::zeros({size_}, parameters_.front()->value.detach().options());
  for (std::size_t j = 0; j < whole.size(); ++j) as_parameter(flat, j).copy_(whole[j]);
  ranks_->all_reduce_sum({flat});
  for (std::size_t j = 0; j < whole.size(); ++j) whole[j].copy_(as_parameter(flat, j));
}

std::vector<at::Tensor> ParameterSlices::gathered(const std::vector<at::Tensor>& parts) const {
  std::vector<at::Tensor> whole;
  for (std::size_t j = 0; j < parts.size(); ++j) {
    whole.push_back(zeros(j));
    own(whole[j], j).copy_(own(parts[j], j));
  }
  share(whole);
  return whole;
}

}  // namespace sfumato
