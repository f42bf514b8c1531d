#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "sfumato/grad/gradient_engine.h"
#include "sfumato/models/unet2d.h"

namespace sfumato::test {

/// Inputs with the draws laid out behind one another.
struct Inputs {
  int64_t examples = 0, draws = 1;
  at::Tensor sample, timestep, labels, target;
};

/// What one pass of the gradient engine shows.
struct Shown {
  at::Tensor out, loss, norm;
  std::map<std::string, double> clipped_sum_norm;
};

Shown probe_network(UNet2D& network, const Inputs& inputs, double clip_norm_l2,
                    AlgorithmPolicy policy);

/// Largest difference, relative to the largest magnitude of `expected`.
double relative_difference(const at::Tensor& actual, const at::Tensor& expected);

/// A list of numbers as float64 [n].
at::Tensor numbers(const nlohmann::json& list);

/// A small unconditional network: two levels, attention at the lower one, samples 3 x 8 x 8.
UNet2DConfig small_config();

}  // namespace sfumato::test
