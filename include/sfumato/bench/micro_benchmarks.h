#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
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

/// How images are drawn for a benchmark; device and precision as of performance.*.
struct SampleBenchmark {
  int64_t batch = 16;
  int64_t steps = 10;  ///< of DDIM, where a network draws in steps
  int repeat = 3;
  ComputeDevice device = ComputeDevice::kCpu;
  Precision precision = Precision::kFp32;
};

/// Seconds to draw `batch` images; `steps`: calls of the network for each, 1 for a GAN's generator.
struct SampleTimings {
  int64_t batch = 0, steps = 0;
  Timing seconds;
  /// What the threads of the process computed meanwhile, which others on the machine disturb less.
  Timing processor_seconds;

  double images_per_s() const { return static_cast<double>(batch) / seconds.median; }
};
/// Of each description (describe_networks) with random weights. They draw in turns, so that a
/// slower minute of the machine meets all. UsageError for a batch of none or no network that draws.
std::vector<SampleTimings> benchmark_sampling(std::span<const nlohmann::json> networks,
                                              const SampleBenchmark& options);

}  // namespace sfumato
