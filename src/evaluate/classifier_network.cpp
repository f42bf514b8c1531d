#include "evaluate/classifier_network.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <cmath>
#include <stdexcept>

namespace sfumato {

// Each in the file of its name.
ClassifierRecipe small_recipe();
ClassifierRecipe resnet_recipe();
ClassifierRecipe wide_resnet_recipe();
ClassifierRecipe resnext_recipe();
std::unique_ptr<ClassifierNetwork> make_small(const ClassifierShape& shape, at::Generator draw);
std::unique_ptr<ClassifierNetwork> make_resnet(const ClassifierShape& shape, at::Generator draw);
std::unique_ptr<ClassifierNetwork> make_wide_resnet(const ClassifierShape& shape,
                                                    at::Generator draw);
std::unique_ptr<ClassifierNetwork> make_resnext(const ClassifierShape& shape, at::Generator draw);

const ClassifierRow& classifier_row(ClassifierKind kind) {
  static constexpr std::array<ClassifierRow, 4> kTable = {{
      {ClassifierKind::kSmall, small_recipe, make_small},
      {ClassifierKind::kResNet110, resnet_recipe, make_resnet},
      {ClassifierKind::kWrn404, wide_resnet_recipe, make_wide_resnet},
      {ClassifierKind::kResNext29, resnext_recipe, make_resnext},
  }};
  for (const ClassifierRow& row : kTable)
    if (row.kind == kind) return row;
  throw std::logic_error("no row in the table of classifiers for " + to_string(kind));
}

ClassifierRecipe large_recipe(std::string description) {
  return {.learning_rate = 1e-2,
          .epochs = 50,
          .batch = 256,
          .drop_every = 20,
          .drop_factor = 0.2,
          .average_decay = 0.9999,
          // Of 4 x 4 pixels the last stage sees one, of which a batch of one image has no variance.
          .least_side = 5,
          .description = std::move(description)};
}

at::Tensor ClassifierNetwork::Norm::operator()(const at::Tensor& x, bool training) const {
  constexpr double kMomentum = 0.1, kEps = 1e-5;
  return at::batch_norm(x, weight, bias, mean, variance, training, kMomentum, kEps, false);
}

at::Tensor ClassifierNetwork::add(const std::string& name, at::Tensor value) {
  value.requires_grad_(true);
  parameters_.emplace_back(name, value);
  return value;
}

at::Tensor ClassifierNetwork::add_uniform(const std::string& name,
                                          const std::vector<int64_t>& shape, int64_t inputs) {
  const double bound = 1 / std::sqrt(static_cast<double>(inputs));
  return add(name, at::empty(shape, at::kFloat).uniform_(-bound, bound, draw_));
}

at::Tensor ClassifierNetwork::add_convolution(const std::string& name,
                                              const std::vector<int64_t>& shape) {
  const auto outputs = static_cast<double>(shape[0] * shape[2] * shape[3]);
  return add(name, at::empty(shape, at::kFloat).normal_(0, std::sqrt(2 / outputs), draw_));
}

ClassifierNetwork::Norm ClassifierNetwork::add_norm(const std::string& name, int64_t channels) {
  Norm norm;
  norm.weight = add(name + ".weight", at::ones({channels}));
  norm.bias = add(name + ".bias", at::zeros({channels}));
  norm.mean = at::zeros({channels});
  norm.variance = at::ones({channels});
  buffers_.emplace_back(name + ".running_mean", norm.mean);
  buffers_.emplace_back(name + ".running_var", norm.variance);
  return norm;
}

void ClassifierNetwork::move_to(const c10::Device& device) {
  const at::NoGradGuard no_grad;
  for (Named* all : {&parameters_, &buffers_})
    for (auto& [name, tensor] : *all) tensor.set_data(tensor.detach().to(device));
}

at::Tensor ClassifierNetwork::dropped(const at::Tensor& x, double share,
                                      std::optional<at::Generator>& draw) {
  if (!draw) return x;
  const auto by = x.device() == draw->device() ? draw : std::nullopt;
  return x * at::empty_like(x).bernoulli_(1 - share, by) / (1 - share);
}

}  // namespace sfumato
