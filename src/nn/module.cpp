#include "sfumato/nn/module.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato {

std::vector<Parameter*> Module::parameters() {
  std::vector<Parameter*> all;
  for (const auto& [name, parameter] : own_) all.push_back(parameter);
  for (const auto& [name, child] : children_) {
    const std::vector<Parameter*> below = child->parameters();
    all.insert(all.end(), below.begin(), below.end());
  }
  return all;
}

std::vector<std::pair<std::string, at::Tensor*>> Module::buffers() {
  std::vector<std::pair<std::string, at::Tensor*>> all = own_buffers_;
  for (const auto& [name, child] : children_)
    for (const auto& [below, buffer] : child->buffers())
      all.emplace_back(name + "." + below, buffer);
  return all;
}

void Module::name_parameters(const std::string& prefix) {
  for (const auto& [name, parameter] : own_) parameter->name = prefix + name;
  for (const auto& [name, child] : children_) child->name_parameters(prefix + name + ".");
}

void Module::initialise(uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  initialise(generator);
}

void Module::initialise(at::Generator& generator) {
  const at::NoGradGuard no_grad;
  initialise_own(generator);
  for (const auto& [name, child] : children_) child->initialise(generator);
}

void Module::set_product_type(at::ScalarType type) {
  product_type_ = type;
  for (const auto& [name, child] : children_) child->set_product_type(type);
}

void Module::initialise_own(at::Generator&) {
  if (own_.empty()) return;
  throw UsageError(fmt::format(
      "nothing says what the parameter '{}' starts with: its module has to override initialise_own",
      own_.front().second->name));
}

void Module::add_child(const std::string& name, Module& child) {
  children_.emplace_back(name, &child);
}

void Module::add_parameter(const std::string& name, Parameter& parameter) {
  parameter.name = name;
  own_.emplace_back(name, &parameter);
}

void Module::add_buffer(const std::string& name, at::Tensor& buffer) {
  own_buffers_.emplace_back(name, &buffer);
}

void set_trainable(Parameter& parameter, bool trainable) {
  parameter.trainable = trainable;
  parameter.value.requires_grad_(trainable);
}

std::vector<Parameter*> trainable_of(const std::vector<Parameter*>& parameters) {
  std::vector<Parameter*> trainable = parameters;
  std::erase_if(trainable, [](const Parameter* parameter) { return !parameter->trainable; });
  return trainable;
}

void move_parameters(const std::vector<Parameter*>& parameters, c10::Device device) {
  for (Parameter* parameter : parameters) {
    at::Tensor moved = parameter->value.detach().to(device);
    // Copied even where it is contiguous in this sense: of one input channel, any strides are, and
    // libraries read from strides alone that outputs are to be channels last too.
    if (kernels_for(moved) != nullptr)
      moved = at::empty_like(moved, moved.options(), parameter->kernel_layout).copy_(moved);
    parameter->value = moved.set_requires_grad(parameter->trainable);
  }
}

void move_module(Module& module, c10::Device device) {
  move_parameters(module.parameters(), device);
  for (const auto& [name, buffer] : module.buffers()) *buffer = buffer->to(device);
}

}  // namespace sfumato
