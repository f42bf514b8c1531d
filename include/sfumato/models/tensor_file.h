#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>

#include "sfumato/io/safetensors.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

/// Weights as the files of a folder give them.
struct PretrainedWeights {
  NamedTensors weights;
  std::filesystem::path folder;  ///< holds the files
};

/// Named tensors -> one safetensors file, atomically. Keeps dtypes float32, float64, float16,
/// bfloat16, int64, int32, uint8, bool; tensors are made contiguous.
void write_tensor_file(const std::filesystem::path& path, const NamedTensors& tensors,
                       unsigned mode = 0644);

/// A copy of one stored tensor: integers (and bool) as int64, everything else as float32
/// (float64 stays float64).
at::Tensor to_tensor(const TensorInfo& info);

}  // namespace sfumato
