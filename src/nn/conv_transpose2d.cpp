#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "nn/initial_values.h"
#include "nn/per_example.h"
#include "sfumato/core/error.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

ConvTranspose2d::ConvTranspose2d(const Options& options) : options_(options) {
  weight.value = at::zeros({options.in, options.out, options.kernel[0], options.kernel[1]});
  weight.kernel_layout = at::MemoryFormat::ChannelsLast;
  add_parameter("weight", weight);
  set_trainable(weight, true);
  if (!options.bias) return;
  bias.value = at::zeros({options.out});
  add_parameter("bias", bias);
  set_trainable(bias, true);
}

/// PyTorch takes dimension 1 for the fan in here too, which is the number of outputs.
void ConvTranspose2d::initialise_own(at::Generator& generator) {
  fill_by_fan_in(weight, bias, generator);
}

at::Tensor ConvTranspose2d::forward(const at::Tensor& input, Tape* tape) {
  if (tape != nullptr)
    throw PrivacyError(
        fmt::format("the transposed convolution of parameter '{}' has no per-example rule: only a "
                    "generator, which sees no private image, may have one; build what is trained "
                    "on private images from Conv2d",
                    weight.name));
  const Options& o = options_;
  return at::conv_transpose2d(input, compute_value(weight, input), compute_value(bias, input),
                              o.stride, o.padding, o.output_padding);
}

}  // namespace sfumato
