#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// Bias gradients and their squared norms, `dy` [examples, tokens, width] of `element` (tokens are
/// all positions of all draws of an example, channels last):
///   bias_grad[i, p]  = sum_t dy[i, t, p], summed in float64, stored as float32
///   squared_norm[i]  = sum_p bias_grad[i, p]^2 of the values as stored, in float64
/// `bias_grad` float32 [examples, width] and `squared_norm` float64 [examples] may be null: not
/// wanted. tokens >= 1, width >= 1. NaN or infinity in one example reaches no other.
/// Bytes: element size * tokens * width per example, and 4 * width; FLOPs: tokens * width.
void bias_norm_cpu(const void* dy, Element element, std::int64_t examples, std::int64_t tokens,
                   std::int64_t width, float* bias_grad, double* squared_norm);

/// Tokens that one block sums: at least 128, at most 32 such runs per example. Depends on `tokens`
/// alone, so that an example has the same bits in every batch.
constexpr std::int64_t bias_norm_run(std::int64_t tokens) {
  const std::int64_t run = (tokens + 31) / 32;
  return run > 128 ? run : 128;
}

/// Bytes of device memory that launch_bias_norm needs as `workspace`.
constexpr std::int64_t bias_norm_workspace_bytes(std::int64_t examples, std::int64_t tokens,
                                                 std::int64_t width) {
  const std::int64_t run = bias_norm_run(tokens);
  return examples * ((tokens + run - 1) / run) * width * static_cast<std::int64_t>(sizeof(double));
}

/// CUDA: the same in device memory, two kernels: sums over runs of tokens, then over the runs.
/// `stream` is a cudaStream_t; returns a cudaError_t (0 is success).
int launch_bias_norm(const void* dy, Element element, std::int64_t examples, std::int64_t tokens,
                     std::int64_t width, float* bias_grad, double* squared_norm, void* workspace,
                     void* stream);

}  // namespace sfumato
