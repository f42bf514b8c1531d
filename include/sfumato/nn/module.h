#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/MemoryFormat.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace at {
struct Generator;
}

namespace sfumato {

/// What a layer puts between a parameter and the weight that it computes with, as spectral
/// normalisation does. Whoever forms gradients of such a parameter, tapes and plain autograd alike,
/// forms those of the weight in use: they are what is clipped and gets noise. Optimizer pulls them
/// back to the parameter once they are released.
class WeightMap {
 public:
  virtual ~WeightMap() = default;
  /// The weight in use: of the parameter's shape and layout, and of values that are released or
  /// public alone.
  virtual at::Tensor weight() const = 0;
  /// Makes of the gradient of the weight in use that of the parameter, in place: linear, and
  /// independent of images.
  virtual void pull_back(at::Tensor& gradient) const = 0;
  /// After each update of the parameter.
  virtual void follow() = 0;
};

/// A tensor of weights. `name` is the full key in checkpoints
/// ("down_blocks.0.resnets.0.conv1.bias") once Module::name_parameters ran on the root.
struct Parameter {
  std::string name;
  at::Tensor value;  ///< float32, a leaf; requires_grad exactly if trainable
  bool trainable = true;
  /// Order of its elements in memory where kernels serve the layer.
  c10::MemoryFormat kernel_layout = c10::MemoryFormat::Contiguous;
  WeightMap* map = nullptr;  ///< its layer's; null: the weight in use is the value
  bool is_table = false;     ///< rows that are looked up, each by itself: no matrix of a map
};

/// Tree of layers and parameters. Modules are neither copied nor moved: children are members,
/// registered by address.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// All parameters, depth first in registration order.
  std::vector<Parameter*> parameters();
  /// All tensors of state that are no parameters (running statistics), by full key, in the same
  /// order.
  std::vector<std::pair<std::string, at::Tensor*>> buffers();
  /// Gives every parameter its full key. Called once on the root after construction.
  void name_parameters(const std::string& prefix = "");
  /// Gives all parameters, frozen ones too, the values that training from nothing starts with: each
  /// layer says what its own are. The same seed gives the same bits. On the CPU, before the
  /// parameters move.
  void initialise(uint64_t seed);
  /// The same, drawn from `generator` in the order of parameters().
  void initialise(at::Generator& generator);
  /// What convolutions and products of tokens round their operands to on the CPU, in this module
  /// and all below: float32, which rounds nothing, or bfloat16 where cpu_has_bf16(). Parameters and
  /// what layers hand to each other stay float32.
  void set_product_type(at::ScalarType type);
  at::ScalarType product_type() const { return product_type_; }
  /// Whether a network that trains on the CPU in float32 has its images go through it with channels
  /// last, where it can: the same sums in another order. Networks read it, layers follow the layout
  /// of what comes in.
  void set_channels_last(bool last) { channels_last_ = last; }
  bool channels_last() const { return channels_last_; }

 protected:
  void add_child(const std::string& name, Module& child);
  void add_parameter(const std::string& name, Parameter& parameter);
  void add_buffer(const std::string& name, at::Tensor& buffer);
  /// Fills the module's own parameters, in the order of their registration, and none of its
  /// children's. Every module with parameters of its own overrides it: UsageError where one does
  /// not.
  virtual void initialise_own(at::Generator& generator);

 private:
  std::vector<std::pair<std::string, Module*>> children_;
  std::vector<std::pair<std::string, Parameter*>> own_;
  std::vector<std::pair<std::string, at::Tensor*>> own_buffers_;
  at::ScalarType product_type_ = at::kFloat;
  bool channels_last_ = false;
};

/// Marks a parameter (un)trainable; keeps requires_grad in step.
void set_trainable(Parameter& parameter, bool trainable);
/// Those that are trainable, in their order.
std::vector<Parameter*> trainable_of(const std::vector<Parameter*>& parameters);

/// Moves all values to `device`, in the layout that its kernels want. Before optimizers, averages
/// and engines are made of them.
void move_parameters(const std::vector<Parameter*>& parameters, c10::Device device);
/// The same for all parameters and buffers of a module.
void move_module(Module& module, c10::Device device);

}  // namespace sfumato
