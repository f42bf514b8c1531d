#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "sfumato/data/record_store.h"
#include "sfumato/generate/diffusion/draws.h"

namespace sfumato {

/// A physical batch of fixed shape: real records first, then padding with mask 0.
struct PhysicalBatch {
  at::Tensor images;  ///< float32 [B, C, H, W], or [B, K, C, H, W] where draws are augmented
  at::Tensor mask;    ///< float32 [B]: 1 real, 0 padding
  DrawnNoise drawn;
  int64_t examples = 0;  ///< B, padding included
};

/// Reads `records` (at most `physical`) of step `step` and draws their timesteps, noise and
/// augmentation from run.seed. A record's draws depend on its content, not on its place in the
/// store or in the batch: the presence of other records changes nothing in its gradient.
PhysicalBatch load_physical_batch(const RecordStore& store, std::span<const int64_t> records,
                                  int64_t physical, uint64_t seed, int64_t step,
                                  const DiffusionOptions& options);

/// Random images and labels of the same shapes, for checks before the first step and for
/// benchmarks. Examples with equal `keys` get equal images.
PhysicalBatch synthetic_batch(const ImageShape& shape, std::span<const uint64_t> keys,
                              const DiffusionOptions& options);

}  // namespace sfumato
