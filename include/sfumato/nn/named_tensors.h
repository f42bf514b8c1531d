#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "sfumato/nn/module.h"

namespace sfumato {

/// Tensors by name, in a fixed order, as in a state_dict.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
/// Several of them, each under a name of its own: what a checkpoint keeps of a generator.
using NamedGroups = std::vector<std::pair<std::string, NamedTensors>>;

/// Keys and values (shared, not copied, without gradients) of parameters, trainable or not.
NamedTensors named_values(const std::vector<Parameter*>& parameters);

/// Parameters, then buffers: what a state dict of the module holds.
NamedTensors named_state(Module& module);

/// Copies `from` into the tensors of `to`. DataError, which begins with `what` and names the first
/// tensor that differs, unless both have the same names and shapes in the same order.
void copy_named_tensors(const NamedTensors& from, const NamedTensors& to, const std::string& what);

/// Whether no number is NaN or infinite, judged on the CPU: the answer must not come from what a
/// broken device makes of its own numbers.
bool all_finite(const at::Tensor& values);
/// The same of all tensors of all groups.
bool all_finite(const NamedGroups& groups);
/// That the elements of all tensors take.
std::int64_t bytes_of(const NamedGroups& groups);
/// All tensors of all groups, one after the other.
NamedTensors joined(const NamedGroups& groups);
/// The group of this name; DataError if there is none.
const NamedTensors& group_of(const NamedGroups& groups, const std::string& name);

}  // namespace sfumato
