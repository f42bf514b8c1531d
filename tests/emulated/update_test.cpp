// Noise, optimizer and moving average on kernels: the CPU's bits.
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "emulated/on_kernels.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/nn/layers.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
using Kind = OptimizerKind;

/// A convolution whose weight is [P, kh kw C] in memory, and something beside it.
struct Convolution : Module {
  Convolution() {
    add_child("conv", conv);
    add_child("linear", linear);
    name_parameters();
  }
  Conv2d conv{{.in = 5, .out = 7, .kernel = {3, 2}}};
  Linear linear{31, 29};
};

/// The same numbers in the same order in memory, as matrices.
struct Matrices : Module {
  Matrices() {
    add_child("conv", conv);
    add_child("linear", linear);
    name_parameters();
  }
  Linear conv{5 * 3 * 2, 7};
  Linear linear{31, 29};
};

/// Elements in the order of memory.
at::Tensor in_memory_order(const at::Tensor& t) {
  const at::Tensor plain = t.detach().cpu();
  return plain.dim() == 4 ? plain.permute({0, 2, 3, 1}).contiguous().view({-1})
                          : plain.contiguous().view({-1});
}

void set_in_memory_order(const at::Tensor& t, const at::Tensor& values) {
  const at::Tensor target = t.detach();
  if (target.dim() == 4) {
    const at::Tensor view = target.permute({0, 2, 3, 1});
    view.copy_(values.view(view.sizes()));
  } else {
    target.copy_(values.view(target.sizes()));
  }
}

at::Tensor numbers(int64_t count, int64_t seed) {
  at::manual_seed(static_cast<uint64_t>(seed));
  return at::randn({count});
}

/// A run of a few releases with its own ledger under a fixed key.
class Updates {
 public:
  Updates(Module& network, const OptimizerOptions& options)
      : parameters_(network.parameters()),
        engine_(parameters_, {Clipping::kFlat, 0.5, 0.01}),
        optimizer_(parameters_, {1.0, 0.5, 1.0, 2.0}, options),
        average_(parameters_, 0.9, true) {
    for (std::size_t j = 0; j < parameters_.size(); ++j)
      set_in_memory_order(parameters_[j]->value,
                          numbers(parameters_[j]->value.numel(), 100 + static_cast<int64_t>(j)));
    average_.load_state(initial_average());
  }

  NoisyGradient release(int64_t step) {
    ClippedSum sum = engine_.take();
    const Tensors& tensors = ClippedSumInspector::sums(sum);
    for (std::size_t j = 0; j < tensors.size(); ++j)
      set_in_memory_order(tensors[j],
                          numbers(tensors[j].numel(), 1000 * (step + 1) + static_cast<int64_t>(j)));
    return NoisyGradient::release(std::move(sum), 0.7, 4, key_, ledger_.charge(step, key_));
  }
  void step(int64_t step, bool with_average) {
    optimizer_.step(release(step), 0.05, with_average ? &average_ : nullptr);
  }

  /// Values, moments and averages.
  Tensors state() const {
    Tensors all;
    for (const Parameter* p : parameters_) all.push_back(in_memory_order(p->value));
    for (const NamedTensors& list : {optimizer_.state(), average_.state()})
      for (const auto& [name, tensor] : list)
        if (tensor.dim() > 0) all.push_back(in_memory_order(tensor));
    return all;
  }
  Optimizer& optimizer() { return optimizer_; }
  std::vector<Parameter*>& parameters() { return parameters_; }
  GradientEngine& engine() { return engine_; }

 private:
  NamedTensors initial_average() const {
    NamedTensors state = average_.state();
    for (std::size_t j = 0; j < parameters_.size(); ++j)
      state[j + 1].second = parameters_[j]->value.detach().clone();
    return state;
  }

  TempFolder folder_;
  SecureKey key_ = SecureKey::insecure_for_tests(7);
  Ledger ledger_ = Ledger::create(folder_ / "ledger.jsonl", {{"test", true}}, 1000, key_);
  std::vector<Parameter*> parameters_;
  GradientEngine engine_;
  Optimizer optimizer_;
  Ema average_;
};

void expect_same_bits(const Tensors& got, const Tensors& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t j = 0; j < got.size(); ++j)
    EXPECT_TRUE(got[j].equal(wanted[j])) << "tensor " << j;
}

class UpdatesOnKernels : public OnKernels {};

