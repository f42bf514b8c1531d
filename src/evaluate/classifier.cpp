#include "sfumato/evaluate/classifier.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "evaluate/classifier_network.h"
#include "evaluate/tensor_average.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int64_t kLargestSide = 32;
constexpr int64_t kPredicted = 500;  // images at once

/// uint8 [n, H, W, C] -> float32 [n, C, h, w] in [-1, 1], on the device.
at::Tensor inputs_of(const at::Tensor& images, const c10::Device& device) {
  at::Tensor x = (images.to(device).to(at::kFloat) / 127.5 - 1).permute({0, 3, 1, 2}).contiguous();
  const int64_t height = std::min(x.size(2), kLargestSide),
                width = std::min(x.size(3), kLargestSide);
  if (height == x.size(2) && width == x.size(3)) return x;
  return at::adaptive_avg_pool2d(x, {height, width});
}

/// The recipe, where the options say nothing else.
ClassifierRecipe recipe_of(const ClassifierOptions& options) {
  ClassifierRecipe recipe = classifier_row(options.kind).recipe();
  if (options.epochs > 0) recipe.epochs = options.epochs;
  if (options.batch > 0) recipe.batch = options.batch;
  if (options.learning_rate > 0) recipe.learning_rate = options.learning_rate;
  return recipe;
}

/// Adam as PyTorch has it.
class PlainAdam {
 public:
  explicit PlainAdam(Tensors weights) : weights_(std::move(weights)) {
    for (const at::Tensor& weight : weights_)
      first_.push_back(at::zeros_like(weight).detach()),
          second_.push_back(at::zeros_like(weight).detach());
  }
  void step(double rate) {
    const at::NoGradGuard no_grad;
    ++steps_;
    const double of_first = 1 - std::pow(0.9, steps_), of_second = 1 - std::pow(0.999, steps_);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      at::Tensor gradient = weights_[i].grad();
      first_[i].mul_(0.9).add_(gradient, 0.1);
      second_[i].mul_(0.999).addcmul_(gradient, gradient, 0.001);
      const at::Tensor scale = (second_[i] / of_second).sqrt_().add_(1e-8);
      weights_[i].addcdiv_(first_[i], scale, -rate / of_first);
      gradient.zero_();
    }
  }

 private:
  Tensors weights_;
  double steps_ = 0;
  Tensors first_, second_;
};

Tensors all_tensors(const ClassifierNetwork& network) {
  Tensors all;
  for (const auto& [name, tensor] : network.parameters()) all.push_back(tensor);
  for (const auto& [name, tensor] : network.buffers()) all.push_back(tensor);
  return all;
}

void check_trainable(const LabelledImages& images, int64_t least_side) {
  const int64_t side = std::min(images.images.size(1), images.images.size(2));
  if (side < least_side)
    throw DataError(fmt::format("a classifier needs images of {} pixels or more, these have {}",
                                least_side, side));
  if (!images.labels.defined() || images.num_classes() < 2)
    throw DataError("a classifier needs images of two classes or more, with their labels");
  const int64_t classes =
      (at::bincount(images.labels, {}, images.num_classes()) > 0).sum().item<int64_t>();
  if (classes < 2)
    throw DataError("all images are of one class, and a classifier learns nothing from them");
}

at::Tensor predicted(ClassifierNetwork& network, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  Tensors parts;
  for (int64_t begin = 0; begin < images.size(0); begin += kPredicted) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const at::Tensor part = images.narrow(0, begin, std::min(kPredicted, images.size(0) - begin));
    parts.push_back(network.logits(inputs_of(part, network.device())).argmax(1).to(at::kCPU));
  }
  return at::cat(parts);
}

/// One pass over `order`, whose rows are shuffled.
void train_epoch(ClassifierNetwork& network, const LabelledImages& images, const at::Tensor& order,
                 int64_t batch, double rate, at::Generator& draw, PlainAdam& adam,
                 TensorAverage& average) {
  const int64_t n = order.size(0);
  const at::Tensor shuffled = order.index_select(0, at::randperm(n, draw, at::kLong));
  for (int64_t begin = 0; begin < n; begin += batch) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const at::Tensor rows = shuffled.narrow(0, begin, std::min(batch, n - begin));
    const at::Tensor x = inputs_of(images.images.index_select(0, rows), network.device());
    const at::Tensor labels = images.labels.index_select(0, rows).to(network.device());
    at::cross_entropy_loss(network.training_logits(x, draw), labels).backward();
    adam.step(rate);
    average.update();
  }
}

}  // namespace

