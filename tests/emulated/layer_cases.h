#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "emulated/on_kernels.h"
#include "sfumato/nn/layers.h"

namespace sfumato::test {

/// One layer and what goes into it.
struct LayerCase {
  std::shared_ptr<Module> module;
  std::function<at::Tensor(const at::Tensor& input, Tape* tape)> forward;
  at::Tensor input;  ///< [rows, ...]
};

struct LayerRecipe {
  std::string name;
  std::function<LayerCase(int64_t rows)> make;  ///< random values of the current seed
};
/// For GoogleTest's messages.
inline void PrintTo(const LayerRecipe& recipe, std::ostream* out) { *out << recipe.name; }

/// Every kind of layer in the shapes that matter to kernels: odd sizes, tails, strides, groups.
std::vector<LayerRecipe> layer_recipes();

/// One pass of an engine over B examples of K draws, on the CPU by its own rules or on kernels.
/// The same seed gives the same layer, inputs and loss.
struct LayerPass {
  LayerRecipe recipe;
  Precision precision = Precision::kFp32;
  int64_t examples = 3, draws = 1;
  AlgorithmPolicy policy = AlgorithmPolicy::kAuto;
  ClipOptions clip = {};
  uint64_t seed = 1;
};
struct LayerOutcome {
  at::Tensor loss, norm;  ///< [B], on the CPU
  Tensors sums;
  std::vector<LayerChoice> choices;
};

/// `masks`: one pass for each; undefined: all real.
std::vector<LayerOutcome> run_on_cpu(const LayerPass& pass, const std::vector<at::Tensor>& masks);
std::vector<LayerOutcome> run_on_kernels(const LayerPass& pass,
                                         const std::vector<at::Tensor>& masks);

}  // namespace sfumato::test
