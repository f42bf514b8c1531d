#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "sfumato/device/kernel_bridge.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

/// Kept per-example gradients [B, elements...]: squared norms in float64 from the values stored
/// (`squared_norm` where that has them already), and their clip-weighted sum in `shape`.
PerExampleGradient kept_gradient(at::Tensor gradients, at::IntArrayRef shape,
                                 at::Tensor squared_norm = {});

/// Called by every recorded layer with the leading dimension of its input: PrivacyError unless it
/// is examples times draws, for a row that several examples share has no per-example gradient.
void check_rows(const Tape& tape, int64_t rows, const std::string& parameter);

/// The weight that a parameter stands for, in the type that `input` is computed in; the float32
/// master stays as it is.
at::Tensor compute_value(const Parameter& parameter, const at::Tensor& input);
/// Whether products on `tensor`'s device may round their operands: bfloat16, or float32 as tf32.
bool rounds_operands(const at::Tensor& tensor);
/// Adds to .grad, as autograd does for a leaf: for layers whose plain backward is their own.
void add_plain_gradient(Parameter& parameter, const at::Tensor& gradient);
/// Whether it is [N, C, H, W], dense, with channels last.
bool has_channels_last(const at::Tensor& tensor);
/// Channels-last [B K, C, H, W] as tokens [B, K H W, C], without a copy.
at::Tensor tokens_of(const at::Tensor& images, int64_t examples);

/// What a kernel left of one parameter: `kept` [B, ...] in the parameter's memory order.
PerExampleGradient kept_by_kernel(at::Tensor kept, at::Tensor squared_norm);
/// A gradient whose norm is known and that is formed again, a few examples at a time, for the sum.
/// `form(first, count)` gives float32 rows [count, elements] in the memory order of `parameter`.
PerExampleGradient formed_again(at::Tensor squared_norm, const Parameter& parameter,
                                std::function<at::Tensor(int64_t first, int64_t count)> form);
/// The sum of one gradient with factors 1 into a scratch tensor: for measurements.
void sum_unclipped(PerExampleGradient gradient, const at::Tensor& like, int64_t examples);

/// Squared norm of each row of [B, ...] float32, summed in float64.
at::Tensor row_squared_norms(const at::Tensor& rows);

/// `tensor` [B * K, ...] times its example's clip factor; excluded rows become zero.
at::Tensor weighted_by_example(const at::Tensor& tensor, const ClipWeights& weights, int64_t draws);
/// `tensor` [B * K, ...] with the rows of excluded examples zero (a copy only if there are any).
at::Tensor without_excluded(const at::Tensor& tensor, const ClipWeights& weights, int64_t draws);

/// Bias gradient of each example: [N, p, ...] summed over draws and positions (dim 1 is p). On
/// kernels four dimensions are channels last, and on the CPU they may be.
PerExampleGradient bias_gradient(const at::Tensor& grad_output, int64_t examples);

/// The same from tokens [B, T, p].
PerExampleGradient token_sums(const at::Tensor& dy);

/// Gram form of a weight gradient dY^T X from tokens X [B, T, d] and dY [B, T, p]:
/// |sum_t dy_t x_t^T|^2 = sum_ts <x_t, x_s> <dy_t, dy_s>, in float64, never below what
/// with_rounding_floor says.
at::Tensor gram_squared_norm(const at::Tensor& x, const at::Tensor& dy);

/// A Gram norm is that of the exact gradient; what is clipped and added up is the gradient as
/// float32 sums it, with an error of about u sqrt(T) M, u = 2^-24, where M = sum_t |g_t| is the sum
/// of the magnitudes of its T terms. Where the terms cancel the error is all there is, and without
/// it the norm would be under-estimated. So 8 times the error is added in quadrature:
///   squared + (2^-21)^2 T M^2, and 0 where rounding made `squared` negative.
/// Where the terms do not cancel (M up to sqrt(T) times the norm) it changes the norm by less than
/// 2e-7 for T = 1024.
double with_rounding_floor(double squared, double magnitude, int64_t terms);
/// The same for products [B, T, T] of terms, <g_t, g_s>, whose sums are the squared norms.
at::Tensor sum_of_products(const at::Tensor& products);

}  // namespace sfumato
