#include "sfumato/evaluate/small_classifier.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

constexpr int64_t kFirst = 32, kSecond = 64, kHidden = 128, kLargestSide = 32, kLeastSide = 6;
constexpr double kFirstDropout = 0.25, kSecondDropout = 0.5;
constexpr int64_t kPredicted = 500;  // images at once

/// uint8 [n, H, W, C] -> float32 [n, C, h, w] in [-1, 1].
at::Tensor inputs_of(const at::Tensor& images) {
  at::Tensor x = (images.to(at::kFloat) / 127.5 - 1).permute({0, 3, 1, 2}).contiguous();
  const int64_t height = std::min(x.size(2), kLargestSide),
                width = std::min(x.size(3), kLargestSide);
  if (height == x.size(2) && width == x.size(3)) return x;
  return at::adaptive_avg_pool2d(x, {height, width});
}

/// PyTorch's: uniform up to 1 / sqrt(inputs of a unit), weight and bias alike.
std::vector<at::Tensor> starting_weights(int64_t channels, int64_t pooled, int64_t classes,
                                         at::Generator& draw) {
  std::vector<at::Tensor> weights;
  const auto add = [&](const std::vector<int64_t>& sizes) {
    int64_t inputs = 1;
    for (std::size_t i = 1; i < sizes.size(); ++i) inputs *= sizes[i];
    const double bound = 1 / std::sqrt(static_cast<double>(inputs));
    weights.push_back(at::empty(sizes, at::kFloat).uniform_(-bound, bound, draw));
    weights.push_back(at::empty({sizes[0]}, at::kFloat).uniform_(-bound, bound, draw));
  };
  add({kFirst, channels, 3, 3});
  add({kSecond, kFirst, 3, 3});
  add({kHidden, kSecond * pooled});
  add({classes, kHidden});
  for (at::Tensor& weight : weights) weight.requires_grad_(true);
  return weights;
}

at::Tensor dropped(const at::Tensor& x, double share, std::optional<at::Generator>& draw) {
  if (!draw) return x;
  return x * at::empty_like(x).bernoulli_(1 - share, *draw) / (1 - share);
}

/// `draw`: of dropout; without it there is none.
at::Tensor logits_of(const std::vector<at::Tensor>& w, const at::Tensor& x,
                     std::optional<at::Generator> draw = std::nullopt) {
  at::Tensor y = at::relu(at::conv2d(x, w[0], w[1]));
  y = at::max_pool2d(at::relu(at::conv2d(y, w[2], w[3])), 2);
  y = dropped(y, kFirstDropout, draw).flatten(1);
  y = dropped(at::relu(at::linear(y, w[4], w[5])), kSecondDropout, draw);
  return at::linear(y, w[6], w[7]);
}

/// Adam as PyTorch has it.
class PlainAdam {
 public:
  PlainAdam(std::vector<at::Tensor>& weights, double rate) : weights_(weights), rate_(rate) {
    for (const at::Tensor& weight : weights)
      first_.push_back(at::zeros_like(weight).detach()),
          second_.push_back(at::zeros_like(weight).detach());
  }
  void step() {
    const at::NoGradGuard no_grad;
    ++steps_;
    const double of_first = 1 - std::pow(0.9, steps_), of_second = 1 - std::pow(0.999, steps_);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      at::Tensor gradient = weights_[i].grad();
      first_[i].mul_(0.9).add_(gradient, 0.1);
      second_[i].mul_(0.999).addcmul_(gradient, gradient, 0.001);
      const at::Tensor scale = (second_[i] / of_second).sqrt_().add_(1e-8);
      weights_[i].addcdiv_(first_[i], scale, -rate_ / of_first);
      gradient.zero_();
    }
  }

 private:
  std::vector<at::Tensor>& weights_;
  double rate_;
  double steps_ = 0;
  std::vector<at::Tensor> first_, second_;
};

void check_trainable(const LabelledImages& images) {
  const int64_t side = std::min(images.images.size(1), images.images.size(2));
  if (side < kLeastSide)
    throw DataError(fmt::format("a classifier needs images of {} pixels or more, these have {}",
                                kLeastSide, side));
  if (!images.labels.defined() || images.num_classes() < 2)
    throw DataError("a classifier needs images of two classes or more, with their labels");
  const int64_t classes =
      (at::bincount(images.labels, {}, images.num_classes()) > 0).sum().item<int64_t>();
  if (classes < 2)
    throw DataError("all images are of one class, and a classifier learns nothing from them");
}

at::Tensor predicted(const std::vector<at::Tensor>& weights, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < images.size(0); begin += kPredicted) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const at::Tensor part = images.narrow(0, begin, std::min(kPredicted, images.size(0) - begin));
    parts.push_back(logits_of(weights, inputs_of(part)).argmax(1));
  }
  return at::cat(parts);
}

}  // namespace

std::string classifier_description(const ClassifierOptions& options) {
  return fmt::format(
      "convolutions {}-{} and {} units, dropout {}/{}, Adam {}, {} epochs, batch {}, pixels 2x - "
      "1, "
      "sides above {} averaged down, epoch chosen on training images set apart, seed {}",
      kFirst, kSecond, kHidden, kFirstDropout, kSecondDropout, options.learning_rate,
      options.epochs, options.batch, kLargestSide, options.seed);
}

SmallClassifier::SmallClassifier(const LabelledImages& images, const ClassifierOptions& options)
    : num_classes_(images.num_classes()) {
  check_trainable(images);
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
  const at::Tensor sample = inputs_of(apart_images.narrow(0, 0, 1));
  const int64_t pooled = ((sample.size(2) - 4) / 2) * ((sample.size(3) - 4) / 2);
  std::vector<at::Tensor> weights = starting_weights(sample.size(1), pooled, num_classes_, draw);
  PlainAdam adam(weights, options.learning_rate);
  selection_accuracy_ = -1;
  for (int64_t epoch = 1; epoch <= options.epochs; ++epoch) {
    const at::Tensor shuffled =
        order.narrow(0, 0, trained_on_).index_select(0, at::randperm(trained_on_, draw, at::kLong));
    for (int64_t begin = 0; begin < trained_on_; begin += options.batch) {
      if (stop_requested()) throw Interrupted("stopped; nothing was written");
      const at::Tensor rows =
          shuffled.narrow(0, begin, std::min(options.batch, trained_on_ - begin));
      const at::Tensor x = inputs_of(images.images.index_select(0, rows));
      at::cross_entropy_loss(logits_of(weights, x, draw), images.labels.index_select(0, rows))
          .backward();
      adam.step();
    }
    const double right =
        (predicted(weights, apart_images) == apart_labels).to(at::kDouble).mean().item<double>();
    if (right <= selection_accuracy_) continue;
    selection_accuracy_ = right;
    epoch_ = epoch;
    weights_.clear();
    for (const at::Tensor& weight : weights) weights_.push_back(weight.detach().clone());
  }
}

at::Tensor SmallClassifier::predict(const at::Tensor& images) const {
  return predicted(weights_, images);
}

Accuracy SmallClassifier::accuracy(const LabelledImages& images) const {
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
