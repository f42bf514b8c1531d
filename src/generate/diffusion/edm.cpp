#include "sfumato/generate/diffusion/edm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

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
    for (int64_t row = 0; row < 5; ++row) to[row * count + i] = static_cast<float>(column[row]);
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

DenoiserFn edm_as_noise_prediction(DenoiserFn network, const NoiseSchedule& schedule,
                                   const EdmOptions& options, Prediction prediction) {
  // Of each timestep: 1 / sqrt(abar), in, skip, out, what the network is told, sigma.
  std::vector<float> table;
  for (const float bar : schedule.alphas_cumprod()) {
    const double sigma = std::sqrt((1 - static_cast<double>(bar)) / bar);
    const EdmFactors at = edm_factors(sigma, options, prediction);
    for (const double value :
         {1 / std::sqrt(static_cast<double>(bar)), at.in, at.skip, at.out, at.told, sigma})
      table.push_back(static_cast<float>(value));
  }
  const at::Tensor rows = at::tensor(table, at::kFloat).view({-1, 6});
  return [network = std::move(network), rows](const at::Tensor& x, const at::Tensor& t,
                                              const at::Tensor& labels) {
    const at::Tensor at = rows.to(x.device()).index_select(0, t);
    const auto factor = [&](int64_t column) { return at.select(1, column).view({-1, 1, 1, 1}); };
    const at::Tensor scaled = factor(0) * x;
    const at::Tensor output = network(factor(1) * scaled, at.select(1, 4).contiguous(), labels);
    return (scaled - factor(2) * scaled - factor(3) * output) / factor(5);
  };
}

}  // namespace sfumato
