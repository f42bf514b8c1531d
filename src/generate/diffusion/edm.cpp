#include "sfumato/generate/diffusion/edm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <stdexcept>

namespace sfumato {

EdmFactors edm_factors(double sigma, const EdmOptions& options, Prediction prediction) {
  if (prediction == Prediction::kSample)
    throw std::logic_error("an EDM network predicts no sample");
  const double data = options.sigma_data, norm = std::hypot(sigma, data);
  const double sign = prediction == Prediction::kVPrediction ? -1 : 1;
  return {.skip = data * data / (norm * norm),
          .out = sign * sigma * data / norm,
          .in = 1 / norm,
          .told = std::log(sigma) / 4};
}

double edm_sigma(double told) { return std::exp(4 * told); }

DiffusionBatch make_edm_batch(const EdmOptions& options, Prediction prediction,
                              const at::Tensor& x0, const DrawnNoise& drawn) {
  const at::Tensor clean = repeat_for_draws(x0, drawn);
  const at::Tensor eps = drawn.eps.to(x0.device()).flatten(0, 1);
  const at::Tensor sigmas = drawn.sigmas.cpu().contiguous();
  const int64_t count = sigmas.numel();
  // Of each copy: in, in sigma, the target's factors of x_0 and eps, what the network is told. The
  // target is written in x_0 and eps, for x_0 - skip x loses its digits where sigma is small.
  const at::Tensor table = at::empty({5, count}, at::kFloat);
  float* to = table.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const double sigma = sigmas.const_data_ptr<float>()[i];
    const EdmFactors at = edm_factors(sigma, options, prediction);
    const double column[] = {at.in, at.in * sigma, (1 - at.skip) / at.out,
                             -at.skip * sigma / at.out, at.told};
    for (int64_t row = 0; row < 5; ++row)
      to[row * count + i] = static_cast<float>(column[row]);
  }
  const at::Tensor placed = table.to(x0.device());
  const auto factor = [&](int64_t row) { return placed[row].view({-1, 1, 1, 1}); };
  DiffusionBatch batch;
  batch.noisy = factor(0) * clean + factor(1) * eps;
  batch.timesteps = placed[4];
  if (drawn.labels.defined()) batch.labels = drawn.labels.flatten().to(x0.device());
  batch.target = factor(2) * clean + factor(3) * eps;
  return batch;
}

}  // namespace sfumato
