#include "sfumato/generate/diffusion/denoiser.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>

#include <stdexcept>
#include <utility>

#include "sfumato/models/unet2d.h"

namespace sfumato {

DenoiserFn unet_denoiser(UNet2D& network, Tape* tape) {
  return [&network, tape](const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels) {
    return network.forward(x, t, labels, tape);
  };
}

DenoiserFn guided(DenoiserFn model, double guidance, int64_t null_label) {
  if (guidance == 0) return model;
  return [model = std::move(model), guidance, null_label](const at::Tensor& x, const at::Tensor& t,
                                                          const at::Tensor& labels) {
    if (!labels.defined()) throw std::logic_error("guidance needs labels");
    const at::Tensor both = model(at::cat({x, x}), at::cat({t, t}),
                                  at::cat({labels, at::full_like(labels, null_label)}));
    const auto halves = both.chunk(2);
    return (1 + guidance) * halves[0] - guidance * halves[1];
  };
}

bool GuidanceInterval::holds(double sigma) const {
  constexpr double kRounding = 1e-6;
  return sigma >= low * (1 - kRounding) && (!high || sigma <= *high * (1 + kRounding));
}

}  // namespace sfumato
