#include "sfumato/nn/named_tensors.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <c10/util/StringUtil.h>
#include <fmt/format.h>

#include "sfumato/core/error.h"

namespace sfumato {

NamedTensors named_values(const std::vector<Parameter*>& parameters) {
  NamedTensors values;
  for (const Parameter* parameter : parameters)
    values.emplace_back(parameter->name, parameter->value.detach());
  return values;
}

NamedTensors named_state(Module& module) {
  NamedTensors state = named_values(module.parameters());
  for (const auto& [name, buffer] : module.buffers()) state.emplace_back(name, *buffer);
  return state;
}

void copy_named_tensors(const NamedTensors& from, const NamedTensors& to, const std::string& what) {
  if (from.size() != to.size())
    throw DataError(
        fmt::format("{} has {} tensors where this run needs {}; it belongs to another optimizer, "
                    "another network or another set of trainable parameters",
                    what, from.size(), to.size()));
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < from.size(); ++i) {
    const auto& [name, tensor] = from[i];
    if (name != to[i].first || tensor.sizes() != to[i].second.sizes())
      throw DataError(fmt::format("{} holds '{}' where '{}' of shape {} belongs", what, name,
                                  to[i].first, c10::str(to[i].second.sizes())));
    to[i].second.detach().copy_(tensor);
  }
}

bool all_finite(const at::Tensor& values) {
  return at::isfinite(values.detach().to(at::kCPU)).all().item<bool>();
}

std::int64_t bytes_of(const NamedGroups& groups) {
  std::int64_t bytes = 0;
  for (const auto& [group, tensors] : groups)
    for (const auto& [name, tensor] : tensors)
      bytes += tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
  return bytes;
}

bool all_finite(const NamedGroups& groups) {
  for (const auto& [name, tensors] : groups)
    for (const auto& [key, tensor] : tensors)
      if (!all_finite(tensor)) return false;
  return true;
}

NamedTensors joined(const NamedGroups& groups) {
  NamedTensors all;
  for (const auto& [name, tensors] : groups) all.insert(all.end(), tensors.begin(), tensors.end());
  return all;
}

const NamedTensors& group_of(const NamedGroups& groups, const std::string& name) {
  for (const auto& [group, tensors] : groups)
    if (group == name) return tensors;
  throw DataError(
      fmt::format("the checkpoint has no tensors '{}': it is of another family of "
                  "generators than model.family names",
                  name));
}

}  // namespace sfumato
