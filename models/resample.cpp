#include "models/resample.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/upsample_nearest2d.h>

namespace sfumato {
namespace {

constexpr int kTaps = 4;
constexpr double kFirSum = 64;  // of the outer product of (1, 3, 3, 1)

/// One 4 x 4 filter per channel, [C, 1, 4, 4], of sum `gain`. Made where `like` is: a copy from the
/// host could not be part of a recorded step.
at::Tensor fir_filter(const at::Tensor& like, double gain) {
  const at::Tensor place = at::arange(kTaps, like.options().dtype(at::kFloat));
  const at::Tensor taps = place.sub_(1.5).square_().neg_().add_(3.25);  // (1, 3, 3, 1)
  return at::outer(taps, taps)
      .mul_(gain / kFirSum)
      .to(like.scalar_type())
      .expand({like.size(1), 1, kTaps, kTaps})
      .contiguous();
}

}  // namespace

at::Tensor resample(const at::Tensor& x, Resample how) {
  switch (how) {
    case Resample::kNone: return x;
    case Resample::kDown: return at::avg_pool2d(x, {2, 2}, {2, 2});
    case Resample::kUp: return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}, 2.0, 2.0);
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
