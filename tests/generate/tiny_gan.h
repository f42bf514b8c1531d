#pragma once
// Two small networks against each other.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "sfumato/generate/gan/generator.h"
#include "sfumato/nn/layers.h"

namespace sfumato::test {

inline constexpr ImageShape kTinyShape{1, 4, 4};
inline constexpr int64_t kTinyLatent = 3, kTinyClasses = 2, kTinyWidth = 8;

/// With a running mean, as batch normalisation has one.
struct TinyGenerator : GeneratorNetwork {
  Linear hidden{kTinyLatent, kTinyWidth};
  Embedding classes;
  Linear image;
  at::Tensor mean = at::zeros({kTinyWidth});
  ImageShape shape;
  int64_t num_classes_;
  bool broken = false;  ///< in training: images that are no numbers

  explicit TinyGenerator(const ImageShape& images = kTinyShape, int64_t number = kTinyClasses)
      : classes(number, kTinyWidth),
        image(kTinyWidth, images.elements()),
        shape(images),
        num_classes_(number) {
    add_child("hidden", hidden);
    add_child("classes", classes);
    add_child("image", image);
    add_buffer("mean", mean);
    name_parameters();
  }
  at::Tensor forward(const at::Tensor& latent, const at::Tensor& labels, bool training) override {
    at::Tensor h = hidden.forward(latent, nullptr) + classes.forward(labels, nullptr);
    if (training) {
      const at::NoGradGuard no_grad;
      mean.mul_(0.9).add_(h.mean(0), 0.1);
    }
    h = h - (training ? h.mean(0) : mean);
    at::Tensor images = image.forward(h.tanh(), nullptr).tanh();
    if (training && broken) images = images * std::numeric_limits<float>::quiet_NaN();
    return images.view({-1, shape.channels, shape.height, shape.width});
  }
  int64_t latent_size() const override { return kTinyLatent; }
  ImageShape image_shape() const override { return shape; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override { return {{"_class_name", "TinyGenerator"}}; }
};

struct TinyDiscriminator : DiscriminatorNetwork {
  Linear hidden;
  Embedding classes;
  GroupNorm norm{2, kTinyWidth, 1e-5};
  Linear score{kTinyWidth, 1};
  ImageShape shape;
  int64_t num_classes_;

  explicit TinyDiscriminator(const ImageShape& images = kTinyShape, int64_t number = kTinyClasses)
      : hidden(images.elements(), kTinyWidth),
        classes(number, kTinyWidth),
        shape(images),
        num_classes_(number) {
    add_child("hidden", hidden);
    add_child("classes", classes);
    add_child("norm", norm);
    add_child("score", score);
    name_parameters();
  }
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) override {
    const at::Tensor h = hidden.forward(images.flatten(1), tape) + classes.forward(labels, tape);
    return score.forward(norm.forward(h.unsqueeze(2), tape).flatten(1).tanh(), tape).flatten();
  }
  ImageShape image_shape() const override { return shape; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override { return {{"_class_name", "TinyDiscriminator"}}; }
  const Parameter* class_table() const override { return &classes.weight; }
};

inline std::unique_ptr<TinyGenerator> tiny_generator(uint64_t seed = 1) {
  auto network = std::make_unique<TinyGenerator>();
  network->initialise(seed);
  return network;
}
inline std::unique_ptr<TinyDiscriminator> tiny_discriminator(uint64_t seed = 2) {
  auto network = std::make_unique<TinyDiscriminator>();
  network->initialise(seed);
  return network;
}

}  // namespace sfumato::test
