#pragma once
#include <chrono>
#include <memory>

#include "sfumato/dist/communicator.h"
#include "sfumato/dist/rank_identity.h"

namespace sfumato {

/// How long ranks wait for each other.
struct RankOptions {
  /// For all to come, at the beginning.
  std::chrono::milliseconds join{std::chrono::seconds(300)};
  /// For a sign of life, which every rank gives from a thread of its own whatever it computes. A
  /// rank that died, was stopped or is cut off is lost after that.
  std::chrono::milliseconds silence{std::chrono::seconds(30)};
  /// For a rank that lives, and does not hold, to come to a call in which others wait.
  std::chrono::milliseconds stuck{std::chrono::seconds(600)};
};

/// Joins the ranks that `identity` describes: single_process() where it is alone. Otherwise through
/// a store of names that rank 0 (or torchrun) serves, then Gloo for tensors on the CPU and NCCL for
/// those on a GPU, each tried out with known numbers; all ranks must be of the same build. From
/// then on SIGPIPE is ignored.
///
/// LostRank, to be started again: ranks do not come or are lost on the way, the port is in use, or
/// the name of this rank is still taken by an attempt before. UsageError: other builds, or other
/// numbers of processes.
std::shared_ptr<Communicator> join_ranks(const RankIdentity& identity,
                                         const RankOptions& options = {});
/// The same, as the environment says.
std::shared_ptr<Communicator> join_ranks(const RankOptions& options = {});

/// Threads for tensor work on this rank: `setting` (performance.threads) where it is not 0, else
/// its share of the machine's `cores`. Set them (set_threads) once ranks have joined: torchrun
/// sets OMP_NUM_THREADS=1 for each process, which is not meant for work on the CPU.
int64_t threads_of_rank(int64_t setting, int64_t cores, const Communicator& ranks);

/// Leaves to this rank one GPU of those that CUDA_VISIBLE_DEVICES shows, by local_rank(), where
/// several ranks share a host and it does not name one already. Before anything asks for a GPU.
void show_gpu_of_rank(const Communicator& ranks);

}  // namespace sfumato
