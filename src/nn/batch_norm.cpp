#include <ATen/Context.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "nn/initial_values.h"
#include "nn/mixes_examples.h"
#include "sfumato/core/error.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

void refuse_batch_norm(const Tape* tape, const std::string& parameter) {
  if (tape == nullptr) return;
  throw PrivacyError(fmt::format(
      "the batch normalisation {} mixes the examples of a batch, so that clipping bounds "
      "nothing: only a generator, which sees no private image, may have one; put GroupNorm in its "
      "place",
      parameter.empty() ? "without parameters" : fmt::format("of parameter '{}'", parameter)));
}

BatchNorm2d::BatchNorm2d(int64_t channels, double eps, double momentum, bool affine)
    : running_mean(at::zeros({channels})),
      running_var(at::ones({channels})),
      num_batches_tracked(at::scalar_tensor(0, at::kLong)),
      channels_(channels),
      eps_(eps),
      momentum_(momentum),
      affine_(affine) {
  add_buffer("running_mean", running_mean);
  add_buffer("running_var", running_var);
  add_buffer("num_batches_tracked", num_batches_tracked);
  if (!affine) return;
  weight.value = at::ones({channels});
  bias.value = at::zeros({channels});
  add_parameter("weight", weight);
  add_parameter("bias", bias);
  set_trainable(weight, true);
  set_trainable(bias, true);
}

void BatchNorm2d::initialise_own(at::Generator&) {
  running_mean.zero_();
  running_var.fill_(1);
  num_batches_tracked.zero_();
  if (affine_) fill_as_identity(weight, bias);
}

/// Statistics and the running ones in float32, whatever the input is: LibTorch computes them so
/// from bfloat16 beside float32 parameters.
at::Tensor BatchNorm2d::forward(const at::Tensor& input, bool training, Tape* tape) {
  refuse_batch_norm(tape, weight.name);
  if (training) {
    if (input.numel() <= channels_)
      throw UsageError(
          fmt::format("batch normalisation cannot take the statistics of {} values of each of {} "
                      "channels: training needs a larger batch",
                      input.numel() / channels_, channels_));
    num_batches_tracked.add_(1);
  }
  return at::batch_norm(input, weight.value, bias.value, running_mean, running_var, training,
                        momentum_, eps_, at::globalContext().userEnabledCuDNN());
}

}  // namespace sfumato
