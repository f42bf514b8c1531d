#include "models/dcgan/discriminator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "models/dcgan/sides.h"
#include "models/gan_inputs.h"

namespace sfumato {
namespace {

constexpr double kEps = 1e-5;
constexpr int64_t kMaxPlanes = 8192;

}  // namespace

DcganDiscriminator::DcganDiscriminator(GanConfig& config)
    : num_classes_(config.num_classes()),
      widths_(config.widths()),
      norm_(config.choice("norm", {"none", "group", "spectral"}, /*unlisted=*/"batch")),
      bias_(config.flag("bias", norm_ == "none" || norm_ == "spectral")),
      start_(*this, config.start()) {
  const int64_t side = config.sample_size();
  shape_ = {config.channels("in_channels"), side, side};
  const int64_t embed = config.whole("class_embed_size", 1, kMaxPlanes, widths_[0]);
  config.finish();
  if (norm_ == "group") require_groups(config, {widths_.begin() + 1, widths_.end()});
  if (num_classes_ > 0) {
    class_embed_size_ = embed;
    class_embedding_ = std::make_unique<Embedding>(num_classes_, embed);
    add_child("class_embedding", *class_embedding_);
  }
  const std::vector<int64_t> sides = dcgan_sides(config, side, widths_.size());
  for (std::size_t i = 0; i <= widths_.size(); ++i) {
    const bool last = i == widths_.size();
    Conv2d::Options o;
    o.in = i == 0 ? shape_.channels : widths_[i - 1] + (i == 1 ? class_embed_size_ : 0);
    o.out = last ? 1 : widths_[i];
    const int64_t kernel = last ? sides[0] : dcgan_kernel(sides[widths_.size() - i]);
    o.kernel = {kernel, kernel};
    if (!last) o.stride = {2, 2}, o.padding = {1, 1};
    o.bias = bias_;
    o.spectral_norm = norm_ == "spectral";
    // Places in a Sequential of convolution, norm (not after the first) and activation.
    const bool norms = norm_ == "group" || norm_ == "batch";
    const std::size_t place = norms && i > 0 ? 3 * i - 1 : 2 * i;
    add_child("main." + std::to_string(place), *convs_.emplace_back(std::make_unique<Conv2d>(o)));
    if (i > 0 && !last) add_norm("main." + std::to_string(place + 1), widths_[i]);
  }
  add_child("start", start_);
  name_parameters();
}

void DcganDiscriminator::add_norm(const std::string& name, int64_t channels) {
  if (norm_ == "group")
    add_child(name, *group_norms_.emplace_back(
                        std::make_unique<GroupNorm>(group_count(channels), channels, kEps)));
  if (norm_ == "batch")
    add_child(name, *batch_norms_.emplace_back(std::make_unique<BatchNorm2d>(channels)));
}

at::Tensor DcganDiscriminator::normalised(const at::Tensor& x, std::size_t i, Tape* tape) {
  if (!group_norms_.empty()) return group_norms_[i]->forward(x, tape);
  if (batch_norms_.empty()) return x;
  return batch_norms_[i]->forward(x, at::GradMode::is_enabled(), tape);
}

at::Tensor DcganDiscriminator::forward(const at::Tensor& images, const at::Tensor& labels,
                                       Tape* tape) {
  check_images(images, labels, shape_, num_classes_);
  at::Tensor x = leaky_relu(convs_[0]->forward(in_kernel_layout(images), tape));
  if (class_embedding_) {
    const at::Tensor rows = class_embedding_->forward(labels, tape);
    x = at::cat({x, rows.reshape({x.size(0), class_embed_size_, 1, 1})
                        .expand({x.size(0), class_embed_size_, x.size(2), x.size(3)})},
                1);
  }
  for (std::size_t i = 1; i < widths_.size(); ++i)
    x = leaky_relu(normalised(convs_[i]->forward(x, tape), i - 1, tape));
  return convs_.back()->forward(x, tape).reshape({images.size(0)});
}

nlohmann::ordered_json DcganDiscriminator::config() const {
  nlohmann::ordered_json json = {{"_class_name", kName},
                                 {"sample_size", shape_.height},
                                 {"in_channels", shape_.channels},
                                 {"block_out_channels", widths_},
                                 {"norm", norm_},
                                 {"bias", bias_},
                                 {"num_class_embeds", class_count(num_classes_)}};
  if (num_classes_ > 0) json["class_embed_size"] = class_embed_size_;
  json["initialization"] = start_.name();
  return json;
}

}  // namespace sfumato
