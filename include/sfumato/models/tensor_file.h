#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <vector>

#include "sfumato/io/safetensors.h"
#include "sfumato/io/tensor_group.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

/// Weights as the files of a folder give them.
struct PretrainedWeights {
  NamedTensors weights;
  /// Of each network that they are of, with its config.json and weights: the one that draws first,
  /// then those that it learned from.
  std::vector<std::filesystem::path> folders;
};

/// Named tensors -> one safetensors file, atomically. Keeps dtypes float32, float64, float16,
/// bfloat16, int64, int32, uint8, bool; tensors are made contiguous.
void write_tensor_file(const std::filesystem::path& path, const NamedTensors& tensors,
                       unsigned mode = 0644);

/// The same tensors as a group, which keeps them: on the host and contiguous, so that those that
/// are already are shared. DataError for dtypes that are not written (above).
TensorGroup tensor_group(std::string name, const NamedTensors& tensors);

/// A copy of one stored tensor: integers (and bool) as int64, everything else as float32
/// (float64 stays float64).
at::Tensor to_tensor(const TensorInfo& info);
/// Copies of all tensors of a group.
NamedTensors to_tensors(const TensorGroup& group);

}  // namespace sfumato
