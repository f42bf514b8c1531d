#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

namespace sfumato {

/// Largest physical batch whose tensors fit `budget_bytes`: `peak_bytes(b)` measures a pass over b
/// examples at b = 1 and 2, the rest is linear. Between 1 and `most`. DeviceError if not even one
/// example fits.
int64_t choose_physical_batch(int64_t budget_bytes, int64_t most,
                              const std::function<int64_t(int64_t)>& peak_bytes);

/// The `most` of training: more than some 64 draws in a pass (4096 on a GPU) only take memory,
/// fewer leave the cores idle; and no more examples than a step is expected to have.
int64_t most_useful_examples(int64_t draws, double expected_batch_size,
                             c10::Device device = c10::kCPU);

/// performance.memory_budget_gib in bytes, or 70 % of what the system can give (80 % of the GPU's).
int64_t memory_budget_bytes(double memory_budget_gib, c10::Device device = c10::kCPU);

/// What to go on with where `examples` (at least 2) did not fit after all: half, rounded up.
int64_t smaller_physical_batch(int64_t examples);

}  // namespace sfumato
