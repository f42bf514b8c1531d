#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/clip_factors.h"
#include "kernels/conv_shape.h"
#include "kernels/exact_sum.h"
#include "kernels/group_norm_shape.h"
#include "kernels/private_update.h"

namespace sfumato {

struct KernelSet;

/// From tensors to kernels: every check of dtype, shape, device and layout is here, and a kernel
/// that could not be started is a DeviceError. Tensors on a GPU are served by CUDA kernels; with an
/// emulated set in place (tests) CPU tensors are served by the same kernels, executed on the CPU.

/// The kernels that serve `tensor`; null for CPU tensors, which have rules of their own.
const KernelSet* kernels_for(const at::Tensor& tensor);
/// While it lives, CPU tensors are served by `set`: for tests. One at a time.
class EmulatedKernels {
 public:
  explicit EmulatedKernels(const KernelSet& set);
  ~EmulatedKernels();
  EmulatedKernels(const EmulatedKernels&) = delete;
  EmulatedKernels& operator=(const EmulatedKernels&) = delete;
};

namespace bridge {

/// Per-example gradients of one layer as the kernels leave them.
struct LayerGradients {
  at::Tensor weights;            ///< [B, weight's elements in memory order]; undefined: norm only
  at::Tensor squared_norm;       ///< [B] float64, of `weights` as stored
  at::Tensor bias;               ///< [B, P] float32; undefined if not asked for
  at::Tensor bias_squared_norm;  ///< [B] float64
};
struct LayerGradientOptions {
  bool keep = true;              ///< store the weight gradients
  bool bias = false;             ///< bias gradients from the same pass
  bool float32 = false;          ///< kept in float32 whatever the inputs are
  int64_t planned_examples = 0;  ///< LinearShape's (ConvShape has its own)
};

/// x [B K, C, H, W] and dy [B K, P, Ho, Wo], channels last, float32 or bfloat16. `shape` must
/// describe them. Kept gradients have the inputs' type unless float32 is asked for, as rows of
/// [B, P kh kw C].
LayerGradients conv_weight_gradients(const at::Tensor& x, const at::Tensor& dy,
                                     const ConvShape& shape, const LayerGradientOptions& options);
/// x [B, T, C], dy [B, T, P].
LayerGradients linear_weight_gradients(const at::Tensor& x, const at::Tensor& dy,
                                       const LayerGradientOptions& options);
/// Squared norms [B] float64 through Gram matrices, never below the true ones.
at::Tensor conv_gram_norms(const at::Tensor& x, const at::Tensor& dy, const ConvShape& shape);
at::Tensor linear_gram_norms(const at::Tensor& x, const at::Tensor& dy);

/// dy [B, T, P] -> bias [B, P] and its squared norm.
LayerGradients bias_gradients(const at::Tensor& dy);
/// Squared norm [B] float64 of rows [B, ...].
at::Tensor row_norms(const at::Tensor& rows);

struct GroupNormOutput {
  at::Tensor y, mean, rstd;  ///< y like x; [N, G] float32
};
struct GroupNormGradients {
  at::Tensor dx;           ///< like x; undefined if not asked for
  at::Tensor gamma, beta;  ///< [B, C] float32; undefined if not asked for
};
/// x [N, C, ...] contiguous or channels last, float32 or bfloat16; gamma, beta [C] float32. CPU
/// tensors, float32 and with channels last of a multiple of 16, are served by routines of theirs.
GroupNormOutput group_norm(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                           int64_t groups, double eps, FusedActivation activation);
GroupNormGradients group_norm_backward(const at::Tensor& x, const at::Tensor& dy,
                                       const GroupNormOutput& forward, const at::Tensor& gamma,
                                       const at::Tensor& beta, int64_t examples, int64_t groups,
                                       FusedActivation activation, bool want_dx, bool want_gamma);
/// x, dy [N, ..., C] contiguous; mean, rstd [rows] float32. dx, gamma and beta as above.
GroupNormGradients layer_norm_backward(const at::Tensor& x, const at::Tensor& dy,
                                       const at::Tensor& mean, const at::Tensor& rstd,
                                       const at::Tensor& gamma, int64_t examples, bool want_dx,
                                       bool want_gamma);

/// indices int64 [B, L], dy [B, L, D]: squared norm [B] of the table's gradient.
at::Tensor embedding_norms(const at::Tensor& indices, const at::Tensor& dy);
/// table [rows, D] float32 += sum of factor times look-ups' gradients; deterministic.
void embedding_accumulate(const at::Tensor& indices, const at::Tensor& dy,
                          const at::Tensor& factors, const at::Tensor& table);

/// `tensor` [B K, ...] times its example's factor; rows of factor 0 become 0, whatever they hold.
at::Tensor scaled_examples(const at::Tensor& tensor, const at::Tensor& factors);
/// `tensor` with the rows of factor 0 zero and the others as they are.
at::Tensor without_zero_factors(const at::Tensor& tensor, const at::Tensor& factors);

struct ClipResult {
  at::Tensor factors;     ///< [1 or layers, B] float32
  at::Tensor total_norm;  ///< [B] float64
  at::Tensor flags;       ///< [B] uint8: 1 clipped, 2 excluded
};
/// squared_norms [layers, B] float64; mask [B] float32 or undefined. On any device.
ClipResult clip_factors(const at::Tensor& squared_norms, const at::Tensor& mask,
                        const ClipFactorOptions& options);

/// Kept gradients [B, n] of one parameter, the place of their sum and their row of factors.
struct KeptEntry {
  at::Tensor gradients;  ///< float32 or bfloat16
  at::Tensor sum;        ///< n elements, float32, dense
  int64_t factor_row = 0;
};
/// sum += factors[row] . gradients for all entries, in one launch.
void clip_accumulate(const std::vector<KeptEntry>& entries, const at::Tensor& factors);

/// kernels/exact_sum.h on any device: `values` and `out` float32, `sum` int64, of one size, dense.
void exact_sum_add(const at::Tensor& values, const ExactGrid& grid, bool store,
                   const at::Tensor& sum);
void exact_sum_take(const at::Tensor& sum, double unit, const at::Tensor& out);

/// One parameter of an update: dense float32 tensors of one layout; those that the rule does not
/// need, and `average`, may be undefined.
struct UpdateTensors {
  at::Tensor sum;  ///< zero afterwards
  at::Tensor value, first, second, average;
  double rate_scale = 1;
  int64_t noise_group = 0;  ///< where its noise begins in the stream (PrivateUpdateTensor)
};
/// Noise, optimizer and moving average in one pass (kernels/private_update.h), on any device.
/// Tensor j takes the noise of nonce {options.nonce_stream, options.nonce_step, j}.
void private_update(const std::vector<UpdateTensors>& tensors, const PrivateUpdateOptions& options,
                    const ChaChaKey& key);

}  // namespace bridge
}  // namespace sfumato
