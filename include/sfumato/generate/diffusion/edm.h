#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "sfumato/core/choices.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/loss.h"

namespace sfumato {

// EDM preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1 and section 5). A noisy image
// is x = x_0 + sigma eps, and the network F makes of it
//
//   D(x, sigma) = skip x + out F(in x, told)
//
// with which the denoised image, the network's input and its target have unit variance. Of
// Prediction::kVPrediction `out` has the other sign, as in diffusers.

struct EdmFactors {
  double skip;  ///< s² / (sigma² + s²), with s = sigma_data
  double out;   ///< ± sigma s / sqrt(sigma² + s²)
  double in;    ///< 1 / sqrt(sigma² + s²)
  double told;  ///< ln(sigma) / 4, the network's timestep
};
/// `sigma` > 0. std::logic_error for Prediction::kSample.
EdmFactors edm_factors(double sigma, const EdmOptions& options, Prediction prediction);

/// sigma of what the network is told.
double edm_sigma(double told);

/// The batch of a loss: `drawn.sigmas` are read, its timesteps are not. The target is
/// (x_0 - skip x) / out. With it the plain squared error is EDM's loss: the weight
/// (sigma² + s²) / (sigma s)² is 1 / out², so weight |D - x_0|² = |F - target|². `x0` as for
/// make_diffusion_batch.
DiffusionBatch make_edm_batch(const EdmOptions& options, Prediction prediction,
                              const at::Tensor& x0, const DrawnNoise& drawn);

/// An EDM network as one that predicts noise at timesteps of a schedule, for attacks that go by
/// these: its D at sigma = sqrt((1 - abar) / abar), of x_t / sqrt(abar).
DenoiserFn edm_as_noise_prediction(DenoiserFn network, const NoiseSchedule& schedule,
                                   const EdmOptions& options, Prediction prediction);

}  // namespace sfumato
