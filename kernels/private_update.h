#pragma once
#include <cstdint>

#include "kernels/chacha_gaussian.h"

namespace sfumato {

/// One parameter tensor of an update; all arrays are contiguous float32 of `count` elements.
/// `first` (momentum or first moment) is null for SGD without momentum, `second` (second moment) is
/// null for SGD, `average` (moving average of the values) is null where none is kept.
struct PrivateUpdateTensor {
  float* sum;    ///< clipped sum of gradients; zero afterwards
  float* value;  ///< the parameter
  float* first;
  float* second;
  float* average;
  std::int64_t count;
  float rate_scale;            ///< factor on the learning rate
  std::uint32_t nonce_tensor;  ///< last word of the noise's nonce: one tensor, one number
  std::int64_t first_group;    ///< set by prepare_private_update
  /// Groups of its noise's stream that come before its first element: where the arrays are part of
  /// a tensor of which other processes have the rest, no number of the stream is drawn twice.
  std::int64_t noise_group = 0;
};

enum class UpdateRule { kSgd, kAdam, kAdamW };

/// What an optimizer makes of a gradient.
struct UpdateOptions {
  UpdateRule rule = UpdateRule::kAdam;
  double learning_rate = 0;
  double momentum = 0;                            ///< SGD
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  ///< Adam, AdamW
  double weight_decay = 0;                        ///< on the gradient, or decoupled (AdamW)
  double correction1 = 1, correction2 = 1;        ///< 1 - beta^t at step t (from 1)
  double average_decay = 0;                       ///< of `average`
};

/// What a mechanism makes of a sum.
struct NoiseOptions {
  bool add_noise = true;                           ///< false: nothing private is in the sum
  double stddev = 0;                               ///< of the noise: in [0, 1e30]
  float grid = 1;                                  ///< a power of two in [2^-120, 2^120]
  float scale = 1;                                 ///< 1 / expected batch size
  std::uint32_t nonce_stream = 0, nonce_step = 0;  ///< first two words of the noise's nonce
};

struct PrivateUpdateOptions : UpdateOptions, NoiseOptions {};

/// Groups of kNormalsPerGroup elements are the unit of work, one for each warp: sets first_group of
/// every entry to the number of groups before it and returns the number of all groups, or -1 where
/// a count or noise_group is below 0 or the noise would end beyond kMaxNormalsPerStream. Tensors
/// may be empty; fewer than 2^31 of them.
std::int64_t prepare_private_update(PrivateUpdateTensor* host_table, std::int64_t tensors);

/// One step of training from clipped sums, in one pass over memory. For element i of each tensor,
/// with N_i number kNormalsPerGroup noise_group + i of the chacha_gaussian of
/// (key, {nonce_stream, nonce_step, nonce_tensor}, stddev) and r = learning_rate rate_scale:
///   g = scale round(sum + N_i), to multiples of grid, ties to even; without noise g = scale sum
///   SGD, Adam:   g += weight_decay value
///   SGD:         first = momentum first + g,  value -= r first   (momentum 0: value -= r g)
///   Adam:        first = beta1 first + (1 - beta1) g
///                second = beta2 second + (1 - beta2) g^2
///                value -= r / correction1 first / (sqrt(second / correction2) + eps)
///   AdamW:       value *= 1 - r weight_decay, then Adam without decay
///   average:     average = average_decay average + (1 - average_decay) value
///   sum = 0
/// (Kingma & Ba 2015; Loshchilov & Hutter 2019.) The sum is left at zero, so that the next step
/// adds into it without a fill and no private sum lingers; on the GPU the noise never reaches
/// memory, on the CPU its buffer is wiped.
///
/// Coefficients are computed in double and rounded to float32; the arithmetic of elements is
/// float32, IEEE operations in a fixed order and no fused multiply-add: CPU and GPU give the same
/// bits for every split of the groups. The noise is that of chacha_gaussian_add, bit for bit. No
/// branch or address depends on key, noise or sum. From g on everything is post-processing of a
/// released value, on which the slow paths of division and square root may depend.
///
/// Per element with Adam and average: 40 bytes (sum, value, first, second and average read and
/// written; without average 32, momentum 24, SGD 16), 98 integer operations of ChaCha20, about 45
/// of Box-Muller and 50 of the update.
///
/// CPU: groups [group_begin, group_end) of a prepared table; the caller splits over threads.
void private_update_cpu(const PrivateUpdateTensor* table, std::int64_t tensors,
                        std::int64_t group_begin, std::int64_t group_end,
                        const PrivateUpdateOptions& options, const ChaChaKey& key);

/// CUDA: `table` (prepared, then copied) and its arrays are device memory, `groups` is what
/// prepare_private_update returned, `stream` a cudaStream_t; returns a cudaError_t (0 is success).
/// The key travels as a kernel argument: the host's copies are wiped, the driver's argument buffer
/// is beyond reach.
int launch_private_update(const PrivateUpdateTensor* table, std::int64_t tensors,
                          std::int64_t groups, const PrivateUpdateOptions& options,
                          const ChaChaKey& key, void* stream);

}  // namespace sfumato
