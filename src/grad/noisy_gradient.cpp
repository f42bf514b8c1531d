#include <algorithm>
#include <cmath>

#include "grad/apply_update.h"
#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

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
  const std::string mistake = noise_range_mistake(sum.clip_norm_l2_, noise_multiplier);
  if (!mistake.empty()) throw PrivacyError(mistake);
  if (sum.sums_.empty()) throw PrivacyError("this clipped sum was already released");
  const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, charge.spend(key));
  NoisyGradient gradient;
  NoiseOptions& noise = gradient.noise_;
  noise.stddev = noise_stddev(noise_multiplier, sum.clip_norm_l2_, expected_batch_size);
  noise.grid = std::ldexp(1.0f, std::max(std::ilogb(noise.stddev) - 10, -120));
  noise.scale = static_cast<float>(1 / expected_batch_size);
  noise.nonce_stream = nonce.stream;
  noise.nonce_step = nonce.step;
  gradient.key_ = &key;
  gradient.sums_ = std::move(sum.sums_);
  gradient.lease_ = std::move(sum.lease_);
  gradient.slices_ = std::move(sum.slices_);
  sum.sums_.clear();
  return gradient;
}

void NoisyGradient::apply(const UpdateOptions& rule,
                          std::vector<bridge::UpdateTensors> tensors) && {
  apply_update(sums_, noise_, key_->chacha_key(), rule, std::move(tensors), slices_.get());
  sums_.clear();
  lease_.reset();
}

std::vector<at::Tensor> NoisyGradient::gradients() && {
  const std::shared_ptr<const ParameterSlices> slices = slices_;
  std::vector<at::Tensor> like(sums_);
  if (slices)
    for (size_t j = 0; j < like.size(); ++j) like[j] = slices->zeros(j);
  std::vector<at::Tensor> values = values_of(std::move(*this), like);
  if (slices) slices->share(values);
  return values;
}

}  // namespace sfumato
