#include "sfumato/generate/diffusion/edm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sfumato/generate/diffusion/objective.h"

namespace sfumato {
namespace {

constexpr int64_t kEdmExamples = 3, kEdmDraws = 4, kEdmPixels = 8;  // [1, 2, 4]

DiffusionOptions edm_training(double sigma_data = 0.5) {
  DiffusionOptions options;
  options.draws = kEdmDraws;
  options.num_classes = 2;
  options.label_dropout = 0.4;
  options.edm = EdmOptions{.sigma_data = sigma_data};
  return options;
}

DrawnNoise edm_noise(int64_t examples, const DiffusionOptions& options) {
  std::vector<uint64_t> keys;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < examples; ++i) {
    keys.push_back(static_cast<uint64_t>(i + 7));
    labels.push_back(i % 2);
  }
  return draw_noise(8, 1, keys, {1, 2, 4}, at::tensor(labels, at::kLong), options);
}

/// The definition of the loss (Karras et al. 2022, equations 7 and 8), by hand and in double, for
/// the network F(x, told, y) = 0.5 x + told + y.
double edm_loss_by_hand(double data, double sign, const at::Tensor& x0, const DrawnNoise& drawn,
                        int64_t example) {
  double sum = 0;
  for (int64_t k = 0; k < kEdmDraws; ++k) {
    const double sigma = drawn.sigmas[example][k].item<double>();
    const double total = sigma * sigma + data * data;
    const at::Tensor eps = drawn.eps[example][k].flatten(), clean = x0[example].flatten();
    for (int64_t i = 0; i < kEdmPixels; ++i) {
      const double y = clean[i].item<double>(), noisy = y + sigma * eps[i].item<double>();
      const double network = 0.5 * noisy / std::sqrt(total) + std::log(sigma) / 4 +
                             static_cast<double>(drawn.labels[example][k].item<int64_t>());
      const double denoised =
          data * data / total * noisy + sign * sigma * data / std::sqrt(total) * network;
      const double weight = total / (sigma * sigma * data * data);
      sum += weight * (denoised - y) * (denoised - y);
    }
  }
  return sum / (kEdmDraws * kEdmPixels);
}

TEST(Edm, TheLossIsTheWeightedErrorOfTheDenoisedImage) {
  const at::Tensor x0 =
      at::sin(at::linspace(0, 20, kEdmExamples * kEdmPixels)).view({kEdmExamples, 1, 2, 4});
  const DenoiserFn network = [](const at::Tensor& x, const at::Tensor& told,
                                const at::Tensor& labels) {
    EXPECT_EQ(told.scalar_type(), at::kFloat);
    return 0.5 * x + told.view({-1, 1, 1, 1}) + labels.view({-1, 1, 1, 1});
  };
  for (const double data : {0.5, 0.57735})
    for (const Prediction prediction : {Prediction::kEpsilon, Prediction::kVPrediction}) {
      const DiffusionOptions options = edm_training(data);
      const DrawnNoise drawn = edm_noise(kEdmExamples, options);
      const at::Tensor loss =
          diffusion_loss(network, make_edm_batch(*options.edm, prediction, x0, drawn), kEdmDraws);
      for (int64_t i = 0; i < kEdmExamples; ++i) {
        const double sign = prediction == Prediction::kEpsilon ? 1 : -1;
        const double wanted = edm_loss_by_hand(data, sign, x0, drawn, i);
        EXPECT_NEAR(loss[i].item<double>(), wanted, 1e-5 * wanted) << data;
      }
    }
}

// What the preconditioning is for: input and target have unit variance at every level where the
// images have that of sigma_data.
TEST(Edm, InputAndTargetHaveUnitVariance) {
  const EdmOptions edm{.sigma_data = 0.6};
  for (const double sigma : {0.002, 0.1, 0.6, 3.0, 80.0}) {
    const EdmFactors at = edm_factors(sigma, edm, Prediction::kEpsilon);
    const double data = edm.sigma_data;
    EXPECT_NEAR(at.in * at.in * (data * data + sigma * sigma), 1, 1e-12);
    const double of_image = (1 - at.skip) / at.out, of_noise = at.skip * sigma / at.out;
    EXPECT_NEAR(of_image * of_image * data * data + of_noise * of_noise, 1, 1e-9) << sigma;
    EXPECT_NEAR(edm_sigma(at.told), sigma, 1e-12 * sigma);
  }
}

TEST(Edm, SigmasAreLogNormal) {
  DiffusionOptions options = edm_training();
  options.draws = 50;
  const DrawnNoise drawn = edm_noise(400, options);
  EXPECT_FALSE(drawn.timesteps.defined());
  const at::Tensor logs = drawn.sigmas.to(at::kDouble).log();
  const double n = static_cast<double>(logs.numel());
  EXPECT_NEAR(logs.mean().item<double>(), -1.2, 4.9 * 1.2 / std::sqrt(n));
  const double variance = (logs + 1.2).square().mean().item<double>();
  EXPECT_NEAR(variance / 1.44, 1, 4.9 * std::sqrt(2 / n));
  // The same of one example whatever its neighbours, and first draws stay where there are more.
  const DrawnNoise few = edm_noise(3, edm_training());
  EXPECT_TRUE(few.sigmas.equal(drawn.sigmas.narrow(0, 0, 3).narrow(1, 0, kEdmDraws)));
}

TEST(Edm, ALabelIsDroppedOfAllDrawsOrOfNone) {
  const DrawnNoise drawn = edm_noise(1000, edm_training());
  const at::Tensor dropped = (drawn.labels == 2).to(at::kDouble).mean(1);
  EXPECT_TRUE(((dropped == 0) | (dropped == 1)).all().item<bool>());
  EXPECT_NEAR(dropped.mean().item<double>(), 0.4, 4.9 * std::sqrt(0.24 / 1000));
}

// Of the exact denoiser of N(0.3, 0.25) the noise it finds at a timestep is the exact one too.
TEST(Edm, AsNoisePredictionItFindsTheSameImage) {
  const EdmOptions edm{.sigma_data = 0.6};
  const NoiseSchedule schedule({});
  const DenoiserFn network = [&](const at::Tensor& input, const at::Tensor& told,
                                 const at::Tensor&) {
    const at::Tensor sigma = (told.to(at::kDouble) * 4).exp().view({-1, 1, 1, 1});
    const at::Tensor total = sigma.square() + 0.36, x = input * total.sqrt();
    const at::Tensor image = (x * 0.25 + 0.3 * sigma.square()) / (sigma.square() + 0.25);
    return ((image - 0.36 / total * x) * total.sqrt() / (sigma * 0.6)).to(at::kFloat);
  };
  const DenoiserFn noise = edm_as_noise_prediction(network, schedule, edm, Prediction::kEpsilon);
  const at::Tensor x = at::linspace(-2, 2, 3).view({3, 1, 1, 1});
  const std::vector<int64_t> timesteps{3, 200, 999};
  const at::Tensor found = noise(x, at::tensor(timesteps, at::kLong), {});
  for (int64_t i = 0; i < 3; ++i) {
    const double bar = schedule.alpha_cumprod(timesteps[static_cast<std::size_t>(i)]);
    const double noisy = x[i].item<double>();
    const double image = (std::sqrt(bar) * 0.25 * noisy + (1 - bar) * 0.3) / (bar * 0.25 + 1 - bar);
    const double wanted = (noisy - std::sqrt(bar) * image) / std::sqrt(1 - bar);
    EXPECT_NEAR(found[i].item<double>(), wanted, 2e-3 * std::abs(wanted)) << i;
  }
}

}  // namespace
}  // namespace sfumato
