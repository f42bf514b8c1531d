#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/grad/parameter_slices.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdam;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;  ///< L2 added to the gradient (SGD, Adam) or decoupled (AdamW)
  double momentum = 0;      ///< SGD
};

/// Exponential moving average of parameters (post-processing of the released iterates). With
/// warm-up the decay of update n is min(decay, (1 + n) / (10 + n)).
class Ema {
 public:
  Ema(std::vector<Parameter*> parameters, double decay, bool warmup);
  /// Where ranks update parts of it: this one keeps its own alone, as ParameterSlices::own has
  /// them. Optimizer::step does it.
  void keep_own(const ParameterSlices& slices);
  /// Makes it whole again on all ranks, until the next step. Collective.
  void gather(const ParameterSlices& slices);
  /// Decay of the next update, which is counted with it: Optimizer::step makes the update.
  double next_decay();
  /// Begins anew with the parameters as they are.
  void restart();
  /// As the parameters; std::logic_error from all three where only parts are kept (gather()).
  const std::vector<at::Tensor>& values() const;
  NamedTensors state() const;
  void load_state(const NamedTensors& state);

 private:
  friend class Optimizer;
  std::vector<Parameter*> parameters_;
  double decay_;
  bool warmup_, in_parts_ = false;
  std::vector<at::Tensor> values_;
  int64_t updates_ = 0;
};

/// SGD with momentum, Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), updating
/// parameters in place. It takes a NoisyGradient, or a PublicGradient of data that are not private:
/// tensors do not compile.
class Optimizer {
 public:
  /// `rate_scales`: one factor on the learning rate for each parameter. `slices` (of the same
  /// parameters; null: all of them): what this rank moves and keeps moments of, after which all
  /// ranks have all parameters: then step() and state() are collective, and every
  /// gradient must come in the same parts, or whole and alike on all ranks.
  Optimizer(std::vector<Parameter*> parameters, std::vector<double> rate_scales,
            const OptimizerOptions& options,
            std::shared_ptr<const ParameterSlices> slices = nullptr);
  /// Noise, update and, if given, the moving average of the same parameters, in one pass. Where a
  /// parameter has a WeightMap, in three: noise, the maps, the update; then each map follows.
  void step(NoisyGradient&& gradient, double learning_rate, Ema* average = nullptr);
  void step(PublicGradient&& gradient, double learning_rate, Ema* average = nullptr);

  /// Moments, of all parameters, and the number of steps, for checkpoints.
  NamedTensors state() const;
  /// DataError for a state of other parameters or another kind of optimizer.
  void load_state(const NamedTensors& state);

 private:
  template <class Gradient>
  void update(Gradient&& gradient, double learning_rate, Ema* average);
  NamedTensors state_of(const std::vector<at::Tensor>& first,
                        const std::vector<at::Tensor>& second) const;
  std::vector<at::Tensor> whole(const std::vector<at::Tensor>& moments) const;

  std::vector<Parameter*> parameters_;
  std::vector<double> rate_scales_;
  OptimizerOptions options_;
  std::shared_ptr<const ParameterSlices> slices_;  ///< null: this process alone
  std::vector<at::Tensor> first_, second_;
  int64_t steps_ = 0;
};

/// Learning rate of step `step` (from 0): linear warm-up over `warmup` steps, then constant or a
/// cosine from `peak` to `peak * final_fraction` at `total`.
double learning_rate_at(int64_t step, double peak, int64_t warmup, int64_t total, bool cosine,
                        double final_fraction);

}  // namespace sfumato