std::string classifier_description(const ClassifierOptions& options) {
  const ClassifierRecipe recipe = recipe_of(options);
  std::string rate = fmt::format("Adam {}", recipe.learning_rate);
  if (recipe.drop_every > 0)
    rate += fmt::format(" times {} every {} epochs", recipe.drop_factor, recipe.drop_every);
  if (recipe.average_decay > 0)
    rate += fmt::format(", weights and statistics averaged by {}", recipe.average_decay);
  return fmt::format(
      "{}, {}, {} epochs, batch {}, pixels 2x - 1, sides above {} averaged down, epoch chosen on "
      "training images set apart, seed {}{}",
      recipe.description, rate, recipe.epochs, recipe.batch, kLargestSide, options.seed,
      options.device.is_cpu() ? "" : ", on a GPU");
}

Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;

Classifier::Classifier(const LabelledImages& images, const ClassifierOptions& options)
    : num_classes_(images.num_classes()) {
  const ClassifierRecipe recipe = recipe_of(options);
  check_trainable(images, recipe.least_side);
  const int64_t n = images.count();
  const int64_t apart = std::min(
      options.selection, static_cast<int64_t>(options.most_selected * static_cast<double>(n)));
  if (apart < 1)
    throw DataError(
        fmt::format("{} images are too few to train a classifier by and to choose its "
                    "epoch by others",
                    n));
  trained_on_ = n - apart;
  at::Generator draw = at::detail::createCPUGenerator(options.seed);
  const at::Tensor order = at::randperm(n, draw, at::kLong);
  const at::Tensor apart_rows = order.narrow(0, trained_on_, apart);
  const at::Tensor apart_images = images.images.index_select(0, apart_rows);
  const at::Tensor apart_labels = images.labels.index_select(0, apart_rows);
  const at::Tensor sample = inputs_of(apart_images.narrow(0, 0, 1), c10::kCPU);
  network_ = classifier_row(options.kind)
                 .make({sample.size(1), sample.size(2), sample.size(3), num_classes_}, draw);
  if (!options.device.is_cpu()) {
    network_->move_to(options.device);
    at::manual_seed(options.seed);  // of that device's generator, which draws dropout
  }
  Tensors weights, all = all_tensors(*network_), kept;
  for (const auto& [name, tensor] : network_->parameters()) weights.push_back(tensor);
  PlainAdam adam(weights);
  TensorAverage average(all, recipe.average_decay);
  selection_accuracy_ = -1;
  for (int64_t epoch = 1; epoch <= recipe.epochs; ++epoch) {
    const double drops =
        recipe.drop_every > 0 ? static_cast<double>((epoch - 1) / recipe.drop_every) : 0;
    train_epoch(*network_, images, order.narrow(0, 0, trained_on_), recipe.batch,
                recipe.learning_rate * std::pow(recipe.drop_factor, drops), draw, adam, average);
    const Tensors last = average.take();
    const double right =
        (predicted(*network_, apart_images) == apart_labels).to(at::kDouble).mean().item<double>();
    if (right > selection_accuracy_) {
      selection_accuracy_ = right;
      epoch_ = epoch;
      kept = copies_of_tensors(all);
    }
    average.give_back(last);
  }
  put_tensors(kept, all);
}

at::Tensor Classifier::predict(const at::Tensor& images) const {
  return predicted(*network_, images);
}

Accuracy Classifier::accuracy(const LabelledImages& images) const {
  const at::Tensor right = (predict(images.images) == images.labels).to(at::kDouble);
  Accuracy found{right.mean().item<double>(), {}, images.count()};
  for (int64_t label = 0; label < num_classes_; ++label) {
    const at::Tensor rows = (images.labels == label).nonzero().flatten();
    found.per_class.push_back(rows.numel() > 0 ? right.index_select(0, rows).mean().item<double>()
                                               : std::numeric_limits<double>::quiet_NaN());
  }
  return found;
}

}  // namespace sfumato
