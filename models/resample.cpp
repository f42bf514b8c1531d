#include "models/resample.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_nearest2d.h>

namespace sfumato {
namespace {

constexpr int kTaps = 4;
constexpr float kFir[kTaps] = {1, 3, 3, 1};
constexpr float kFirSum = 64;  // of the outer product

/// One 4 x 4 filter per channel, [C, 1, 4, 4], of sum `gain`.
at::Tensor fir_filter(const at::Tensor& like, float gain) {
  at::Tensor filter = at::empty({1, 1, kTaps, kTaps});
  float* values = filter.mutable_data_ptr<float>();
  for (int i = 0; i < kTaps; ++i)
    for (int j = 0; j < kTaps; ++j) values[i * kTaps + j] = kFir[i] * kFir[j] / kFirSum * gain;
  return filter.to(like.device()).expand({like.size(1), 1, kTaps, kTaps}).contiguous();
}

}  // namespace

at::Tensor resample(const at::Tensor& x, Resample how) {
  switch (how) {
    case Resample::kNone: return x;
    case Resample::kDown: return at::avg_pool2d(x, {2, 2}, {2, 2});
    case Resample::kUp:
      return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}, 2.0, 2.0);
    case Resample::kFirDown:
      return at::conv2d(x, fir_filter(x, 1), {}, /*stride=*/{2, 2}, /*padding=*/{1, 1}, {1, 1},
                        x.size(1));
    case Resample::kFirUp:
      // Zeros between the pixels, two before and one after, and the filter: its adjoint form.
      return at::conv_transpose2d(x, fir_filter(x, 4), {}, /*stride=*/{2, 2}, /*padding=*/{1, 1},
                                  /*output_padding=*/{0, 0}, x.size(1));
  }
  return x;
}

ConvDownsample::ConvDownsample(int64_t channels, int64_t padding)
    : pad_bottom_right_(padding == 0),
      conv_({.in = channels, .out = channels, .stride = {2, 2}, .padding = {padding, padding}}) {
  add_child("conv", conv_);
}

at::Tensor ConvDownsample::forward(const at::Tensor& x, Tape* tape) {
  if (!pad_bottom_right_) return conv_.forward(x, tape);
  return conv_.forward(at::constant_pad_nd(x, {0, 1, 0, 1}, 0.0), tape);
}

ConvUpsample::ConvUpsample(int64_t channels)
    : conv_({.in = channels, .out = channels, .padding = {1, 1}}) {
  add_child("conv", conv_);
}

at::Tensor ConvUpsample::forward(const at::Tensor& x, Tape* tape) {
  return conv_.forward(resample(x, Resample::kUp), tape);
}

}  // namespace sfumato
