#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// SHA-256 over names, shapes and float32 values of a network, whatever file they lie in: what
/// older versions noted in a store.
std::string network_digest(const NamedTensors& weights);

/// The first 64 bits of a SHA-256 of a tensor's values alone, whatever its name and shape are.
/// Two that happen to be equal make public weights look known, never the other way round.
using TensorDigest = std::uint64_t;

/// Of every tensor, and of every row of a class table, as float32 and as copies are often kept:
/// rounded to half precision, to bfloat16, and to one after the other. Left out: what is constant,
/// and roundings with fewer than four different values, which other networks have as well.
std::vector<TensorDigest> digests_of_copies(const NamedTensors& weights);

/// Where weights come from that a record store remembers.
struct KnownWeights {
  std::string run_id;       ///< "" for a run without privacy
  std::string noted;        ///< when
  bool is_private = false;  ///< noise protected what they hold; false also for noise of a test key
  MechanismPlan plan;
  std::int64_t charged_steps = 0;
  /// Not "": the witness is there, and this is why it cannot be read. What the weights cost is
  /// then unknown.
  std::string defect;
};

/// What a record store remembers of the weights that one run on it writes, checkpoints and
/// releases: they know something of its images wherever they are copied to, with a card or without.
/// One line of uses/released_weights.jsonl for each of them: about 64 bytes a tensor, so that a
/// checkpoint with its average takes some 50 KB for a network of 400 tensors. No line is ever
/// dropped: what was written may have been copied before it was pruned.
class WeightsMemory {
 public:
  /// `start`: the network before its first step. Tensors that are still those are not noted, unless
  /// they are no public ones (`start_is_public`) and the store does not know them yet. Warns of a
  /// store that keeps no witness (it is read-only).
  WeightsMemory(std::filesystem::path store, const NamedTensors& start, bool start_is_public);

  /// Keeps a witness that these are about to be written. DataError if a store that keeps witnesses
  /// does not take this one: nothing may then be written.
  void remember(const KnownWeights& what,
                const std::vector<std::reference_wrapper<const NamedTensors>>& weights);

 private:
  bool is_new(TensorDigest digest, std::int64_t charged_steps) const;
  void read_own_notes(const KnownWeights& what);

  std::filesystem::path store_;
  bool writable_ = false, has_read_own_ = false, ends_torn_ = false;
  std::unordered_set<TensorDigest> start_;
  std::unordered_map<TensorDigest, std::int64_t> noted_;  ///< of this run, with its charges
};

/// The runs on `store`, or on one that was split from it or it from (related_stores), that wrote
/// one of these tensors, or a copy of it in less precision: one entry for each run, the one that
/// costs most. Witnesses that cannot be read make no other one unknown. DataError if a file itself
/// cannot be read.
std::vector<KnownWeights> find_known_weights(const std::filesystem::path& store,
                                             const NamedTensors& weights);

}  // namespace sfumato
