#pragma once
#include <cstdint>
#include <optional>

#include "sfumato/bench/gpu_limits.h"
#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// What steps of a training take. Seconds are 0 where nothing was measured.
struct StepCost {
  std::int64_t trainable = 0;  ///< elements that train on private images
  std::int64_t physical_batch = 0;
  double image_seconds = 0;      ///< of every image of a step, all its draws
  double step_seconds = 0;       ///< of a step besides: noise, update, a GAN's public steps
  double bytes = 0;              ///< of tensors at the peak; 0 unknown
  double measured_seconds = 0;   ///< that the measurement took
  std::int64_t batches = 0;      ///< physical batches that were timed
  std::optional<GpuLimits> gpu;  ///< projected for it, not measured

  double seconds_of(double batch, std::int64_t steps) const {
    return static_cast<double>(steps) * (batch * image_seconds + step_seconds);
  }
};

enum class CostBy { kMeasuring, kNothing };

/// Runs the network of a configuration on made-up images, with noise from a test key: a few
/// physical batches, for about a second. No private data is touched. `by` kNothing only counts.
/// `mechanism` is private. Errors as make_generator; DeviceError if one example does not fit the
/// memory.
StepCost measure_step(const Config& config, const MechanismPlan& mechanism, CostBy by);

/// The same on a GPU that is not here, in bf16, by project_step(): PROJECTED. UsageError for a
/// family whose networks do not draw in steps, which no projection knows.
StepCost project_step_cost(const Config& config, const MechanismPlan& mechanism,
                           const GpuLimits& gpu);

}  // namespace sfumato
