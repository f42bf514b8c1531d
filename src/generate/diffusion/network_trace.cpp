#include "sfumato/generate/diffusion/network_trace.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "sfumato/models/unet2d.h"

namespace sfumato {

void trace_network(const nlohmann::json& config, Tape& tape) {
  UNet2D network(UNet2DConfig::from_json(config));
  const UNet2DConfig& c = network.config();
  const ImageShape shape = c.image_shape();
  // Timestep 0 is in every table; the fourier embedding takes its logarithm.
  const at::Tensor timestep =
      c.time_embedding_type == "fourier" ? at::ones({1}) : at::zeros({1}, at::kLong);
  at::Tensor classes;
  if (c.class_embed_type == "identity")
    classes = at::zeros({1, c.time_embed_dim()});
  else if (c.class_conditional())
    classes = at::zeros({1}, at::kLong);
  network.forward(at::zeros({1, shape.channels, shape.height, shape.width}), timestep, classes,
                  &tape);
}

std::int64_t trainable_parameters(const nlohmann::json& config) {
  UNet2D network(UNet2DConfig::from_json(config));
  std::int64_t count = 0;
  for (const Parameter* parameter : trainable_of(network.parameters()))
    count += parameter->value.numel();
  return count;
}

}  // namespace sfumato
