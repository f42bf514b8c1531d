#include "models/dcgan/generator.h"

#include <ATen/ops/cat.h>

#include "models/dcgan/sides.h"
#include "models/gan_inputs.h"

namespace sfumato {
namespace {

constexpr int64_t kMaxLatent = 65536;

}  // namespace

DcganGenerator::DcganGenerator(GanConfig& config)
    : latent_size_(config.whole("latent_size", 1, kMaxLatent, 100)),
      num_classes_(config.num_classes()),
      widths_(config.widths()),
      norm_(config.choice("norm", {"batch", "none"})),
      bias_(config.flag("bias", false)),
      start_(*this, config.start()) {
  const int64_t side = config.sample_size();
  shape_ = {config.channels("out_channels"), side, side};
  const int64_t embed = config.whole("class_embed_size", 1, kMaxLatent, latent_size_);
  config.finish();
  if (num_classes_ > 0) {
    class_embed_size_ = embed;
    class_embedding_ = std::make_unique<Embedding>(num_classes_, embed);
    add_child("class_embedding", *class_embedding_);
  }
  const std::vector<int64_t> sides = dcgan_sides(config, side, widths_.size());
  const bool norms = norm_ == "batch";
  for (std::size_t i = 0; i < sides.size(); ++i) {
    ConvTranspose2d::Options o;
    o.in = i == 0 ? latent_size_ + class_embed_size_ : widths_[i - 1];
    o.out = i < widths_.size() ? widths_[i] : shape_.channels;
    const int64_t kernel = i == 0 ? sides[0] : dcgan_kernel(sides[i]);
    o.kernel = {kernel, kernel};
    if (i == 0) o.stride = {1, 1}, o.padding = {0, 0};
    o.bias = bias_;
    // Places in a Sequential of convolution, norm and activation.
    const std::size_t place = i * (norms ? 3 : 2);
    add_child("main." + std::to_string(place),
              *convs_.emplace_back(std::make_unique<ConvTranspose2d>(o)));
    if (norms && i < widths_.size())
      add_child("main." + std::to_string(place + 1),
                *norms_.emplace_back(std::make_unique<BatchNorm2d>(widths_[i])));
  }
  add_child("start", start_);
  name_parameters();
}

at::Tensor DcganGenerator::forward(const at::Tensor& latent, const at::Tensor& labels,
                                   bool training) {
  check_latent(latent, labels, latent_size_, num_classes_);
  at::Tensor x = latent;
  if (class_embedding_) x = at::cat({x, class_embedding_->forward(labels, nullptr)}, 1);
  x = in_kernel_layout(x.reshape({x.size(0), x.size(1), 1, 1}));
  for (std::size_t i = 0; i < widths_.size(); ++i) {
    x = convs_[i]->forward(x, nullptr);
    if (!norms_.empty()) x = norms_[i]->forward(x, training, nullptr);
    x = x.relu();
  }
  return convs_.back()->forward(x, nullptr).tanh();
}

nlohmann::ordered_json DcganGenerator::config() const {
  nlohmann::ordered_json json = {{"_class_name", kName},
                                 {"sample_size", shape_.height},
                                 {"out_channels", shape_.channels},
                                 {"latent_size", latent_size_},
                                 {"block_out_channels", widths_},
                                 {"norm", norm_},
                                 {"bias", bias_},
                                 {"num_class_embeds", class_count(num_classes_)}};
  if (num_classes_ > 0) json["class_embed_size"] = class_embed_size_;
  json["initialization"] = start_.name();
  return json;
}

}  // namespace sfumato
