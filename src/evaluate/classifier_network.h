#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/evaluate/classifier.h"

namespace sfumato {

/// How a network is trained by default.
struct ClassifierRecipe {
  double learning_rate = 1e-3;
  int64_t epochs = 10, batch = 64;
  int64_t drop_every = 0;    ///< epochs; 0: the rate is constant
  double drop_factor = 1;    ///< what the rate is multiplied by
  double average_decay = 0;  ///< of weights and statistics; 0: no average
  int64_t least_side = 0;    ///< pixels
  std::string description;   ///< of its layers, a clause
};

/// Of the large networks, as DPImageBench trains them where it does not train on CIFAR-10.
ClassifierRecipe large_recipe(std::string description);

/// The layers of a network for pixels in [-1, 1], with LibTorch's autograd.
class ClassifierNetwork {
 public:
  using Named = std::vector<std::pair<std::string, at::Tensor>>;

  virtual ~ClassifierNetwork() = default;
  /// float32 [n, C, h, w] to [n, classes], by the running statistics of batch normalisation.
  at::Tensor logits(const at::Tensor& x) const { return forward(x, false, std::nullopt); }
  /// In training: batch normalisation takes the batch's statistics and notes them. Dropout is drawn
  /// from `dropout`; without it there is none.
  at::Tensor training_logits(const at::Tensor& x, std::optional<at::Generator> dropout) {
    return forward(x, true, std::move(dropout));
  }

  /// In the order and by the names of a PyTorch module of the same layers.
  const Named& parameters() const { return parameters_; }
  const Named& buffers() const { return buffers_; }  ///< running means and variances
  /// Where its tensors are.
  c10::Device device() const { return parameters_.front().second.device(); }
  /// The same tensors, with their values there.
  void move_to(const c10::Device& device);

 protected:
  struct Norm {
    at::Tensor weight, bias, mean, variance;
    at::Tensor operator()(const at::Tensor& x, bool training) const;
  };

  virtual at::Tensor forward(const at::Tensor& x, bool training,
                             std::optional<at::Generator> dropout) const = 0;

  explicit ClassifierNetwork(at::Generator draw) : draw_(std::move(draw)) {}
  at::Tensor add(const std::string& name, at::Tensor value);
  /// Uniform up to 1 / sqrt(inputs of a unit), as PyTorch begins.
  at::Tensor add_uniform(const std::string& name, const std::vector<int64_t>& shape,
                         int64_t inputs);
  /// Normal with the variance 2 / (outputs of a tap): He et al. 2015, by what leaves.
  at::Tensor add_convolution(const std::string& name, const std::vector<int64_t>& shape);
  Norm add_norm(const std::string& name, int64_t channels);
  /// On the CPU by `draw`, elsewhere by that device's own generator.
  static at::Tensor dropped(const at::Tensor& x, double share, std::optional<at::Generator>& draw);
  at::Generator& generator() { return draw_; }

 private:
  at::Generator draw_;
  Named parameters_, buffers_;
};

/// What a network is made for.
struct ClassifierShape {
  int64_t channels = 0, height = 0, width = 0, classes = 0;
};

/// A row of the table.
struct ClassifierRow {
  ClassifierKind kind;
  ClassifierRecipe (*recipe)();
  std::unique_ptr<ClassifierNetwork> (*make)(const ClassifierShape& shape, at::Generator draw);
};
const ClassifierRow& classifier_row(ClassifierKind kind);

}  // namespace sfumato
