#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/models/checkpoint_io.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// SHA-256 over names, shapes and float32 values of a network, whatever file they lie in: sorted by
/// name, so that another order, other shards, other metadata or older key names change nothing.
std::string network_digest(const NamedTensors& weights);

/// Weights that left a run on a record store, as the store remembers them. They know something of
/// its images wherever they are copied to, with their card or without.
struct ReleasedWeights {
  std::string run_id;  ///< "" for a run without privacy
  std::string released;
  bool is_private = false;  ///< noise protected what they hold; false also for noise of a test key
  MechanismPlan plan;
  std::int64_t charged_steps = 0;
  /// network_digest of the weights, and of the same rounded to half precision and to bfloat16, as
  /// copies are often kept.
  std::vector<std::string> digests;
};

/// Notes in `store` that these weights are about to leave a run. What the store cannot take (it is
/// read-only) is warned of. Nothing is noted of weights that are still those the run started from
/// (`initial_digest`): they were not made there.
void remember_release(const std::filesystem::path& store, const NamedTensors& weights,
                      const std::string& initial_digest, ReleasedWeights note);

/// The release that left `store` with weights of this digest, if it knows one. DataError if its
/// notes are damaged.
std::optional<ReleasedWeights> find_release(const std::filesystem::path& store,
                                            const std::string& digest);

}  // namespace sfumato
