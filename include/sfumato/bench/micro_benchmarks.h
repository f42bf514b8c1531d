#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/privacy/accountant.h"

namespace sfumato {

/// Smallest, middle and largest of repeated measurements, in seconds.
struct Timing {
  double min = 0, median = 0, max = 0;
};
/// `seconds` must not be empty.
Timing summarize(std::vector<double> seconds);

/// Seconds for `count` standard normals, float32, one thread and all; on a GPU there is one figure
/// each, between events on the GPU.
struct NoiseTimings {
  int64_t count = 0;
  int threads = 1;
  ComputeDevice device = ComputeDevice::kCpu;
  Timing chacha_one_thread, chacha;  ///< added to a tensor, as the mechanism does it
  Timing torch_one_thread, torch;    ///< at::normal_, which is not secret
};
NoiseTimings benchmark_noise(int64_t count, int repeat, ComputeDevice device = ComputeDevice::kCpu);

/// Seconds of each accountant on a plan of `steps` steps, and to calibrate to a target.
struct AccountTimings {
  double sample_rate = 0.04, noise_multiplier = 1.5, delta = 1e-5, target_epsilon = 8;
  int64_t steps = 2250;
  struct Row {
    Accountant accountant;
    double epsilon = 0;                      ///< of these numbers
    double calibrated_noise_multiplier = 0;  ///< that reaches target_epsilon
    Timing epsilon_seconds, calibrate_seconds;
  };
  std::vector<Row> rows;
};
AccountTimings benchmark_account(int repeat);

/// Seconds to draw `batch` images from a network with random weights, `steps` DDIM steps; device
/// and precision as of performance.*.
struct SampleTimings {
  int64_t batch = 0, steps = 0;
  Timing seconds;
};
SampleTimings benchmark_sampling(const nlohmann::json& network, int64_t batch, int64_t steps,
                                 int repeat, ComputeDevice device = ComputeDevice::kCpu,
                                 Precision precision = Precision::kFp32);

}  // namespace sfumato
