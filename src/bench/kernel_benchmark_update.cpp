// Noise, and noise with the update behind it.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "bench/kernel_suite.h"
#include "kernels/chacha_gaussian.h"
#include "kernels/kernel_set.h"
#include "sfumato/core/error.h"
#include "sfumato/device/kernel_bridge.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

/// Nothing is protected: the key is a test key.
const SecureKey& test_key() {
  static const SecureKey key = SecureKey::insecure_for_tests(1);
  return key;
}

int64_t elements_on(const KernelSuite& suite) { return suite.on_gpu() ? 100'000'000 : 16'000'000; }

std::string millions(int64_t count) { return fmt::format("{} M elements", count / 1'000'000); }

void fill_or_add(const KernelSuite& suite, const at::Tensor& tensor, int64_t step, bool add) {
  const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, step);
  const ChaChaKey& key = test_key().chacha_key();
  auto* data = tensor.mutable_data_ptr<float>();
  if (suite.on_gpu()) {
    const GpuBackend& gpu = *find_gpu_backend();
    const int status = gpu.kernels().chacha_gaussian(data, 0, tensor.numel(), key, nonce, 1.0, add,
                                                     gpu.current_stream());
    if (status != 0)
      throw DeviceError(fmt::format("chacha_gaussian failed with CUDA's error {}", status));
    return;
  }
  at::parallel_for(0, tensor.numel(), 128 * kNormalsPerGroup, [&](int64_t begin, int64_t end) {
    (add ? chacha_gaussian_add_cpu : chacha_gaussian_cpu)(data + begin, begin, end, key, nonce,
                                                          1.0);
  });
}

void add_noise(KernelSuite& suite, bool add) {
  const int64_t count = elements_on(suite);
  KernelRow row;
  row.kernel = add ? "chacha_gaussian add" : "chacha_gaussian fill";
  row.shape = millions(count);
  row.element = "fp32";
  row.bytes = (add ? 8.0 : 4.0) * static_cast<double>(count);
  suite.add(row, [&]() -> KernelSuite::Work {
    return [&suite, add, tensor = suite.zeros({count}, at::kFloat), step = int64_t{0}]() mutable {
      fill_or_add(suite, tensor, step++, add);
    };
  });
}

PrivateUpdateOptions adam(bool noise) {
  PrivateUpdateOptions options;
  options.learning_rate = 1e-5;
  options.correction1 = 1 - options.beta1;
  options.correction2 = 1 - options.beta2;
  options.average_decay = 0.999;
  options.add_noise = noise;
  options.stddev = 1;
  options.grid = 0x1p-10f;
  const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, 0);
  options.nonce_stream = nonce.stream;
  options.nonce_step = nonce.step;
  return options;
}

/// A hundred tensors, as a network has them.
std::vector<bridge::UpdateTensors> tensors_of(const KernelSuite& suite, int64_t count,
                                              bool average) {
  constexpr int64_t kTensors = 100;
  std::vector<bridge::UpdateTensors> tensors(kTensors);
  for (bridge::UpdateTensors& t : tensors) {
    const auto zeros = [&] { return suite.zeros({count / kTensors}, at::kFloat); };
    t.sum = zeros();
    t.value = zeros();
    t.first = zeros();
    t.second = zeros();
    if (average) t.average = zeros();
  }
  return tensors;
}

void add_update(KernelSuite& suite, bool noise, bool average) {
  const int64_t count = elements_on(suite);
  KernelRow row;
  row.kernel = "private_update";
  row.shape = fmt::format("{}, Adam{}{}", millions(count), average ? ", average" : "",
                          noise ? "" : ", no noise");
  row.element = "fp32";
  row.bytes = (average ? 40.0 : 32.0) * static_cast<double>(count);
  suite.add(row, [&]() -> KernelSuite::Work {
    return [tensors = tensors_of(suite, count, average), options = adam(noise)] {
      bridge::private_update(tensors, options, test_key().chacha_key());
    };
  });
}

}  // namespace

void add_update_kernels(KernelSuite& suite) {
  add_noise(suite, /*add=*/false);
  add_noise(suite, /*add=*/true);
  add_update(suite, /*noise=*/true, /*average=*/true);
  add_update(suite, /*noise=*/true, /*average=*/false);
  add_update(suite, /*noise=*/false, /*average=*/true);
}

}  // namespace sfumato
