#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <stdexcept>

#include "sfumato/generate/diffusion/noise_schedule.h"

namespace sfumato {

// What a network's output means, said once for the loss, for solvers and for attacks. A noisy image
// is x = signal x_0 + noise eps; at timestep t of a schedule signal = sqrt(abar_t) and
// noise = sqrt(1 - abar_t). `Level` is a number (float), or a tensor that broadcasts over images.

/// x, from an image and noise.
template <class Level>
at::Tensor noisy_sample(const at::Tensor& x0, const at::Tensor& eps, const Level& signal,
                        const Level& noise) {
  return signal * x0 + noise * eps;
}

/// What the network should answer.
template <class Level>
at::Tensor loss_target(Prediction prediction, const at::Tensor& x0, const at::Tensor& eps,
                       const Level& signal, const Level& noise) {
  switch (prediction) {
    case Prediction::kEpsilon: return eps;
    case Prediction::kSample: return x0;
    // Salimans & Ho 2022, appendix D.
    case Prediction::kVPrediction: return signal * eps - noise * x0;
  }
  throw std::logic_error("unknown prediction type");
}

/// x_0 as the network's output at x tells it. An epsilon tells none where signal = 0.
template <class Level>
at::Tensor predicted_sample(Prediction prediction, const at::Tensor& output, const at::Tensor& x,
                            const Level& signal, const Level& noise) {
  switch (prediction) {
    case Prediction::kEpsilon: return (x - noise * output) / signal;
    case Prediction::kSample: return output;
    case Prediction::kVPrediction: return signal * x - noise * output;
  }
  throw std::logic_error("unknown prediction type");
}

/// eps as the network's output at x tells it.
template <class Level>
at::Tensor predicted_epsilon(Prediction prediction, const at::Tensor& output, const at::Tensor& x,
                             const Level& signal, const Level& noise) {
  switch (prediction) {
    case Prediction::kEpsilon: return output;
    case Prediction::kSample: return (x - signal * output) / noise;
    case Prediction::kVPrediction: return signal * output + noise * x;
  }
  throw std::logic_error("unknown prediction type");
}

}  // namespace sfumato
