#include "sfumato/sweep/job_scripts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;

class JobScripts : public ::testing::Test {
 protected:
  JobScripts() { folder.write_sweep("  vary: {diffusion.draws: [1, 2]}\n"); }
  SweepFolder folder;
  ClusterJob job{"it's a.yaml", 3, 1, "/opt/sfumato", "registry/sfumato:cpu", {"--partition=gpu"}};
};

TEST_F(JobScripts, ForSlurmAreArraysThatQueueThemselvesAgain) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::string script = slurm_script(plan, job);
  EXPECT_THAT(script, AllOf(HasSubstr("#SBATCH --array=0-2\n"), HasSubstr("#SBATCH --ntasks=1\n"),
                            HasSubstr("#SBATCH --partition=gpu\n"), HasSubstr("scontrol requeue"),
                            HasSubstr("'/opt/sfumato' sweep run 'it'\\''s a.yaml' --task "
                                      "\"$SLURM_ARRAY_TASK_ID\" --of 3 &\n"),
                            Not(HasSubstr("--launch"))));
  folder.write("job.sh", script);
  EXPECT_EQ(std::system("bash -n job.sh"), 0);
  job.ranks = 4;
  EXPECT_THAT(slurm_script(plan, job),
              AllOf(HasSubstr("#SBATCH --ntasks=4\n"),
                    HasSubstr("--launch 'srun --kill-on-bad-exit=0 --ntasks=4'")));
}

TEST_F(JobScripts, TakeNoFurtherLines) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  job.options = {"--x\nrm -rf ."};
  EXPECT_THROW(slurm_script(plan, job), UsageError);
}

TEST_F(JobScripts, ForKubernetesAreIndexedJobs) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  EXPECT_THAT(
      kubernetes_job(plan, job),
      AllOf(HasSubstr("name: sweep-s}"), HasSubstr("completions: 3\n"),
            HasSubstr("args: [sweep, run, \"it's a.yaml\", --task, $(JOB_COMPLETION_INDEX), "
                      "--of, \"3\"]"),
            HasSubstr("claimName: sfumato-private")));
  job.ranks = 2;
  EXPECT_THAT(error_message<UsageError>([&] { kubernetes_job(plan, job); }),
              HasSubstr("a task on Kubernetes is one pod"));
}

}  // namespace
}  // namespace sfumato
