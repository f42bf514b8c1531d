#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sfumato/audit/mechanism_under_test.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato {

struct Config;

/// One synthetic example: equal keys and scales give equal gradients. `scale` multiplies its loss
/// (layers) or its pixels (a network of a configuration); NaN and infinity poison it.
struct ProbeExample {
  uint64_t key = 0;
  double scale = 1;
};

/// A network whose per-example gradients are known without the engine: by plain autograd, one
/// example at a time, clipped by the definition in float64.
class ProbeNetwork {
 public:
  virtual ~ProbeNetwork() = default;
  virtual ProbeBatch batch(std::span<const ProbeExample> examples) = 0;
  /// The gradient engine of training on this network.
  virtual GradientSource source() = 0;
  /// The same engine in this process alone, where several ranks share that of source().
  virtual GradientSource alone() = 0;
  /// Whether `scale` multiplies the gradient, so that any norm can be made.
  virtual bool scales_gradients() const = 0;

  /// Gradient of one example over all trainable parameters, float64.
  std::vector<at::Tensor> plain_gradient(const ProbeExample& example);
  /// The same after clipping by `clip`; zeros if it is not finite.
  std::vector<at::Tensor> clipped_gradient(const ProbeExample& example, const ClipOptions& clip);
  /// The example `key` scaled so that its gradient has L2 norm `norm`; needs scales_gradients().
  ProbeExample with_norm(uint64_t key, double norm);

 protected:
  virtual const std::vector<Parameter*>& trainable() = 0;
};

/// Every kind of layer of src/nn in a network of some 5000 parameters, four draws an example.
class LayerProbe : public ProbeNetwork {
 public:
  explicit LayerProbe(const ClipOptions& clip, std::shared_ptr<Communicator> ranks = nullptr);
  ~LayerProbe() override;
  ProbeBatch batch(std::span<const ProbeExample> examples) override;
  GradientSource source() override;
  GradientSource alone() override;
  bool scales_gradients() const override { return true; }

 protected:
  const std::vector<Parameter*>& trainable() override;

 private:
  struct Network;
  std::unique_ptr<Network> network_;
  ProbeStep step_, alone_;
};

/// The network, loss and GradientStep of a configuration on synthetic images, clipped by `plan`.
class ConfiguredProbe : public ProbeNetwork {
 public:
  ConfiguredProbe(const Config& config, const MechanismPlan& plan,
                  std::shared_ptr<Communicator> ranks = nullptr);
  ~ConfiguredProbe() override;
  ProbeBatch batch(std::span<const ProbeExample> examples) override;
  GradientSource source() override;
  GradientSource alone() override;
  bool scales_gradients() const override { return false; }

 protected:
  const std::vector<Parameter*>& trainable() override;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Gradients over all parameters, as lists of tensors.
double gradient_norm(std::span<const at::Tensor> gradient);
double gradient_distance(std::span<const at::Tensor> a, std::span<const at::Tensor> b);
double gradient_dot(std::span<const at::Tensor> a, std::span<const at::Tensor> b);

}  // namespace sfumato
