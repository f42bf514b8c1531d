#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace sfumato {

struct Config;
class GradientStep;

/// Largest physical batch whose tensors fit `budget_bytes`: `peak_bytes(b)` measures a pass over b
/// examples at b = 1 and 2, the rest is linear. Between 1 and `most`. DeviceError if not even one
/// example fits, which names `draws_setting` (Objective::draws_setting).
int64_t choose_physical_batch(int64_t budget_bytes, int64_t most,
                              const std::function<int64_t(int64_t)>& peak_bytes,
                              const std::string& draws_setting = {});
/// "fewer draws of an image (diffusion.draws)"; without the brackets where there is no setting.
std::string fewer_draws(const std::string& draws_setting);

/// The batches of a training: their size is random, each of expected_batch_size / sample_rate
/// records joins with probability sample_rate. All of it is public.
struct LogicalBatch {
  double expected_batch_size = 1;
  double sample_rate = 1;
  int64_t draws = 1;
  int64_t ranks = 1;               ///< that share its physical batches out
  std::string draws_setting = {};  ///< for messages: Objective::draws_setting
  bool in_bf16 = false;            ///< what layers compute in on the CPU
};

/// Those of these settings in one process.
LogicalBatch logical_batch(const Config& config, const GradientStep& gradients);

/// The `most` of training: more than some 64 draws in a pass (4096 on a GPU) only take memory,
/// fewer leave the cores idle; and no more examples than hardly any step has.
int64_t most_useful_examples(const LogicalBatch& batch, c10::Device device = c10::kCPU);

/// In how many steps of its size a pass may be smaller than the physical batch: 1 on a GPU, where a
/// pass is one recorded graph; 8 on the CPU. Not every size, so that few occur and the time of a
/// step tells no more of the size of its batch than that. 1 in bf16, too: products of another
/// number of rows may sum in another order, and what a rounding to bfloat16 makes of that in the
/// gradients of the other examples of the pass has no place in the margin of privacy/bounds.h.
int64_t pass_sizes(c10::Device device, bool in_bf16);
/// To how many examples a pass over `records` of at most `physical` is padded: the next multiple of
/// physical / sizes.
int64_t padded_examples(int64_t records, int64_t physical, int64_t sizes);

/// The physical batch up to `most` for which a step costs least: the last pass of a step is filled
/// up with padding, and a pass costs something beside its examples, so that
///   E[passes] overhead + E[examples, padding included]
/// is as small as can be, N the random size of a batch: with p the physical batch
///   E[ceil(N / p)] overhead + E[(ceil(N / p) - 1) p + padded_examples(rest, p, sizes)].
/// Of ranks those of the one that has most: all its passes count as whole ones. `overhead` in
/// examples.
int64_t cheapest_physical_batch(const LogicalBatch& batch, int64_t most, double overhead,
                                int64_t sizes = 1);
/// What a pass costs beside its examples: starting kernels, filling and draining the machine.
/// Assumed, not measured: as much as 4 draws on a CPU and as 32 on a GPU.
double pass_overhead(const LogicalBatch& batch, c10::Device device);

/// What a training runs with: of the sizes that fit and are useful, the cheapest.
int64_t physical_batch_for(const LogicalBatch& batch, int64_t budget_bytes, c10::Device device,
                           const std::function<int64_t(int64_t)>& peak_bytes);

/// performance.memory_budget_gib in bytes, or 70 % of what the system can give (80 % of the GPU's).
int64_t memory_budget_bytes(double memory_budget_gib, c10::Device device = c10::kCPU);

/// The share of a rank in the records of a step, which are cut into physical batches of `physical`:
/// whole ones, one after the other, so that every record is on one rank. The only place of that
/// rule.
std::span<const int64_t> share_of_rank(std::span<const int64_t> records, int64_t physical,
                                       int64_t rank, int64_t ranks);

/// What to go on with where `examples` (at least 2) did not fit after all: half, rounded up.
int64_t smaller_physical_batch(int64_t examples);

}  // namespace sfumato
