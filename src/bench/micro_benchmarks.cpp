#include "sfumato/bench/micro_benchmarks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/chacha_gaussian.h"
#include "kernels/kernel_set.h"
#include "sfumato/bench/bench_network.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/device/threads.h"
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

/// A generator with random weights, and what it takes to draw from it.
class Drawing {
 public:
  Drawing(const nlohmann::json& networks, const SampleBenchmark& options)
      : in_steps_(draws_in_steps(networks)),
        generator_(random_generator(networks, open_placement(options.device, options.precision),
                                    kSeed, /*draws=*/0)) {}

  bool in_steps() const { return in_steps_; }

  std::unique_ptr<ImageSampler> sampler(int64_t steps) const {
    Config config;
    if (in_steps_) config.sample.steps.set(steps);
    config.sample.seed.set(kSeed);
    const GeneratorFacts facts = generator_->facts();
    const SampledImages images{facts.size
                                   ? ImageShape{facts.channels, (*facts.size)[0], (*facts.size)[1]}
                                   : generator_->objective().image_shape(),
                               facts.class_rows > 0};
    return generator_->sampler(config, images);
  }

 private:
  bool in_steps_;
  std::unique_ptr<Generator> generator_;
};

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
  set_threads(1);
  timings.chacha_one_thread = time(repeat, chacha);
  timings.torch_one_thread = time(repeat, torch);
  set_threads(timings.threads);
  return timings;
}

AccountTimings benchmark_account(int repeat) {
  AccountTimings t;
  const PrivacyEvent phase = Phase{t.sample_rate, t.noise_multiplier, t.steps};
  CalibrationTarget target{.epsilon = t.target_epsilon, .delta = t.delta};
  for (const Accountant accountant : {Accountant::kRdp, Accountant::kPld}) {
    AccountTimings::Row& row = t.rows.emplace_back();
    row.accountant = target.accountant = accountant;
    // Another delta each time, the one that is shown last: what was asked just before is
    // remembered.
    int left = repeat;
    const auto delta = [&] { return t.delta * (1 + 1e-9 * --left); };
    row.epsilon_seconds = time(repeat, [&] {
      row.epsilon = account_epsilon(accountant, {&phase, 1}, delta(), target.adjacency).epsilon;
    });
    left = repeat;
    row.calibrate_seconds = time(repeat, [&] {
      target.delta = delta();
      row.calibrated_noise_multiplier =
          calibrate_noise_multiplier(target, t.sample_rate, t.steps).phase.noise_multiplier;
    });
  }
  return t;
}

std::vector<SampleTimings> benchmark_sampling(std::span<const nlohmann::json> networks,
                                              const SampleBenchmark& options) {
  if (options.batch < 1 || options.repeat < 1)
    throw UsageError("a benchmark of sampling needs at least one image, drawn once");
  std::vector<Drawing> drawings;
  for (const nlohmann::json& network : networks) drawings.emplace_back(network, options);
  std::vector<ImageId> images;
  for (int64_t i = 0; i < options.batch; ++i) images.push_back({.label = 0, .index = i});
  std::vector<std::unique_ptr<ImageSampler>> samplers;
  for (const Drawing& drawing : drawings) {
    (void)drawing.sampler(1)->draw(images);  // touches the pages
    samplers.push_back(drawing.sampler(options.steps));
  }
  std::vector<std::vector<double>> seconds(samplers.size()), processor(samplers.size());
  for (int i = 0; i < options.repeat; ++i)
    for (size_t d = 0; d < samplers.size(); ++d) {
      const std::clock_t start = std::clock();
      seconds[d].push_back(seconds_of([&] { (void)samplers[d]->draw(images); }));
      processor[d].push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
  std::vector<SampleTimings> timings;
  for (size_t d = 0; d < drawings.size(); ++d)
    timings.push_back({options.batch, drawings[d].in_steps() ? options.steps : 1,
                       summarize(std::move(seconds[d])), summarize(std::move(processor[d]))});
  return timings;
}

}  // namespace sfumato
