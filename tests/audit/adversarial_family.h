#pragma once
// A second family of generators: two small networks against each other, in this file and one row of
// the table.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/file.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/seeded_streams.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/io/json_file.h"
#include "sfumato/nn/layers.h"

namespace sfumato::test {

inline constexpr int64_t kNoise = 6, kWidth = 12, kPublicBatch = 16;

inline at::Tensor normals(const SeededStreams& streams, at::IntArrayRef shape, uint64_t id) {
  const at::Tensor values = at::empty(shape);
  streams.normals(values.mutable_data_ptr<float>(), values.numel(), 0, id);
  return values;
}

/// Images and their classes -> a score each.
struct Critic : Module {
  Linear hidden;
  Embedding classes;
  Linear score{kWidth, 1};
  Critic(const ImageShape& shape, int64_t num_classes)
      : hidden(shape.elements(), kWidth), classes(num_classes, kWidth) {
    add_child("hidden", hidden);
    add_child("classes", classes);
    add_child("score", score);
    name_parameters();
  }
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) {
    const at::Tensor h = hidden.forward(images.flatten(1), tape).add(classes.forward(labels, tape));
    return score.forward(h.tanh(), tape).flatten();
  }
};

/// Noise and classes -> images in [-1, 1].
struct Painter : Module {
  ImageShape shape;
  Linear hidden{kNoise, kWidth};
  Embedding classes;
  Linear image;
  Painter(const ImageShape& images, int64_t num_classes)
      : shape(images), classes(num_classes, kWidth), image(kWidth, images.elements()) {
    add_child("hidden", hidden);
    add_child("classes", classes);
    add_child("image", image);
    name_parameters();
  }
  at::Tensor forward(const at::Tensor& noise, const at::Tensor& labels) {
    const at::Tensor h = hidden.forward(noise, nullptr).add(classes.forward(labels, nullptr));
    return image.forward(h.tanh(), nullptr)
        .tanh()
        .view({-1, shape.channels, shape.height, shape.width});
  }
};

/// The critic's hinge loss: a record's image and a fake one of its class are its two draws.
class CriticObjective : public Objective {
 public:
  CriticObjective(Critic& critic, Painter& painter) : critic_(critic), painter_(painter) {}

  ImageShape image_shape() const override { return painter_.shape; }
  int64_t draws() const override { return 2; }
  std::vector<Parameter*> parameters() override { return critic_.parameters(); }

  TrainingBatch draw(const ExampleBatch& examples, uint64_t seed, uint64_t step) const override {
    const auto& [c, h, w] = examples.shape;
    at::Tensor images = examples.images;
    if (!examples.pixels.empty()) {
      images = at::zeros({examples.size(), h, w, c});
      for (int64_t b = 0; b < examples.size(); ++b)
        if (const auto pixels = examples.pixels[static_cast<size_t>(b)]; !pixels.empty())
          convert_augmented(pixels, h, w, c, {},
                            images.mutable_data_ptr<float>() + b * examples.shape.elements());
      images = images.permute({0, 3, 1, 2}).contiguous();
    }
    const SeededStreams streams("fakes of the critic", seed, step);
    std::vector<at::Tensor> noise;
    for (const uint64_t key : examples.keys) noise.push_back(normals(streams, {kNoise}, key));
    return {{images, at::stack(noise), examples.labels}, examples.mask, examples.size()};
  }

  TrainingBatch place(const TrainingBatch& drawn) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor &real = drawn.inputs[0], &labels = drawn.inputs[2];
    const at::Tensor fake = painter_.forward(drawn.inputs[1], labels);
    return {{at::stack({real, fake}, 1).flatten(0, 1), at::stack({labels, labels}, 1).flatten()},
            drawn.mask,
            drawn.examples};
  }

  at::Tensor losses(const TrainingBatch& placed, Tape* tape) const override {
    const at::Tensor scores =
        critic_.forward(placed.inputs[0], placed.inputs[1], tape).view({-1, 2});
    return at::relu(1 - scores.select(1, 0)) + at::relu(1 + scores.select(1, 1));
  }

 private:
  Critic& critic_;
  Painter& painter_;
};

class PainterSampler : public ImageSampler {
 public:
  PainterSampler(Painter& painter, uint64_t seed) : painter_(painter), seed_(seed) {}
  at::Tensor draw(std::span<const ImageId> images) const override {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> noise;
    const at::Tensor labels = at::empty({std::ssize(images)}, at::kLong);
    for (size_t i = 0; i < images.size(); ++i) {
      const SeededStreams streams("images of the painter", seed_,
                                  static_cast<uint64_t>(images[i].label));
      noise.push_back(normals(streams, {kNoise}, static_cast<uint64_t>(images[i].index)));
      labels[static_cast<int64_t>(i)] = images[i].label;
    }
    return painter_.forward(at::stack(noise), labels)
        .add(1)
        .mul(127.5)
        .round()
        .to(at::kByte)
        .permute({0, 2, 3, 1})
        .contiguous();
  }
  nlohmann::ordered_json settings() const override { return {{"family", "adversarial"}}; }

 private:
  Painter& painter_;
  uint64_t seed_;
};

