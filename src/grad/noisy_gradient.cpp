#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

double rounding_margin(double expected_batch_size) {
  return 0x1p-20 * batch_bound(expected_batch_size);
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
  const std::string mistake = noise_range_mistake(sum.clip_norm_l2_, noise_multiplier);
  if (!mistake.empty()) throw PrivacyError(mistake);
  if (sum.sums_.empty()) throw PrivacyError("this clipped sum was already released");
  const ChaChaNonce nonce = make_nonce(StreamDomain::kNoise, charge.spend(key));
  NoisyGradient gradient;
  PrivateUpdateOptions& noise = gradient.noise_;
  noise.add_noise = true;
  noise.stddev = noise_stddev(noise_multiplier, sum.clip_norm_l2_, expected_batch_size);
  noise.grid = std::ldexp(1.0f, std::max(std::ilogb(noise.stddev) - 10, -120));
  noise.scale = static_cast<float>(1 / expected_batch_size);
  noise.nonce_stream = nonce.stream;
  noise.nonce_step = nonce.step;
  gradient.key_ = &key;
  gradient.sums_ = std::move(sum.sums_);
  gradient.lease_ = std::move(sum.lease_);
  sum.sums_.clear();
  return gradient;
}

NoisyGradient NoisyGradient::not_private(std::vector<at::Tensor> gradient_sums, double batch_size) {
  NoisyGradient gradient;
  gradient.noise_.add_noise = false;
  gradient.noise_.scale = static_cast<float>(1 / batch_size);
  gradient.sums_ = std::move(gradient_sums);
  return gradient;
}

void NoisyGradient::apply(const PrivateUpdateOptions& rule,
                          std::vector<bridge::UpdateTensors> tensors) && {
  if (tensors.size() != sums_.size())
    throw PrivacyError(fmt::format("an update of {} parameters was given the gradients of {}",
                                   tensors.size(), sums_.size()));
  for (size_t j = 0; j < tensors.size(); ++j) tensors[j].sum = sums_[j];
  PrivateUpdateOptions options = rule;
  options.add_noise = noise_.add_noise;
  options.stddev = noise_.stddev;
  options.grid = noise_.grid;
  options.scale = noise_.scale;
  options.nonce_stream = noise_.nonce_stream;
  options.nonce_step = noise_.nonce_step;
  static const ChaChaKey no_key;
  bridge::private_update(tensors, options, key_ != nullptr ? key_->chacha_key() : no_key);
  sums_.clear();
  lease_.reset();
}

std::vector<at::Tensor> NoisyGradient::gradients() && {
  // Gradient descent at rate -1 from zero.
  std::vector<bridge::UpdateTensors> tensors;
  std::vector<at::Tensor> values;
  for (const at::Tensor& sum : sums_) {
    values.push_back(at::zeros_like(sum));
    tensors.emplace_back().value = values.back();
  }
  PrivateUpdateOptions rule;
  rule.rule = UpdateRule::kSgd;
  rule.learning_rate = -1;
  std::move(*this).apply(rule, std::move(tensors));
  return values;
}

}  // namespace sfumato
