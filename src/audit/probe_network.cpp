#include "sfumato/audit/probe_network.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/seeded_streams.h"
#include "sfumato/nn/layers.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/setup.h"

namespace sfumato {
namespace {

constexpr int64_t kDraws = 4, kChannels = 2, kSide = 8, kClasses = 3, kWidth = 64;
constexpr int64_t kTokens = 16, kPixels = kChannels * kSide * kSide;

const SeededStreams& streams() {
  static const SeededStreams instance("audit probes", 0);
  return instance;
}

at::Tensor normals(at::IntArrayRef shape, uint32_t stream, uint64_t id) {
  const at::Tensor values = at::empty(shape);
  streams().normals(values.mutable_data_ptr<float>(), values.numel(), stream, id);
  return values;
}

at::Tensor scale_of(std::span<const ProbeExample> examples) {
  const at::Tensor scales = at::empty({static_cast<int64_t>(examples.size())});
  for (size_t i = 0; i < examples.size(); ++i)
    scales.mutable_data_ptr<float>()[i] = static_cast<float>(examples[i].scale);
  return scales;
}

std::function<ProbeBatch(int64_t, int64_t)> parts_of(ProbeNetwork& network,
                                                     std::span<const ProbeExample> examples) {
  return [&network, all = std::vector<ProbeExample>(examples.begin(), examples.end())](
             int64_t first, int64_t count) {
    return network.batch({all.data() + first, static_cast<size_t>(count)});
  };
}

/// The definitions of each kind of clipping, in float64.
double factor(double norm, double bound, const ClipOptions& clip) {
  if (clip.clipping == Clipping::kAutomatic) return bound / (norm + clip.automatic_gamma);
  return norm > bound ? bound / norm : 1.0;
}

}  // namespace

double gradient_dot(std::span<const at::Tensor> a, std::span<const at::Tensor> b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j)
    sum += at::mul(a[j].to(at::kDouble), b[j].to(at::kDouble)).sum().item<double>();
  return sum;
}

double gradient_norm(std::span<const at::Tensor> gradient) {
  return std::sqrt(gradient_dot(gradient, gradient));
}

double gradient_distance(std::span<const at::Tensor> a, std::span<const at::Tensor> b) {
  double squared = 0;
  for (size_t j = 0; j < a.size(); ++j)
    squared += a[j].to(at::kDouble).sub(b[j].to(at::kDouble)).square().sum().item<double>();
  return std::sqrt(squared);
}

std::vector<at::Tensor> ProbeNetwork::plain_gradient(const ProbeExample& example) {
  const ProbeBatch alone = batch({&example, 1});
  for (Parameter* parameter : trainable()) parameter->value.mutable_grad() = at::Tensor{};
  alone.losses(nullptr).sum().backward();
  std::vector<at::Tensor> gradient;
  for (Parameter* parameter : trainable()) {
    at::Tensor& grad = parameter->value.mutable_grad();
    gradient.push_back(grad.defined() ? grad.to(at::kDouble)
                                      : at::zeros(parameter->value.sizes(), at::kDouble));
    grad = at::Tensor{};
  }
  return gradient;
}

std::vector<at::Tensor> ProbeNetwork::clipped_gradient(const ProbeExample& example,
                                                       const ClipOptions& clip) {
  std::vector<at::Tensor> gradient = plain_gradient(example);
  const double norm = gradient_norm(gradient);
  const bool per_layer = clip.clipping == Clipping::kPerLayer;
  const double share = clip.clip_norm_l2 / std::sqrt(static_cast<double>(gradient.size()));
  for (at::Tensor& tensor : gradient) {
    if (!std::isfinite(norm)) {
      tensor = at::zeros_like(tensor);
    } else if (per_layer) {
      tensor = tensor.mul(factor(gradient_norm({&tensor, 1}), share, clip));
    } else {
      tensor = tensor.mul(factor(norm, clip.clip_norm_l2, clip));
    }
  }
  return gradient;
}

ProbeExample ProbeNetwork::with_norm(uint64_t key, double norm) {
  if (!scales_gradients()) throw UsageError("this network's gradients cannot be scaled");
  return {key, norm / gradient_norm(plain_gradient({key, 1}))};
}

// Layers ------------------------------------------------------------------------------------------

struct LayerProbe::Network : Module {
  Conv2d conv1{{.in = kChannels, .out = 6, .padding = {1, 1}}};
  GroupNorm norm{2, 6, 1e-5};
  Conv2d conv2{{.in = 6, .out = kWidth, .stride = {2, 2}, .padding = {1, 1}}};
  Embedding classes{kClasses, kWidth};
  PlainParameter positions{{kTokens, kWidth}};
  LayerNorm layer_norm{kWidth, 1e-5};
  Linear linear{kWidth, kWidth};
  std::vector<Parameter*> all;

  Network() {
    add_child("conv1", conv1);
    add_child("norm", norm);
    add_child("conv2", conv2);
    add_child("classes", classes);
    add_child("positions", positions);
    add_child("layer_norm", layer_norm);
    add_child("linear", linear);
    name_parameters();
    all = parameters();
    const at::NoGradGuard no_grad;
    for (size_t j = 0; j < all.size(); ++j)
      all[j]->value.copy_(normals(all[j]->value.sizes(), 0, j).mul(0.5));
  }