TEST_F(UpdatesOnKernels, HaveTheBitsOfTheCpuInEveryLayout) {
  for (const OptimizerOptions& options :
       {OptimizerOptions{.kind = Kind::kAdam, .weight_decay = 0.01},
        OptimizerOptions{.kind = Kind::kAdamW, .weight_decay = 0.01},
        OptimizerOptions{.kind = Kind::kSgd, .momentum = 0.9},
        OptimizerOptions{.kind = Kind::kSgd}}) {
    for (const bool with_average : {true, false}) {
      Matrices matrices;
      Updates plain(matrices, options);
      for (int step = 0; step < 3; ++step) plain.step(step, with_average);
      const Tensors wanted = plain.state();

      const KernelsServe here;
      Convolution network;
      move_parameters(network.parameters(), here.device());
      Updates run(network, options);
      for (int step = 0; step < 3; ++step) run.step(step, with_average);
      expect_same_bits(run.state(), wanted);
      EXPECT_EQ(norm_on_host(taken(run.engine())), 0) << "no private sum lingers";
    }
  }
}

TEST_F(UpdatesOnKernels, GradientsAreThoseOfTheCpu) {
  Matrices matrices;
  Updates plain(matrices, {});
  Tensors wanted;
  for (const at::Tensor& t : plain.release(0).gradients()) wanted.push_back(in_memory_order(t));
  const KernelsServe here;
  Convolution network;
  move_parameters(network.parameters(), here.device());
  Updates run(network, {});
  Tensors got;
  for (const at::Tensor& t : run.release(0).gradients()) got.push_back(in_memory_order(t));
  expect_same_bits(got, wanted);
}

// A checkpoint holds plain contiguous tensors, wherever it was written.
TEST_F(UpdatesOnKernels, AnOptimizerGoesOnFromAStateOfTheCpuBitForBit) {
  const KernelsServe here;
  Convolution one, two;
  move_parameters(one.parameters(), here.device());
  move_parameters(two.parameters(), here.device());
  Updates first(one, {}), second(two, {});
  for (int step = 0; step < 2; ++step) first.step(step, false);
  NamedTensors state;
  for (const auto& [name, tensor] : first.optimizer().state())
    state.emplace_back(name, tensor.cpu().contiguous().clone());
  (void)second.release(0);  // the same numbers of releases, as nonces go
  (void)second.release(1);
  second.optimizer().load_state(state);
  for (std::size_t j = 0; j < first.parameters().size(); ++j)
    second.parameters()[j]->value.detach().copy_(first.parameters()[j]->value.detach());
  first.step(2, false);
  second.step(2, false);
  expect_same_bits(second.state(), first.state());
}

TEST_F(UpdatesOnKernels, OrdinaryGradientsOfAnyLayoutAreTaken) {
  const KernelsServe here;
  Conv2d conv({.in = 4, .out = 6, .kernel = {1, 1}});
  conv.name_parameters();
  move_parameters(conv.parameters(), here.device());
  Optimizer optimizer(conv.parameters(), {1, 1}, {.kind = Kind::kSgd});
  // What a library may give for the weight of a 1 x 1 kernel.
  const at::Tensor gradient = at::randn({6, 4, 1, 1}).as_strided({6, 4, 1, 1}, {4, 1, 4, 4});
  const at::Tensor wanted = gradient.clone().mul(-0.5);
  optimizer.step(PublicGradient({gradient.to(here.device()), at::zeros({6}).to(here.device())}, 1),
                 0.5);
  EXPECT_LE(distance_on_host({conv.weight.value}, {wanted}), 1e-6);
}

TEST_F(UpdatesOnKernels, AnotherOrderInMemoryIsRefused) {
  const KernelsServe here;
  Conv2d conv({.in = 4, .out = 6});
  conv.name_parameters();
  const at::Tensor x = at::randn({2, 4, 5, 5}).to(here.device());
  const auto pass = [&](GradientEngine& engine) {
    engine.accumulate(
        2, 1, {}, [&](Tape& tape) { return conv.forward(x, &tape).square().flatten(1).sum({1}); });
  };
  if (!on_gpu()) {
    GradientEngine engine(conv.parameters(), {});
    EXPECT_THROW(pass(engine), DeviceError) << "weights that were not moved";
  }
  move_parameters(conv.parameters(), here.device());
  GradientEngine engine(conv.parameters(), {});
  pass(engine);
  Optimizer optimizer(conv.parameters(), {1, 1}, {.kind = Kind::kSgd});
  const at::Tensor plain = at::randn({6, 4, 3, 3}).to(here.device());
  const at::Tensor bias = at::zeros({6}).to(here.device());
  EXPECT_THROW(optimizer.step(PublicGradient({plain, bias}, 1), 0.5), DeviceError);
}

}  // namespace
}  // namespace sfumato
