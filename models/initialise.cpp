#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "sfumato/models/checkpoint_io.h"

namespace sfumato {

NamedTensors named_weights(UNet2D& network) { return named_values(network.parameters()); }

void initialise(UNet2D& network, uint64_t seed, double class_embedding_std) {
  const at::NoGradGuard no_grad;
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  constexpr double kFourierScale = 16;
  double bias_bound = 0;
  for (Parameter* parameter : network.parameters()) {
    at::Tensor& value = parameter->value;
    if (parameter->name == "class_embedding.weight") {
      value.normal_(0, class_embedding_std, generator);
    } else if (parameter->name == "time_proj.weight") {
      const bool fourier = network.config().time_embedding_type == "fourier";
      value.normal_(0, fourier ? kFourierScale : 1, generator);
    } else if (value.dim() > 1) {
      // Kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(fan in).
      bias_bound = 1 / std::sqrt(static_cast<double>(value.numel() / value.size(0)));
      value.uniform_(-bias_bound, bias_bound, generator);
    } else if (parameter->name.ends_with(".weight")) {
      value.fill_(1);  // of a norm; its bias follows
      bias_bound = 0;
    } else if (bias_bound > 0) {
      value.uniform_(-bias_bound, bias_bound, generator);  // of the weight just before
    } else {
      value.zero_();
    }
  }
}

}  // namespace sfumato
