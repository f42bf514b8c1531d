#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/io/tensor_group.h"

namespace sfumato {

/// Everything a resumed run needs but keys and noise, which are never stored.
struct Checkpoint {
  int64_t step = 0;  ///< optimizer steps done
  /// Whatever the generator needs, each by a name of its own (of a-z, 0-9 and _). The network that
  /// is released is kReleasedGroup, its average kAverageGroup: verification holds a release against
  /// them.
  std::vector<TensorGroup> groups;
  nlohmann::json state;  ///< plan hash, ledger head, ...

  /// DataError if there is none of this name.
  const TensorGroup& group(std::string_view name) const;
};

/// Writes `folder`/step_000100: a file NAME.safetensors for each group, state.json, then DONE. A
/// crash leaves a folder without DONE, which readers ignore. Files have mode 0600.
void write_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint);

/// The complete checkpoint with the highest step, if any.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

/// Steps of the complete checkpoints, in their order.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& folder);

/// The complete checkpoint of a step. UsageError, which lists the steps that have one, if there is
/// none.
std::filesystem::path checkpoint_of_step(const std::filesystem::path& folder, int64_t step);
/// For messages: "50, 100 and 150", or "no step".
std::string steps_text(const std::vector<int64_t>& steps);

/// DataError for an incomplete or damaged one.
Checkpoint read_checkpoint(const std::filesystem::path& path);

/// Names of the groups in a checkpoint with this state.json, in their order. DataError, naming
/// `file`, for names that are none.
std::vector<std::string> checkpoint_groups(const nlohmann::json& state,
                                           const std::filesystem::path& file);

/// Removes incomplete checkpoints and all complete ones but the newest `keep_last` and those at
/// multiples of `keep_every` (0: none).
void prune_checkpoints(const std::filesystem::path& folder, int64_t keep_last, int64_t keep_every);

}  // namespace sfumato
