#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

/// How a cluster runs a sweep: `tasks` at a time share its runs, each takes one run after the
/// other. Their number says nothing of how many runs a private selection has.
struct ClusterJob {
  std::string file;  ///< the sweep's, as the tasks find it
  std::int64_t tasks = 1;
  std::int64_t ranks = 1;            ///< processes of each run
  std::string program;               ///< Slurm: sfumato on the nodes
  std::string image;                 ///< Kubernetes
  std::vector<std::string> options;  ///< Slurm: further lines #SBATCH, as "--partition=gpu"
};

/// An array job for sbatch, submitted from the folder in which `sweeps/` lies. Its tasks hand
/// SIGUSR1 on before time is up, and queue themselves again.
std::string slurm_script(const SweepPlan& plan, const ClusterJob& job);

/// An Indexed Job with the claim, policies and limits of deploy/kubernetes/base, in whose volume
/// the file, its base, the store and `sweeps/` lie. UsageError for several ranks: they would need a
/// group of pods for each task.
std::string kubernetes_job(const SweepPlan& plan, const ClusterJob& job);

}  // namespace sfumato
