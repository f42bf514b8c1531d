#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/native_group_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "kernels/group_norm_backward.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double eps)
    : groups_(groups), channels_(channels), eps_(eps) {
  weight.value = at::ones({channels});
  bias.value = at::zeros({channels});
  add_parameter("weight", weight);
  add_parameter("bias", bias);
  set_trainable(weight, true);
  set_trainable(bias, true);
}

at::Tensor GroupNorm::forward(const at::Tensor& input, Tape* tape) {
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && bias.trainable;
  if (!record_weight && !record_bias)
    return at::group_norm(input, groups_, weight.value, bias.value, eps_, /*cudnn_enabled=*/false);

  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  at::Tensor x = input.detach().contiguous();
  const int64_t n = x.size(0);
  const int64_t positions = n == 0 ? 0 : x.numel() / (n * channels_);
  at::Tensor output, mean, rstd;
  {
    const at::NoGradGuard no_grad;
    std::tie(output, mean, rstd) = at::native_group_norm(x, weight.value, bias.value, n, channels_,
                                                         positions, groups_, eps_);
  }
  return recorded_op(
      input, output,
      [this, tape, examples, n, positions, record_weight, record_bias, x = std::move(x),
       mean = std::move(mean),
       rstd = std::move(rstd)](const at::Tensor& grad_output, bool needs_input_grad) {
        const at::Tensor dy = grad_output.contiguous();
        at::Tensor dx = needs_input_grad ? at::empty_like(x) : at::Tensor{};
        at::Tensor dgamma = at::empty({n, channels_}), dbeta = at::empty({n, channels_});
        const float *px = x.const_data_ptr<float>(), *pdy = dy.const_data_ptr<float>();
        const float *pmean = mean.const_data_ptr<float>(), *prstd = rstd.const_data_ptr<float>();
        const float* gamma = weight.value.const_data_ptr<float>();
        float* pdx = needs_input_grad ? dx.mutable_data_ptr<float>() : nullptr;
        float *pg = dgamma.mutable_data_ptr<float>(), *pb = dbeta.mutable_data_ptr<float>();
        at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
          group_norm_backward_cpu(px, pdy, pmean, prstd, gamma, begin, end, channels_,
                                           groups_, positions, pdx, pg, pb);
        });
        if (record_bias) tape->record(bias.name, bias_gradient(dbeta, examples));
        if (record_weight) tape->record(weight.name, bias_gradient(dgamma, examples));
        return dx;
      });
}

}  // namespace sfumato
