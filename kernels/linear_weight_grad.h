#pragma once
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/element.h"

namespace sfumato {

/// Weight gradients of y = x W^T + b over T tokens (of all draws) of each of B examples. With
/// x [B, T, C] and dy [B, T, P] of element `in`:
///   grad[i, p, c] = sum over t of dy[i, t, p] x[i, t, c]      [B, P, C] of element `out`, or null
///   bias_grad[i, p] = sum over t of dy[i, t, p]               float [B, P] or null
/// and their squared norms as stored, double [B] or null. It is the 1x1 case of conv_weight_grad.h,
/// to which everything said there about accuracy, bits, NaN, workspace and errors applies.
/// Bytes: B T (P + C) elements read, B P C stored. Operations: 2 B T P C.
int launch_linear_weight_grad(const void* x, const void* dy, Element in, const LinearShape& shape,
                              void* grad, Element out, float* bias_grad, double* squared_norm,
                              double* bias_squared_norm, void* workspace, void* stream);
std::int64_t linear_weight_grad_workspace_bytes(const LinearShape& shape);

/// The same on the CPU, sums in float64 and float32 inputs as they are.
void linear_weight_grad_cpu(const void* x, const void* dy, Element in, const LinearShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm);

}  // namespace sfumato
