#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

/// values[i] = (values[i] to the nearest multiple of `grid`, a power of two) * scale.
void round_and_scale(float* values, int64_t count, float grid, float scale) {
  // Adding and subtracting 1.5 2^23 rounds what is below 2^22; above, a float's own unit in the
  // last place times the grid is coarser than the grid or equal.
  constexpr float kShift = 12582912.0f, kWhole = 4194304.0f;
  const float per_grid = 1 / grid;
  for (int64_t i = 0; i < count; ++i) {
    const float x = values[i] * per_grid;
    const float rounded = (x + kShift) - kShift;
    values[i] = (std::fabs(x) < kWhole ? rounded : std::nearbyint(x)) * grid * scale;
  }
}

}  // namespace

double rounding_margin(double expected_batch_size) {
  return 0x1p-20 * std::max(expected_batch_size, 64.0);
}

double noise_stddev(double noise_multiplier, double clip_norm_l2, double expected_batch_size) {
  return noise_multiplier * clip_norm_l2 * (1 + rounding_margin(expected_batch_size));
}

NoisyGradient NoisyGradient::release(ClippedSum&& sum, double noise_multiplier,
                                     double expected_batch_size, const SecureKey& key,
                                     ChargedStep&& charge) {
  if (!(noise_multiplier > 0) || !std::isfinite(noise_multiplier))
    throw PrivacyError("the noise multiplier must be positive and finite");
  if (!(expected_batch_size > 0) || !std::isfinite(expected_batch_size))
    throw PrivacyError("the expected batch size must be positive and finite");
  if (sum.sums_.empty()) throw PrivacyError("this clipped sum was already released");
  const int64_t step = charge.spend(key);
  const double stddev = noise_stddev(noise_multiplier, sum.clip_norm_l2_, expected_batch_size);
  const float grid = std::ldexp(1.0f, std::max(std::ilogb(stddev) - 10, -120));
  const auto scale = static_cast<float>(1 / expected_batch_size);
  std::vector<at::Tensor> gradients = std::move(sum.sums_);
  sum.sums_.clear();
  for (size_t j = 0; j < gradients.size(); ++j) {
    const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, step, static_cast<int64_t>(j));
    const ChaChaKey& words = key.chacha_key();
    float* data = gradients[j].mutable_data_ptr<float>();
    // Grain: whole groups of the stream, so that no thread computes a block twice.
    at::parallel_for(0, gradients[j].numel(), 128 * kNormalsPerGroup,
                     [&](int64_t begin, int64_t end) {
                       chacha_gaussian_add_cpu(data + begin, begin, end, words, nonce, stddev);
                       round_and_scale(data + begin, end - begin, grid, scale);
                     });
  }
  return NoisyGradient(std::move(gradients));
}

NoisyGradient NoisyGradient::not_private(std::vector<at::Tensor> gradient_sums, double batch_size) {
  for (at::Tensor& sum : gradient_sums) sum = sum.div(batch_size);
  return NoisyGradient(std::move(gradient_sums));
}

}  // namespace sfumato
