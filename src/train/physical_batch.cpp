#include "sfumato/train/physical_batch.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/device/gpu.h"
#include "sfumato/grad/memory_meter.h"

namespace sfumato {

int64_t choose_physical_batch(int64_t budget_bytes, int64_t most,
                              const std::function<int64_t(int64_t)>& peak_bytes) {
  const int64_t one = peak_bytes(1);
  if (one > budget_bytes)
    throw DeviceError(fmt::format(
        "one example with all its draws needs {} of memory, the budget is {}; use fewer "
        "diffusion.draws, a smaller network, or raise performance.memory_budget_gib",
        human_bytes(static_cast<double>(one)), human_bytes(static_cast<double>(budget_bytes))));
  if (most <= 1) return 1;
  try {
    const int64_t each = std::max<int64_t>(peak_bytes(2) - one, 1);
    return std::clamp<int64_t>(1 + (budget_bytes - one) / each, 1, most);
  } catch (const c10::OutOfMemoryError&) {
    return 1;
  }
}

int64_t most_useful_examples(int64_t draws, double expected_batch_size, c10::Device device) {
  const int64_t expected = std::llround(std::clamp(expected_batch_size, 1.0, 1e9));
  return std::clamp<int64_t>((device.is_cuda() ? 4096 : 64) / draws, 1, expected);
}

int64_t smaller_physical_batch(int64_t examples) { return (examples + 1) / 2; }

int64_t memory_budget_bytes(double memory_budget_gib, c10::Device device) {
  if (memory_budget_gib > 0) return static_cast<int64_t>(memory_budget_gib * (1 << 30));
  if (device.is_cuda()) {
    const GpuMemory memory = find_gpu_backend()->memory();
    return (memory.free + memory.cached) / 10 * 8;
  }
  const int64_t available = available_memory_bytes();
  return available > 0 ? available / 10 * 7 : int64_t{4} << 30;
}

}  // namespace sfumato