  at::Tensor forward(const at::Tensor& x, const at::Tensor& labels, Tape* tape) {
    const at::Tensor h = conv2.forward(norm.forward(conv1.forward(x, tape), tape).tanh(), tape);
    const at::Tensor tokens = h.flatten(2)
                                  .transpose(1, 2)
                                  .add(classes.forward(labels, tape).unsqueeze(1))
                                  .add(positions.forward(x.size(0), tape));
    return linear.forward(layer_norm.forward(tokens, tape), tape);
  }
};

LayerProbe::LayerProbe(const ClipOptions& clip, std::shared_ptr<Communicator> ranks)
    : network_(std::make_unique<Network>()),
      step_(network_->parameters(), clip, std::move(ranks)),
      alone_(network_->parameters(), clip) {}

LayerProbe::~LayerProbe() = default;

const std::vector<Parameter*>& LayerProbe::trainable() { return network_->all; }

GradientSource LayerProbe::source() { return step_.source(); }
GradientSource LayerProbe::alone() { return alone_.source(); }

ProbeBatch LayerProbe::batch(std::span<const ProbeExample> examples) {
  const auto count = static_cast<int64_t>(examples.size());
  const int64_t n = count * kDraws;
  const at::Tensor x = at::empty({n, kChannels, kSide, kSide});
  const at::Tensor coefficients = at::empty({n, kTokens, kWidth});
  const at::Tensor labels = at::empty({n}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t key = examples[static_cast<size_t>(i)].key;
    streams().normals(x.mutable_data_ptr<float>() + i * kDraws * kPixels, kDraws * kPixels, 1, key);
    streams().normals(coefficients.mutable_data_ptr<float>() + i * kDraws * kTokens * kWidth,
                      kDraws * kTokens * kWidth, 2, key);
    for (int64_t k = 0; k < kDraws; ++k)
      labels.mutable_data_ptr<int64_t>()[i * kDraws + k] =
          static_cast<int64_t>((key + static_cast<uint64_t>(k)) % kClasses);
  }
  const at::Tensor scale = scale_of(examples);
  const auto draw_losses = [this, x, coefficients, labels, scale, count](Tape* tape) {
    const at::Tensor out = network_->forward(x, labels, tape);
    return at::mul(out, coefficients)
        .add(out.square(), 0.1)
        .reshape({count, kDraws, -1})
        .sum({2})
        .mul(scale.unsqueeze(1))
        .reshape({-1});
  };
  ProbeBatch result;
  result.examples = count;
  result.draws = kDraws;
  result.draw_losses = draw_losses;
  result.losses = [draw_losses, count](Tape* tape) {
    return draw_losses(tape).reshape({count, kDraws}).mean({1});
  };
  result.part = parts_of(*this, examples);
  return result;
}

// A configuration ---------------------------------------------------------------------------------

namespace {

/// The training step's classes and rules, on the CPU whatever performance.device is.
StepOptions on_the_cpu(const Config& config, std::shared_ptr<Communicator> ranks) {
  return {
      .policy = config.performance.layer_algorithm(), .tuner = nullptr, .ranks = std::move(ranks)};
}

}  // namespace

struct ConfiguredProbe::Parts {
  Parts(const Config& config, const MechanismPlan& plan, std::shared_ptr<Communicator> with)
      : ranks(std::move(with)),
        generator(make_generator(config, Placement{})),
        step(generator->objective(), clip_options(plan), on_the_cpu(config, ranks)),
        alone(generator->objective(), clip_options(plan), on_the_cpu(config, nullptr)) {}

  std::shared_ptr<Communicator> ranks;
  std::unique_ptr<Generator> generator;
  GradientStep step, alone;
};

ConfiguredProbe::ConfiguredProbe(const Config& config, const MechanismPlan& plan,
                                 std::shared_ptr<Communicator> ranks)
    : parts_(std::make_unique<Parts>(config, plan, std::move(ranks))) {
  if (config.performance.device() == DeviceChoice::kCuda)
    log_warning(
        "audits compute on the CPU in fp32; performance.device is for training and sampling");
  verify_before_training(*parts_->generator, parts_->step);
}

ConfiguredProbe::~ConfiguredProbe() = default;

const std::vector<Parameter*>& ConfiguredProbe::trainable() {
  return parts_->step.engine().trainable();
}

GradientSource ConfiguredProbe::source() { return gradient_source(parts_->step, parts_->ranks); }
GradientSource ConfiguredProbe::alone() { return gradient_source(parts_->alone); }

ProbeBatch ConfiguredProbe::batch(std::span<const ProbeExample> examples) {
  std::vector<uint64_t> keys;
  for (const ProbeExample& example : examples) keys.push_back(example.key);
  ProbeBatch result;
  result.examples = static_cast<int64_t>(examples.size());
  const Objective& objective = parts_->step.objective();
  result.draws = objective.draws();
  const ExampleBatch images = synthetic_examples(objective.image_shape(), keys);
  images.images.mul_(scale_of(examples).view({-1, 1, 1, 1}));
  const TrainingBatch drawn = objective.draw(images, 0, 0);
  result.images = drawn;
  result.losses = [&objective, drawn](Tape* tape) {
    return objective.losses(objective.place(drawn), tape);
  };
  result.part = parts_of(*this, examples);
  return result;
}

}  // namespace sfumato
