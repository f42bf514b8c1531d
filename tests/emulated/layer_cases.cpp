#include "emulated/layer_cases.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>

#include <utility>

namespace sfumato::test {
namespace {

void randomise(Module& module) {
  module.name_parameters();
  for (Parameter* parameter : module.parameters()) {
    // Values that bfloat16 holds: then only activations are rounded.
    const at::Tensor value = at::randn(parameter->value.sizes());
    parameter->value.detach().copy_(value.to(at::kBFloat16).to(at::kFloat));
  }
}

template <class Layer>
LayerCase with(std::shared_ptr<Layer> layer, at::Tensor input) {
  randomise(*layer);
  return {layer, [layer](const at::Tensor& x, Tape* tape) { return layer->forward(x, tape); },
          std::move(input)};
}

LayerRecipe conv(std::string name, Conv2d::Options options, int64_t height, int64_t width) {
  return {std::move(name), [=](int64_t rows) {
            return with(std::make_shared<Conv2d>(options),
                        at::randn({rows, options.in, height, width}));
          }};
}

LayerRecipe linear(std::string name, int64_t in, int64_t out, int64_t tokens, bool bias = true) {
  return {std::move(name), [=](int64_t rows) {
            return with(std::make_shared<Linear>(in, out, bias),
                        tokens == 0 ? at::randn({rows, in}) : at::randn({rows, tokens, in}));
          }};
}

/// With a weight that is one of power iteration's, as after training.
template <class Layer>
LayerRecipe normalised(std::string name, std::function<std::shared_ptr<Layer>()> make,
                       std::vector<int64_t> input) {
  return {std::move(name), [=](int64_t rows) {
            std::vector<int64_t> shape = input;
            shape.insert(shape.begin(), rows);
            LayerCase made = with(make(), at::randn(shape));
            for (int i = 0; i < 5; ++i) made.module->parameters()[0]->map->follow();
            return made;
          }};
}

LayerRecipe group_norm(std::string name, int64_t groups, int64_t channels, int64_t side,
                       FusedActivation activation) {
  return {std::move(name), [=](int64_t rows) {
            const auto layer = std::make_shared<GroupNorm>(groups, channels, 1e-5);
            LayerCase made = with(layer, at::randn({rows, channels, side, side + 1}).mul_(2));
            made.forward = [layer, activation](const at::Tensor& x, Tape* tape) {
              return layer->forward(x, tape, activation);
            };
            return made;
          }};
}

/// Loss of each example: mean over its draws of <output, coefficients>, a little curved.
at::Tensor loss_of(const at::Tensor& output, const at::Tensor& coefficients, int64_t examples,
                   int64_t draws) {
  const at::Tensor out = output.to(at::kFloat);
  return at::mul(out, coefficients)
      .add(out.square(), 0.1)
      .reshape({examples, draws, -1})
      .sum({2})
      .mean({1});
}

std::vector<LayerOutcome> run(const LayerPass& pass, const std::vector<at::Tensor>& masks,
                              c10::Device device, bool on_kernels) {
  const PrecisionScope precision(pass.precision);
  at::manual_seed(pass.seed);
  LayerCase layer = pass.recipe.make(pass.examples * pass.draws);
  at::Tensor input = layer.input;
  if (input.is_floating_point()) {
    const at::ScalarType type = type_of(pass.precision);
    input = on_kernels ? input.to(type) : input.to(type).to(at::kFloat);
  }
  // Random numbers of the CPU's generator, before anything is moved.
  const at::Tensor coefficients = at::randn(layer.forward(layer.input, nullptr).sizes()).to(device);
  move_module(*layer.module, device);
  input = input.to(device);
  GradientEngine engine(layer.module->parameters(), pass.clip, pass.policy);
  std::vector<LayerOutcome> outcomes;
  for (const at::Tensor& mask : masks) {
    const BatchStatistics statistics =
        engine.accumulate(pass.examples, pass.draws, mask, [&](Tape& tape) {
          return loss_of(layer.forward(input, &tape), coefficients, pass.examples, pass.draws);
        });
    outcomes.push_back(
        {host(statistics.loss), host(statistics.norm), taken(engine), engine.choices()});
  }
  return outcomes;
}

}  // namespace

std::vector<LayerRecipe> layer_recipes() {
  std::vector<LayerRecipe> all = {
      conv("Conv3x3", {.in = 8, .out = 8, .padding = {1, 1}}, 6, 6),
      conv("Conv3x3OddChannels", {.in = 3, .out = 5, .padding = {1, 1}}, 5, 7),
      conv("Conv1x1", {.in = 6, .out = 9, .kernel = {1, 1}}, 4, 5),
      conv("ConvOneChannel", {.in = 1, .out = 1, .padding = {1, 1}}, 4, 4),
      conv("ConvOnePixel", {.in = 5, .out = 6, .kernel = {1, 1}}, 1, 1),
      conv("ConvStride", {.in = 4, .out = 6, .stride = {2, 2}, .padding = {1, 1}}, 7, 8),
      conv("ConvDilation", {.in = 4, .out = 4, .padding = {2, 1}, .dilation = {2, 1}}, 6, 6),
      conv("ConvUneven", {.in = 2, .out = 7, .kernel = {2, 4}, .stride = {1, 3}, .padding = {0, 2}},
           5, 9),
      conv("ConvGroups", {.in = 6, .out = 4, .padding = {1, 1}, .groups = 2}, 5, 5),
      conv("ConvWithoutBias", {.in = 3, .out = 4, .padding = {1, 1}, .bias = false}, 5, 5),
      linear("Linear", 7, 5, 0),
      linear("LinearOfTokens", 6, 9, 5),
      linear("LinearWithoutBias", 8, 8, 3, false),
      normalised<Conv2d>("ConvSpectralNorm",
                         [] {
                           return std::make_shared<Conv2d>(Conv2d::Options{
                               .in = 1, .out = 6, .padding = {1, 1}, .spectral_norm = true});
                         },
                         {1, 5, 6}),
      normalised<Linear>("LinearSpectralNorm",
                         [] { return std::make_shared<Linear>(7, 5, true, true); }, {4, 7}),
      group_norm("GroupNorm", 2, 6, 5, FusedActivation::kNone),
      group_norm("GroupNormSilu", 4, 8, 4, FusedActivation::kSilu),
      group_norm("GroupNormOneGroup", 1, 5, 3, FusedActivation::kSilu),
      {"GroupNormOfTokens",
       [](int64_t rows) {
         return with(std::make_shared<GroupNorm>(3, 6, 1e-5), at::randn({rows, 6, 10}));
       }},
      {"LayerNorm",
       [](int64_t rows) {
         return with(std::make_shared<LayerNorm>(9, 1e-5), at::randn({rows, 4, 9}));
       }},
      {"Embedding",
       [](int64_t rows) {
         return with(std::make_shared<Embedding>(4, 6), at::randint(4, {rows, 3}, at::kLong));
       }},
      {"PlainParameter",
       [](int64_t rows) {
         LayerCase made =
             with(std::make_shared<Embedding>(1, 1), at::randint(4, {rows, 1}, at::kLong));
         const auto plain = std::make_shared<PlainParameter>(at::IntArrayRef{3, 5});
         randomise(*plain);
         made.module = plain;
         made.forward = [plain](const at::Tensor& x, Tape* tape) {
           return plain->forward(x.size(0), tape);
         };
         return made;
       }},
  };
  if (!on_gpu()) return all;
  all.push_back(conv("ConvLarge", {.in = 128, .out = 256, .padding = {1, 1}}, 32, 32));
  all.push_back(conv("ConvWide", {.in = 512, .out = 512, .padding = {1, 1}}, 8, 8));
  all.push_back(
      conv("ConvDown", {.in = 64, .out = 64, .stride = {2, 2}, .padding = {1, 1}}, 64, 64));
  all.push_back(linear("LinearLarge", 512, 512, 256));
  all.push_back(group_norm("GroupNormLarge", 32, 256, 32, FusedActivation::kSilu));
  return all;
}

std::vector<LayerOutcome> run_on_cpu(const LayerPass& pass, const std::vector<at::Tensor>& masks) {
  return run(pass, masks, c10::Device(c10::kCPU), false);
}

std::vector<LayerOutcome> run_on_kernels(const LayerPass& pass,
                                         const std::vector<at::Tensor>& masks) {
  const KernelsServe here;
  return run(pass, masks, here.device(), true);
}

}  // namespace sfumato::test
