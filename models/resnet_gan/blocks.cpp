#include "models/resnet_gan/blocks.h"

#include "models/gan_config.h"
#include "models/resample.h"

namespace sfumato {
namespace {

constexpr double kEps = 1e-5;

Conv2d::Options three_by_three(int64_t in, int64_t out, bool spectral_norm = false) {
  return {.in = in, .out = out, .padding = {1, 1}, .spectral_norm = spectral_norm};
}

std::unique_ptr<Conv2d> pointwise(int64_t in, int64_t out, bool spectral_norm = false) {
  return std::make_unique<Conv2d>(
      Conv2d::Options{.in = in, .out = out, .kernel = {1, 1}, .spectral_norm = spectral_norm});
}

std::unique_ptr<GroupNorm> group_norm(int64_t channels) {
  return std::make_unique<GroupNorm>(group_count(channels), channels, kEps);
}

}  // namespace

GeneratorBlock::GeneratorBlock(int64_t in, int64_t out, int64_t condition, bool upsample)
    : upsample_(upsample),
      bn1_(in, condition),
      conv1_(three_by_three(in, out)),
      bn2_(out, condition),
      conv2_(three_by_three(out, out)) {
  add_child("bn1", bn1_);
  add_child("conv1", conv1_);
  add_child("bn2", bn2_);
  add_child("conv2", conv2_);
  if (in == out && !upsample) return;
  conv_sc_ = pointwise(in, out);
  add_child("conv_sc", *conv_sc_);
}

at::Tensor GeneratorBlock::forward(const at::Tensor& x, const at::Tensor& condition,
                                   bool training) {
  const Resample how = upsample_ ? Resample::kUp : Resample::kNone;
  at::Tensor h = bn1_.forward(x, condition, training, nullptr).relu();
  h = conv1_.forward(resample(h, how), nullptr);
  h = bn2_.forward(h, condition, training, nullptr).relu();
  h = conv2_.forward(h, nullptr);
  return h.add(resample(conv_sc_ ? conv_sc_->forward(x, nullptr) : x, how));
}

DiscriminatorBlock::DiscriminatorBlock(const Options& o)
    : first_(o.first),
      downsample_(o.downsample),
      conv1_(three_by_three(o.in, o.out, o.spectral_norm)),
      conv2_(three_by_three(o.out, o.out, o.spectral_norm)) {
  if (o.group_norm && !o.first) add_child("norm1", *(norm1_ = group_norm(o.in)));
  add_child("conv1", conv1_);
  if (o.group_norm) add_child("norm2", *(norm2_ = group_norm(o.out)));
  add_child("conv2", conv2_);
  if (o.in == o.out && !o.downsample) return;
  conv_sc_ = pointwise(o.in, o.out, o.spectral_norm);
  add_child("conv_sc", *conv_sc_);
}

at::Tensor DiscriminatorBlock::forward(const at::Tensor& x, Tape* tape) {
  const auto pooled = [this](const at::Tensor& map) {
    return downsample_ ? average_pool2d(map, 2) : map;
  };
  at::Tensor h = x;
  if (norm1_) h = norm1_->forward(h, tape);
  h = conv1_.forward(first_ ? h : h.relu(), tape);
  if (norm2_) h = norm2_->forward(h, tape);
  h = pooled(conv2_.forward(h.relu(), tape));
  return h.add(conv_sc_ ? conv_sc_->forward(pooled(x), tape) : x);
}

}  // namespace sfumato
