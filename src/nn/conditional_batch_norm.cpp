#include "nn/mixes_examples.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

ConditionalBatchNorm2d::ConditionalBatchNorm2d(int64_t channels, int64_t condition, double eps,
                                               double momentum)
    : bn(channels, eps, momentum, /*affine=*/false),
      gain(condition, channels, /*with_bias=*/false),
      shift(condition, channels, /*with_bias=*/false) {
  add_child("bn", bn);
  add_child("gain", gain);
  add_child("shift", shift);
}

at::Tensor ConditionalBatchNorm2d::forward(const at::Tensor& input, const at::Tensor& condition,
                                           bool training, Tape* tape) {
  refuse_batch_norm(tape, gain.weight.name);
  const at::Tensor normalised = bn.forward(input, training, nullptr);
  const at::Tensor y = condition.to(input.scalar_type());
  const auto of_each_channel = [](const at::Tensor& t) { return t.unsqueeze(2).unsqueeze(3); };
  return normalised.mul(of_each_channel(gain.forward(y, nullptr).add(1)))
      .add(of_each_channel(shift.forward(y, nullptr)));
}

}  // namespace sfumato
