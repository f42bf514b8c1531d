#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace sfumato {

/// Puts a layer into the autograd graph without letting autograd see its parameters.
/// `output` was computed without a graph; `backward(output_gradient, needs_input_gradient)` records
/// per-example gradients and returns the gradient for `input` (or an undefined tensor). It runs
/// once, and everything that it captured is freed right after.
at::Tensor recorded_op(
    const at::Tensor& input, at::Tensor output,
    std::function<at::Tensor(const at::Tensor& grad_output, bool needs_input_grad)> backward);

/// Whether a backward pass from `tensor` would add to the gradient of a leaf: of a parameter that
/// no layer handed to a tape. Also after such a pass.
bool reaches_a_leaf(const at::Tensor& tensor);

}  // namespace sfumato
