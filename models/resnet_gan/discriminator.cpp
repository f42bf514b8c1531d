#include "models/resnet_gan/discriminator.h"

#include "models/gan_inputs.h"
#include "models/resnet_gan/generator.h"

namespace sfumato {

ResnetDiscriminator::ResnetDiscriminator(GanConfig& config)
    : num_classes_(config.num_classes()),
      widths_(config.widths()),
      norm_(config.choice("norm", {"group", "none", "spectral"})),
      score_(widths_.back(), num_classes_),
      start_(*this, config.start()) {
  const int64_t side = config.sample_size();
  shape_ = {config.channels("in_channels"), side, side};
  downsamples_ = read_resampled_blocks(config, "downsample_blocks", side, widths_.size());
  config.finish();
  if (norm_ == "group") require_groups(config, widths_);
  for (std::size_t i = 0; i < widths_.size(); ++i) {
    const bool first = i == 0;
    blocks_.push_back(std::make_unique<DiscriminatorBlock>(
        DiscriminatorBlock::Options{.in = first ? shape_.channels : widths_[i - 1],
                                    .out = widths_[i],
                                    .first = first,
                                    .downsample = static_cast<int64_t>(i) < downsamples_,
                                    .group_norm = norm_ == "group",
                                    .spectral_norm = norm_ == "spectral"}));
    add_child("blocks." + std::to_string(i), *blocks_[i]);
  }
  add_child("score", score_);
  add_child("start", start_);
  name_parameters();
}

at::Tensor ResnetDiscriminator::forward(const at::Tensor& images, const at::Tensor& labels,
                                        Tape* tape) {
  check_images(images, labels, shape_, num_classes_);
  at::Tensor x = in_kernel_layout(images);
  for (const std::unique_ptr<DiscriminatorBlock>& block : blocks_) x = block->forward(x, tape);
  return score_.forward(x.relu().sum({2, 3}), labels, tape);
}

nlohmann::ordered_json ResnetDiscriminator::config() const {
  return {{"_class_name", kName},
          {"sample_size", shape_.height},
          {"in_channels", shape_.channels},
          {"block_out_channels", widths_},
          {"downsample_blocks", downsamples_},
          {"norm", norm_},
          {"num_class_embeds", class_count(num_classes_)},
          {"initialization", start_.name()}};
}

}  // namespace sfumato
