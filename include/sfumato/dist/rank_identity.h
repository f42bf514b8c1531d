#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace sfumato {

/// Which of several processes this one is, and where they meet; as its launcher says.
struct RankIdentity {
  int64_t rank = 0;
  int64_t size = 1;
  std::string launcher = "none";  ///< "torchrun", "Slurm", "MPI", ...
  std::string host;               ///< of rank 0, or of the store of names
  std::uint16_t port = 0;
  bool store_is_served = false;  ///< torchrun serves the store; otherwise rank 0 does
  /// Keeps the names of this run, and of this attempt at it, apart from others in the same store.
  std::string attempt;
};

/// The value of an environment variable, nothing where it is unset or empty.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

/// From the environment alone. In this order, the first that is there:
///   SFUMATO_LAUNCHER=none  alone, whatever else is set
///   torchrun               TORCHELASTIC_RUN_ID: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
///   by hand                WORLD_SIZE, and RANK or JOB_COMPLETION_INDEX (Kubernetes' indexed job,
///                          which does not tell its size)
///   MPI                    OMPI_COMM_WORLD_RANK and _SIZE, or PMI_RANK and PMI_SIZE
///   Slurm                  a step of several tasks: SLURM_PROCID, SLURM_STEP_NUM_TASKS. Not the
///                          batch script, nor a shell of salloc, nor srun of one task
///   Kubeflow               PET_NNODES, PET_NPROC_PER_NODE=1, PET_NODE_RANK, PET_MASTER_ADDR
///   none                   this process alone
/// UsageError names the variables: where one is missing or no number, where a rank is not below the
/// size, where two launchers that did not start each other disagree.
RankIdentity identity_of_environment(const Environment& environment);
/// Of this process.
RankIdentity identity_of_environment();

}  // namespace sfumato