class AdversarialGenerator : public Generator {
 public:
  AdversarialGenerator(const ImageShape& shape, int64_t num_classes, uint64_t seed,
                       std::filesystem::path folder = {})
      : num_classes_(num_classes),
        seed_(seed),
        folder_(std::move(folder)),
        painter_(shape, num_classes),
        critic_(shape, num_classes) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    painter_.initialise(random);
    critic_.initialise(random);
    std::vector<double> rates(painter_.parameters().size(), 1.0);
    optimizer_.emplace(painter_.parameters(), rates, OptimizerOptions{});
    average_.emplace(painter_.parameters(), 0.9, /*warmup=*/true);
  }

  Painter& painter() { return painter_; }
  Critic& critic() { return critic_; }

  Objective& objective() override { return objective_; }
  std::vector<double> rate_scales(const Config&) const override {
    return std::vector<double>(5, 1.0);  // the critic's tensors
  }
  std::string misfit(const ImageShape& images, const Config&) const override {
    return images.elements() == painter_.shape.elements() ? "" : "images are of another size";
  }
  Ema* average() override { return nullptr; }  // the critic is not averaged

  /// One step of the painter against the critic as it was released: no record is in reach.
  void after_release(int64_t step) override {
    const SeededStreams streams("steps of the painter", seed_, static_cast<uint64_t>(step));
    const at::Tensor labels = at::arange(kPublicBatch).remainder(num_classes_);
    const at::Tensor fakes = painter_.forward(normals(streams, {kPublicBatch, kNoise}, 0), labels);
    std::vector<at::Tensor> weights, gradients;
    for (Parameter* parameter : painter_.parameters()) weights.push_back(parameter->value);
    critic_.forward(fakes, labels, nullptr)
        .mean()
        .neg()
        .backward({}, std::nullopt, false, at::TensorList(weights));
    for (at::Tensor& weight : weights) {
      gradients.push_back(weight.grad());
      weight.mutable_grad() = at::Tensor{};
    }
    optimizer_->step(PublicGradient(std::move(gradients), 1), 0.02, &*average_);
  }
  void restart_average() override { average_->restart(); }

  NamedGroups state() const override {
    return {{"model", named_values(painter_.parameters())},
            {"ema", average_->state()},
            {"critic", named_values(critic_.parameters())},
            {"painter_optimizer", optimizer_->state()}};
  }
  void load_state(const NamedGroups& state) override {
    for (const auto& [name, tensors] : this->state())
      if (name == "model" || name == "critic")
        copy_named_tensors(group_of(state, name), tensors, name);
    average_->load_state(group_of(state, "ema"));
    optimizer_->load_state(group_of(state, "painter_optimizer"));
  }

  NamedTensors released_weights() const override {
    NamedTensors weights = named_values(painter_.parameters());
    for (size_t i = 0; i < weights.size(); ++i) weights[i].second = average_->values()[i];
    return weights;
  }
  SavedGenerator save(const std::filesystem::path& release, const ImageShape& images,
                      const Config&) const override {
    make_folder(release / "painter");
    write_json_atomic(release / "painter/config.json", nlohmann::json{{"channels", images.channels},
                                                                      {"side", images.height},
                                                                      {"classes", num_classes_}});
    write_tensor_file(release / "painter/diffusion_pytorch_model.safetensors", released_weights());
    write_file_atomic(release / "README.md", "Draws in one pass.\n");
    return {"painter", {"README.md", "painter/config.json"}, /*by_discriminator=*/true};
  }

  GeneratorFacts facts() const override {
    return {painter_.shape.channels,
            {{painter_.shape.height, painter_.shape.width}},
            num_classes_,
            folder_};
  }
  std::unique_ptr<ImageSampler> sampler(const Config& config, const SampledImages&) override {
    return std::make_unique<PainterSampler>(painter_, static_cast<uint64_t>(config.sample.seed()));
  }

 private:
  int64_t num_classes_;
  uint64_t seed_;
  std::filesystem::path folder_;
  mutable Painter painter_;
  mutable Critic critic_;
  CriticObjective objective_{critic_, painter_};
  std::optional<Optimizer> optimizer_;
  std::optional<Ema> average_;
};

inline PretrainedWeights open_weights(const std::filesystem::path& folder) {
  const SafetensorsFile file(folder / "painter/diffusion_pytorch_model.safetensors");
  PretrainedWeights loaded{{}, {folder / "painter"}};
  for (const std::string& name : file.names())
    loaded.weights.emplace_back(name, to_tensor(file.info(name)));
  return loaded;
}

inline std::unique_ptr<Generator> open_painter(const std::filesystem::path& folder, Config&,
                                               const Placement&) {
  const nlohmann::json config = read_json(folder / "painter/config.json");
  const int64_t side = config.at("side").get<int64_t>();
  auto generator = std::make_unique<AdversarialGenerator>(
      ImageShape{config.at("channels").get<int64_t>(), side, side},
      config.at("classes").get<int64_t>(), 0, folder / "painter");
  const SafetensorsFile file(folder / "painter/diffusion_pytorch_model.safetensors");
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : generator->painter().parameters())
    parameter->value.copy_(to_tensor(file.info(parameter->name)));
  return generator;
}

/// From model.init only the painter: a critic is always a new one.
inline std::unique_ptr<Generator> make_painter(const Config& config, const Placement&) {
  const int64_t side = config.data.image_size();
  auto generator = std::make_unique<AdversarialGenerator>(
      ImageShape{config.data.channels(), side, side}, config.data.num_classes(),
      static_cast<uint64_t>(config.run.seed()));
  if (config.model.init().empty()) return generator;
  const NamedTensors weights = open_weights(config.model.init()).weights;
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : generator->painter().parameters())
    for (const auto& [name, value] : weights)
      if (name == parameter->name) parameter->value.copy_(value);
  generator->restart_average();
  return generator;
}

inline const bool kInTheTable = [] {
  add_family({.name = "adversarial",
              .adopt_settings = [](Config&, bool) {},
              .adopt_image_settings = [](Config&) {},
              .make = make_painter,
              .load_weights = open_weights,
              .layout = "painter/config.json",
              .holds =
                  [](const std::filesystem::path& folder) {
                    return std::filesystem::exists(folder / "painter/config.json");
                  },
              .open = open_painter});
  return true;
}();

}  // namespace sfumato::test
