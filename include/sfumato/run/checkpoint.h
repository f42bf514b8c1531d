#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "sfumato/models/tensor_file.h"

namespace sfumato {

/// Everything a resumed run needs but keys and noise, which are never stored.
struct Checkpoint {
  int64_t step = 0;  ///< optimizer steps done
  NamedTensors model, ema, optimizer;
  nlohmann::json state;  ///< plan hash, ledger head, ...
};

/// Writes `folder`/step_000100: tensors, state.json, then DONE. A crash leaves a folder without
/// DONE, which readers ignore. Files have mode 0600.
void write_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint);

/// The complete checkpoint with the highest step, if any.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

/// DataError for an incomplete or damaged one.
Checkpoint read_checkpoint(const std::filesystem::path& path);

/// Removes incomplete checkpoints and all complete ones but the newest `keep_last` and those at
/// multiples of `keep_every` (0: none).
void prune_checkpoints(const std::filesystem::path& folder, int64_t keep_last, int64_t keep_every);

}  // namespace sfumato
