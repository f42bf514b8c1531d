#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/io/safetensors.h"

namespace sfumato {

/// Tensors that belong together, in a fixed order: a network, its average, an optimizer's state.
struct TensorGroup {
  std::string name;  ///< of its file, NAME.safetensors
  std::vector<TensorInfo> tensors;
  std::shared_ptr<const void> memory;  ///< what the tensors' bytes lie in
};

/// The groups of every generator: the network that is released, and its average.
inline constexpr const char *kReleasedGroup = "model", *kAverageGroup = "ema";
/// A network that the released one learned from, where a generator has one: as it is in a release
/// that holds it too.
inline constexpr const char* kDiscriminatorGroup = "discriminator";
/// The trainer's: the state of the optimizer that moves the private parameters. It is written
/// beside the generator's groups, so that no generator may give this name to one of its own.
inline constexpr const char* kOptimizerGroup = "optimizer";

/// Writes `folder`/NAME.safetensors, atomically.
void write_tensor_group(const std::filesystem::path& folder, const TensorGroup& group,
                        unsigned mode = 0644);

/// A copy of the tensors called `names` of `folder`/NAME.safetensors, in this order. DataError as
/// of SafetensorsFile, and if one is not there.
TensorGroup read_tensor_group(const std::filesystem::path& folder, const std::string& name,
                              const std::vector<std::string>& names);

}  // namespace sfumato
