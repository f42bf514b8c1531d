#pragma once
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/element.h"

namespace sfumato {

/// Weight gradients of a 2-d convolution (groups = 1), one for each example, never unfolding the
/// input in memory. With x channels last [B K, H, W, C] and dy [B K, Ho, Wo, P], both of element
/// `in`, and the rows i K .. i K + K - 1 (draws) belonging to example i:
///   grad[i, p, ky, kx, c] = sum over k, oy, ox of
///       dy[i K + k, oy, ox, p] x[i K + k, oy stride_y - padding_y + ky dilation_y, ox ..., c]
///   bias_grad[i, p] = sum over k, oy, ox of dy[i K + k, oy, ox, p]
/// where x is zero outside of the image (a zero that is multiplied: 0 times NaN is NaN).
///   grad                [B, P, kh, kw, C] of element `out`, rounded to nearest; null: not stored,
///                       and the squared norm is that of the float32 sums
///   bias_grad           float [B, P] or null
///   squared_norm        double [B] or null: of grad as stored; squares of 8 values are added in
///                       float32, all else in float64, so that a norm is at most 4 * 2^-24 smaller
///                       (relatively) than the exact one, a quarter of kClipMargin
///   bias_squared_norm   double [B] or null (needs bias_grad): of bias_grad as stored
/// Accuracy: products of bfloat16 inputs are exact; float32 inputs are rounded to tf32 (10 bits of
/// mantissa, relative error 2^-11 each) as they are multiplied, but not in bias_grad. Sums are
/// float32: weights by tensor cores, whose order inside an instruction is unspecified.
/// The bits depend on shape, element and kind of device alone, not on the device's size: the tokens
/// of a tile may be divided into parts, which are added up in order (weight_grad_plan.h), as the
/// number of examples and no device demands. Compute capability 9.0 has a kernel and a plan of its
/// own for bfloat16 (warpgroup_weight_grad.h); float32 has the same everywhere. A NaN or an
/// infinity in one example reaches no other. Bytes: B (T P + K H W C) input elements read at least
/// once and B P N stored, N = kh kw C, T = K Ho Wo; from the second-level cache each input is read
/// N / 128 (dy), P / 128 (x, per tap) times. Operations: 2 B T P N. Source: the implicit matrix
/// product of Chetlur et al. 2014 (arXiv:1410.0759), one per example. Every call: 4 B (tiles + 1)
/// bytes of zeros, then one kernel. workspace: conv_weight_grad_workspace_bytes(shape) bytes of
/// device memory, 16-byte aligned, as are all tensors' starts. Returns a cudaError_t;
/// cudaErrorInvalidValue for a shape out of range: P, N, T, H, W, Ho stride_y, Wo stride_x in 1 ..
/// 2^30-1, an example's x and dy below 2^31 values each, fewer than 2^31 blocks; or a bias norm
/// without a bias. B = 0 does nothing.
int launch_conv_weight_grad(const void* x, const void* dy, Element in, const ConvShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm, void* workspace, void* stream);
std::int64_t conv_weight_grad_workspace_bytes(const ConvShape& shape);

/// The same on the CPU, sums in float64 and float32 inputs as they are.
void conv_weight_grad_cpu(const void* x, const void* dy, Element in, const ConvShape& shape,
                          void* grad, Element out, float* bias_grad, double* squared_norm,
                          double* bias_squared_norm);

}  // namespace sfumato
