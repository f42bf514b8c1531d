#include "models/resnet_gan/generator.h"

#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <algorithm>

#include "models/gan_inputs.h"

namespace sfumato {
namespace {

constexpr int64_t kMaxLatent = 65536, kUsualClassEmbedding = 128, kSmallestSide = 4;

}  // namespace

int64_t resnet_halvings(int64_t side, std::size_t blocks) {
  int64_t halvings = 0;
  for (; side % 2 == 0 && side > kSmallestSide && halvings < static_cast<int64_t>(blocks);
       side /= 2)
    ++halvings;
  return halvings;
}

int64_t read_resampled_blocks(GanConfig& config, const std::string& key, int64_t side,
                              std::size_t blocks) {
  const int64_t count =
      config.whole(key, 0, static_cast<int64_t>(blocks), resnet_halvings(side, blocks));
  if (count >= 62 || side % (int64_t{1} << count) != 0)
    config.fail(key, fmt::format("{} of them; {} pixels are not halved so often", count, side));
  return count;
}

void ResnetGenerator::read(GanConfig& config) {
  const int64_t side = config.sample_size(), blocks = static_cast<int64_t>(widths_.size());
  shape_ = {config.channels("out_channels"), side, side};
  upsamples_ = read_resampled_blocks(config, "upsample_blocks", side, widths_.size());
  first_side_ = side >> upsamples_;
  attention_after_ = config.list("attention_after", blocks, widths_.size());
  const int64_t embed = config.whole("class_embed_size", 1, kMaxLatent, kUsualClassEmbedding);
  if (num_classes_ > 0) class_embed_size_ = embed;
  config.finish();
  if (latent_size_ % (blocks + 1) != 0)
    config.fail("latent_size", fmt::format("{} values cannot be dealt out in equal chunks to {} "
                                           "blocks and the linear layer",
                                           latent_size_, blocks));
  chunk_ = latent_size_ / (blocks + 1);
  for (const int64_t after : attention_after_) {
    if (widths_[static_cast<std::size_t>(after - 1)] % 8 != 0)
      config.fail("attention_after", fmt::format("block {}: attention needs a multiple of 8 "
                                                 "channels",
                                                 after));
    if ((first_side_ << std::min(after, upsamples_)) % 2 != 0)
      config.fail("attention_after",
                  fmt::format("block {}: attention needs maps of even side", after));
  }
}

ResnetGenerator::ResnetGenerator(GanConfig& config)
    : latent_size_(config.whole("latent_size", 1, kMaxLatent)),
      num_classes_(config.num_classes()),
      widths_(config.widths()),
      start_(*this, config.start()) {
  read(config);
  if (num_classes_ > 0) {
    class_embedding_ = std::make_unique<Embedding>(num_classes_, class_embed_size_);
    add_child("class_embedding", *class_embedding_);
  }
  linear_ = std::make_unique<Linear>(chunk_, widths_[0] * first_side_ * first_side_);
  add_child("linear", *linear_);
  attentions_.resize(widths_.size());
  for (std::size_t i = 0; i < widths_.size(); ++i) {
    const int64_t number = static_cast<int64_t>(i) + 1;
    blocks_.push_back(std::make_unique<GeneratorBlock>(
        widths_[i == 0 ? 0 : i - 1], widths_[i], class_embed_size_ + chunk_, number <= upsamples_));
    add_child("blocks." + std::to_string(i), *blocks_[i]);
    if (std::find(attention_after_.begin(), attention_after_.end(), number) ==
        attention_after_.end())
      continue;
    attentions_[i] = std::make_unique<SelfAttention2d>(widths_[i]);
    add_child("attentions." + std::to_string(i), *attentions_[i]);
  }
  norm_out_ = std::make_unique<BatchNorm2d>(widths_.back());
  add_child("norm_out", *norm_out_);
  conv_out_ = std::make_unique<Conv2d>(
      Conv2d::Options{.in = widths_.back(), .out = shape_.channels, .padding = {1, 1}});
  add_child("conv_out", *conv_out_);
  add_child("start", start_);
  name_parameters();
}

at::Tensor ResnetGenerator::forward(const at::Tensor& latent, const at::Tensor& labels,
                                    bool training) {
  check_latent(latent, labels, latent_size_, num_classes_);
  at::Tensor shared;
  if (class_embedding_) shared = class_embedding_->forward(labels, nullptr);
  const auto chunk = [&](std::size_t i) {
    return latent.narrow(1, static_cast<int64_t>(i) * chunk_, chunk_);
  };
  at::Tensor x = linear_->forward(chunk(0), nullptr);
  x = in_kernel_layout(x.view({x.size(0), widths_[0], first_side_, first_side_}));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const at::Tensor own = chunk(i + 1);
    x = blocks_[i]->forward(x, shared.defined() ? at::cat({shared, own}, 1) : own, training);
    if (attentions_[i]) x = attentions_[i]->forward(x);
  }
  return conv_out_->forward(norm_out_->forward(x, training, nullptr).relu(), nullptr).tanh();
}

nlohmann::ordered_json ResnetGenerator::config() const {
  nlohmann::ordered_json json = {{"_class_name", kName},
                                 {"sample_size", shape_.height},
                                 {"out_channels", shape_.channels},
                                 {"latent_size", latent_size_},
                                 {"block_out_channels", widths_},
                                 {"upsample_blocks", upsamples_},
                                 {"attention_after", attention_after_},
                                 {"num_class_embeds", class_count(num_classes_)}};
  if (num_classes_ > 0) json["class_embed_size"] = class_embed_size_;
  json["initialization"] = start_.name();
  return json;
}

}  // namespace sfumato
