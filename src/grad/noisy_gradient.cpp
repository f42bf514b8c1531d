#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cmath>

#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

NoisyGradient NoisyGradient::release(ClippedSum&& sum, double noise_multiplier,
                                     double expected_batch_size, const SecureKey& key,
                                     ChargedStep&& charge) {
  if (!(noise_multiplier > 0) || !std::isfinite(noise_multiplier))
    throw PrivacyError("the noise multiplier must be positive and finite");
  if (!(expected_batch_size > 0) || !std::isfinite(expected_batch_size))
    throw PrivacyError("the expected batch size must be positive and finite");
  if (sum.sums_.empty()) throw PrivacyError("this clipped sum was already released");
  const int64_t step = charge.spend(key);
  const double stddev = noise_multiplier * sum.clip_norm_l2_;
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
                     });
    gradients[j].div_(expected_batch_size);
  }
  return NoisyGradient(std::move(gradients));
}

NoisyGradient NoisyGradient::not_private(std::vector<at::Tensor> gradient_sums,
                                         double batch_size) {
  for (at::Tensor& sum : gradient_sums) sum = sum.div(batch_size);
  return NoisyGradient(std::move(gradient_sums));
}

}  // namespace sfumato
