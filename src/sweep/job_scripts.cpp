#include "sfumato/sweep/job_scripts.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/shell_word.h"

namespace sfumato {
namespace {

/// One scalar of YAML, whatever it holds.
std::string json_quote(const std::string& text) { return nlohmann::json(text).dump(); }

/// A name that Kubernetes takes: lower case, digits and '-', at most 63 of them.
std::string kubernetes_name(const std::string& name) {
  std::string text = "sweep-" + name.substr(0, 50);
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_') c = '-';
  }
  while (text.back() == '-') text.pop_back();
  return text;
}

constexpr std::string_view kSlurmBody = R"(#SBATCH --requeue
#SBATCH --open-mode=append
# Seconds before the end: more than a step and a checkpoint take.
#SBATCH --signal=B:USR1@120
set -uo pipefail
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
stopped=''
launcher=''
# Slurm tells this script alone (B:), which hands it on; what scancel and preemption send comes once.
trap 'stopped=USR1; kill -USR1 "$launcher"' USR1
trap 'stopped=TERM; kill -USR1 "$launcher"' TERM
)";

constexpr std::string_view kSlurmEnd = R"(launcher=$!
# A trap interrupts wait, and the runs go on to their checkpoints.
while kill -0 "$launcher" 2>/dev/null; do wait "$launcher"; done
wait "$launcher"
status=$?
if ((status == 130)) && [[ $stopped == USR1 ]]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  exit 0
fi
exit "$status"
)";

}  // namespace

std::string slurm_script(const SweepPlan& plan, const ClusterJob& job) {
  std::string text = fmt::format(
      "#!/usr/bin/env bash\n# usage: sbatch THIS_FILE, in the folder in which sweeps/ lies\n"
      "#SBATCH --job-name={}\n#SBATCH --array=0-{}\n#SBATCH --ntasks={}\n"
      "#SBATCH --output={}/slurm-%A_%a.log\n",
      plan.name(), job.tasks - 1, job.ranks, (plan.private_folder() / "logs").string());
  for (const std::string& option : job.options) {
    if (!option.starts_with("--") || option.find('\n') != std::string::npos)
      throw UsageError(
          fmt::format("--option {}: expected an option of sbatch, as "
                      "--option=--partition=gpu",
                      option));
    text += "#SBATCH " + option + "\n";
  }
  text += kSlurmBody;
  const std::string launch =
      job.ranks > 1 ? fmt::format(" --launch 'srun --kill-on-bad-exit=0 --ntasks={}'", job.ranks)
                    : "";
  text += fmt::format("{} sweep run {} --task \"$SLURM_ARRAY_TASK_ID\" --of {}{} &\n",
                      shell_quoted(job.program), shell_quoted(job.file), job.tasks, launch);
  return text + std::string(kSlurmEnd);
}

std::string kubernetes_job(const SweepPlan& plan, const ClusterJob& job) {
  if (job.ranks > 1)
    throw UsageError(
        "a task on Kubernetes is one pod; several processes a run need a group of pods: see "
        "deploy/kubernetes/ranks for one run, or Slurm for a sweep");
  return fmt::format(
      R"(# kubectl apply -f deploy/kubernetes/base/volume.yaml -f deploy/kubernetes/base/network.yaml -f THIS_FILE
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completionMode: Indexed
  completions: {tasks}
  parallelism: {tasks}
  backoffLimit: {backoff}
  podFailurePolicy:
    rules:
      # Usage, data, privacy: the same again.
      - action: FailJob
        onExitCodes: {{containerName: sweep, operator: In, values: [2, 3, 4]}}
      # Stopped with a checkpoint, or moved by the cluster: no failure.
      - action: Ignore
        onExitCodes: {{containerName: sweep, operator: In, values: [130]}}
      - action: Ignore
        onPodConditions: [{{type: DisruptionTarget, status: "True"}}]
  template:
    metadata: {{labels: {{app: sfumato}}}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 120
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: sweep
          image: {image}
          workingDir: /private
          args: [sweep, run, {file}, --task, $(JOB_COMPLETION_INDEX), --of, "{tasks}"]
          resources:
            requests: {{cpu: "4", memory: 8Gi}}
            limits: {{memory: 8Gi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: private, mountPath: /private}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - {{name: private, persistentVolumeClaim: {{claimName: sfumato-private}}}}
        - {{name: tmp, emptyDir: {{}}}}
)",
      fmt::arg("name", kubernetes_name(plan.name())), fmt::arg("tasks", job.tasks),
      fmt::arg("backoff", 20 * job.tasks), fmt::arg("image", json_quote(job.image)),
      fmt::arg("file", json_quote(job.file)));
}

}  // namespace sfumato
