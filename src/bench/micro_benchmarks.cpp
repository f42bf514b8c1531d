#include "sfumato/bench/micro_benchmarks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/chacha_gaussian.h"
#include "kernels/kernel_set.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/generate/diffusion/generator.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/calibrate.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

constexpr uint64_t kSeed = 1;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Timing time(int repeat, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) seconds.push_back(seconds_of(work));
  return summarize(std::move(seconds));
}

/// The noise of a private update by itself.
void add_chacha(at::Tensor& tensor, const SecureKey& key, int64_t step) {
  const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, step);
  float* data = tensor.mutable_data_ptr<float>();
  at::parallel_for(0, tensor.numel(), 128 * kNormalsPerGroup, [&](int64_t begin, int64_t end) {
    chacha_gaussian_add_cpu(data + begin, begin, end, key.chacha_key(), nonce, 1.0);
  });
}

void benchmark_noise_on_gpu(at::Tensor& tensor, const SecureKey& key, int repeat,
                            NoiseTimings& timings) {
  const GpuBackend& gpu = *find_gpu_backend();
  int64_t step = 0;
  const auto chacha = [&] {
    const int status = gpu.kernels().chacha_gaussian(
        tensor.mutable_data_ptr<float>(), 0, tensor.numel(), key.chacha_key(),
        make_nonce(StreamDomain::kNoise, step++), 1.0, /*add=*/true, gpu.current_stream());
    if (status != 0)
      throw DeviceError(fmt::format("chacha_gaussian failed with CUDA's error {}", status));
  };
  const auto on_gpu = [&](const std::function<void()>& work) {
    for (int i = 0; i < 2; ++i) work();
    std::vector<double> seconds;
    for (int i = 0; i < repeat; ++i) seconds.push_back(gpu.seconds_of(work));
    return summarize(std::move(seconds));
  };
  timings.chacha = on_gpu(chacha);
  timings.torch = on_gpu([&] { tensor.normal_(); });
}

}  // namespace

Timing summarize(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t n = seconds.size(), middle = n / 2;
  const double median = n % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return {seconds.front(), median, seconds.back()};
}

NoiseTimings benchmark_noise(int64_t count, int repeat, ComputeDevice where) {
  if (count < 1) throw UsageError("a benchmark of noise needs at least one number");
  NoiseTimings timings;
  timings.count = count;
  timings.threads = at::get_num_threads();
  const SecureKey key = SecureKey::insecure_for_tests(kSeed);
  const c10::Device device = open_device(where);
  timings.device = where;
  at::Tensor tensor = at::zeros({count}, at::TensorOptions().device(device));
  if (device.is_cuda()) {
    benchmark_noise_on_gpu(tensor, key, repeat, timings);
    return timings;
  }
  int64_t step = 0;
  const auto chacha = [&] { add_chacha(tensor, key, step++); };
  const auto torch = [&] { tensor.normal_(); };
  chacha();  // touches the pages
  timings.chacha = time(repeat, chacha);
  timings.torch = time(repeat, torch);
  at::set_num_threads(1);
  timings.chacha_one_thread = time(repeat, chacha);
  timings.torch_one_thread = time(repeat, torch);
  at::set_num_threads(timings.threads);
  return timings;
}

AccountTimings benchmark_account(int repeat) {
  AccountTimings t;
  const PrivacyEvent phase = Phase{t.sample_rate, t.noise_multiplier, t.steps};
  CalibrationTarget target{.epsilon = t.target_epsilon, .delta = t.delta};
  for (const Accountant accountant : {Accountant::kRdp, Accountant::kPld}) {
    AccountTimings::Row& row = t.rows.emplace_back();
    row.accountant = target.accountant = accountant;
    row.epsilon_seconds = time(repeat, [&] {
      row.epsilon = account_epsilon(accountant, {&phase, 1}, t.delta, target.adjacency).epsilon;
    });
    row.calibrate_seconds = time(repeat, [&] {
      row.calibrated_noise_multiplier =
          calibrate_noise_multiplier(target, t.sample_rate, t.steps).phase.noise_multiplier;
    });
  }
  return t;
}

SampleTimings benchmark_sampling(const nlohmann::json& network, int64_t batch, int64_t steps,
                                 int repeat, ComputeDevice device,
                                 Precision precision) {
  if (batch < 1) throw UsageError("a benchmark of sampling needs at least one image");
  const auto generator = random_diffusion(network, open_placement(device, precision), kSeed);
  const SampledImages shape{generator->objective().image_shape(),
                            generator->facts().class_rows > 0};
  std::vector<ImageId> images;
  for (int64_t i = 0; i < batch; ++i) images.push_back({.label = 0, .index = i});
  const auto sampler = [&](int64_t count) {
    Config config;
    config.sample.steps.set(count);
    config.sample.seed.set(kSeed);
    return generator->sampler(config, shape);
  };
  (void)sampler(1)->draw(images);  // touches the pages
  SampleTimings timings{batch, steps, {}};
  const auto whole = sampler(steps);
  timings.seconds = time(repeat, [&] { (void)whole->draw(images); });
  return timings;
}

}  // namespace sfumato
