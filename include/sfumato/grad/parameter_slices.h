#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "sfumato/dist/communicator.h"
#include "sfumato/nn/module.h"

namespace sfumato {

/// The trainable parameters of a network one after the other, as one flat list of which each rank
/// owns a slice: it alone draws the noise of that, updates it and keeps the optimizer's state of
/// it. Elements are in the order of memory. Every tensor begins with a whole group of the noise
/// (kNormalsPerGroup elements), and the list ends with gaps so that slices do, too: a number of the
/// noise is at the same place of its stream however many ranks there are.
class ParameterSlices {
 public:
  /// Elements [begin, begin + count) of one tensor; begin is a multiple of kNormalsPerGroup.
  struct Part {
    int64_t begin = 0;
    int64_t count = 0;
  };

  /// Parameters are borrowed. `ranks` null: this process alone.
  ParameterSlices(std::vector<Parameter*> parameters, std::shared_ptr<Communicator> ranks);

  /// Whether this process is alone and owns everything.
  bool whole() const { return ranks_->alone(); }
  Communicator& ranks() const { return *ranks_; }
  std::size_t tensors() const { return parameters_.size(); }
  /// Elements of the flat list, gaps included.
  int64_t size() const { return size_; }
  /// Elements of all parameters.
  int64_t elements() const { return elements_; }
  /// What this rank owns of tensor `index`.
  Part part(std::size_t index) const;

  /// The part of tensor `index` that this rank owns, as a view [count]. `tensor`: dense and laid
  /// out as the parameter, or such a part already.
  at::Tensor own(const at::Tensor& tensor, std::size_t index) const;
  /// Tensor `index` in a flat list [size()], as a view [elements of the tensor].
  at::Tensor in_flat(const at::Tensor& flat, std::size_t index) const;
  /// The same as a view with the sizes and strides of the parameter.
  at::Tensor as_parameter(const at::Tensor& flat, std::size_t index) const;
  /// Zeros of a parameter's size and layout.
  at::Tensor zeros(std::size_t index) const;

  /// Each rank has brought its own parts of `whole` (one tensor for each parameter, laid out as
  /// they are) up to date; afterwards all have everything. Collective.
  void share(const std::vector<at::Tensor>& whole) const;
  /// Tensors laid out as the parameters become their sums over all ranks. Collective.
  void sum(const std::vector<at::Tensor>& whole) const;
  /// As share(), from the parts alone to whole tensors.
  std::vector<at::Tensor> gathered(const std::vector<at::Tensor>& parts) const;

 private:
  /// What of tensor `index` lies in those elements of the flat list.
  Part part_within(std::size_t index, const Slice& slice) const;
  /// Those elements of the flat list from tensors into a buffer, or out of it into them.
  void copy_piece(const std::vector<at::Tensor>& whole, const Slice& piece,
                  const at::Tensor& buffer, bool out) const;

  std::vector<Parameter*> parameters_;
  std::shared_ptr<Communicator> ranks_;
  std::vector<int64_t> offsets_;  ///< of every tensor in the flat list
  int64_t size_ = 0, elements_ = 0;
};

}  // namespace sfumato
