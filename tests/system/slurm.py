#!/usr/bin/env python3
"""scripts/slurm/train.sbatch under a real Slurm of one controller and two nodes on this machine: tasks on
both nodes, an array of runs, a job that SIGUSR1 stops, that queues itself again and goes on, and one run
of two tasks on two nodes, of which one is killed.
"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (ROOT, check, ledger_charges, main, metric_lines, prepare_small_store,
                         smoke_arguments)
from sweep_files import check_done, runs_of, write_sweep

STEPS = 12
LONG_STEPS = 60
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel")
CONFIGURATION = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthInfo=socket={work}/munge.socket
StateSaveLocation={work}/state
SlurmdSpoolDir={work}/spool.%n
SlurmctldPidFile={work}/slurmctld.pid
SlurmdPidFile={work}/slurmd.%n.pid
SlurmctldLogFile={work}/slurmctld.log
SlurmdLogFile={work}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout=600
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Runs as long as the check; its files are in a folder of the check."""

    def __init__(self, work: Path):
        self.work = work
        self.environment = {**os.environ, "SLURM_CONF": str(work / "slurm.conf")}
        self.services: list[subprocess.Popen] = []

    def start(self) -> None:
        (self.work / "state").mkdir()
        key = self.work / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], ports=free_ports(3), work=self.work)
        (self.work / "slurm.conf").write_text(text)
        self.service("munged", "--foreground", "--force", f"--socket={self.work}/munge.socket",
                     f"--key-file={key}", f"--log-file={self.work}/munged.log",
                     f"--pid-file={self.work}/munged.pid", f"--seed-file={self.work}/munged.seed")
        self.until(lambda: (self.work / "munge.socket").exists(), "munged does not start")
        self.service("slurmctld", "-D")
        for node in ("n0", "n1"):
            self.service("slurmd", "-D", "-N", node)
        self.until(lambda: self.call("sinfo", "--noheader", "--format=%D %t", check_status=False).strip() == "2 idle",
                   "the nodes do not come up")

    def service(self, *command) -> None:
        with (self.work / "services.log").open("ab") as log:
            self.services.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log,
                                                  stdin=subprocess.DEVNULL))

    def call(self, *command, check_status: bool = True, timeout: float = 120) -> str:
        done = subprocess.run(list(map(str, command)), env=self.environment, cwd=ROOT, text=True, timeout=timeout,
                              capture_output=True)
        check(done.returncode == 0 or not check_status,
              f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def until(self, condition, message: str, timeout_s: float = 120) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            check(time.monotonic() < end, f"{message}; see the logs in {self.work}")
            check(all(service.poll() is None for service in self.services),
                  f"a service ended; see the logs in {self.work}")
            time.sleep(0.1)

    def submit(self, sfumato, *arguments, options=()) -> str:
        command = ("sbatch", "--parsable", f"--export=ALL,SFUMATO={sfumato.binary}", "--cpus-per-task=1",
                   f"--output={self.work}/job-%A_%a.log", *options, ROOT / "scripts/slurm/train.sbatch", *arguments)
        return self.call(*command).strip().split(";")[0]

    def wait(self, job: str) -> None:
        self.until(lambda: not self.call("squeue", "--noheader", "--jobs", job, check_status=False).strip(),
                   f"job {job} does not end", timeout_s=300)

    def stop(self) -> None:
        self.call("scancel", "--user=root", check_status=False)
        for service in reversed(self.services):
            service.send_signal(signal.SIGTERM)
            try:
                service.wait(timeout=20)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()


def check_nodes(cluster: Cluster, sfumato) -> None:
    said = cluster.call("srun", "--nodes=2", "--ntasks=2", "sh", "-c", '"$0" --version && echo ran', sfumato.binary)
    # Both run it; what every process would say alike, the first says alone.
    check(sorted(said.splitlines()) == [*sfumato.run("--version").stdout.splitlines(), "ran", "ran"], f"srun says {said}")


def check_array(cluster: Cluster, sfumato, store: Path, work: Path) -> None:
    """A run for each task; the card says what it would elsewhere."""
    arguments = smoke_arguments(store, work / "array{task}", f"mechanism.steps={STEPS}", "run.seed={task}")
    cluster.wait(cluster.submit(sfumato, *arguments, options=["--array=0-1"]))
    for task in (0, 1):
        run = work / f"array{task}"
        check((run / "release/privacy_card.json").is_file(), f"task {task} left no release; see {work}/job-*.log")
        check(len(ledger_charges(run)) == STEPS, f"{len(ledger_charges(run))} charges for {STEPS} steps")


def check_requeue(cluster: Cluster, sfumato, store: Path, work: Path) -> None:
    """As --signal=B:USR1 does before the end: no step is lost or charged twice."""
    run = work / "requeued"
    arguments = smoke_arguments(store, run, f"mechanism.steps={LONG_STEPS}", "run.checkpoint_every=1000",
                                "run.log_every=1")
    job = cluster.submit(sfumato, *arguments, options=["--output=" + str(work / "job-%j.log")])
    cluster.until(lambda: len(metric_lines(run)) >= 3, "no steps")
    cluster.call("scancel", "--batch", "--signal=USR1", job)

    def restarts() -> str:
        said = cluster.call("scontrol", "show", "job", job)
        return said.split("Restarts=")[1].split()[0] + said.split("JobState=")[1].split()[0]

    cluster.until(lambda: restarts() in ("1PENDING", "1RUNNING"), "the job does not queue again")
    stopped = len(metric_lines(run))
    check(3 <= stopped < LONG_STEPS, f"stopped at step {stopped}")
    # Slurm holds a job back for two minutes after it was queued again; at once, the node still refuses it.
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+5seconds")
    cluster.wait(job)
    check((run / "release/privacy_card.json").is_file(), f"no release; see {work}/job-{job}*.log")
    check([line["step"] for line in metric_lines(run)] == list(range(1, LONG_STEPS + 1)), "steps repeat or are lost")
    check(len(ledger_charges(run)) == LONG_STEPS, f"{len(ledger_charges(run))} charges for {LONG_STEPS} steps")
    sfumato.run("ledger", "verify", run)


def check_ranks(cluster: Cluster, sfumato, store: Path, work: Path) -> None:
    """Two tasks on two nodes take one run together; one is killed, and the job queues again."""
    run = work / "ranks"
    arguments = smoke_arguments(store, run, f"mechanism.steps={LONG_STEPS}", "run.checkpoint_every=3",
                                "run.log_every=1", "performance.physical_batch=8")
    # The names of these two nodes are in no name service.
    export = f"--export=ALL,SFUMATO={sfumato.binary},MASTER_ADDR=127.0.0.1"
    job = cluster.submit(sfumato, *arguments,
                         options=["--ntasks=2", "--nodes=2", export, f"--output={work}/job-%j.log"])
    cluster.until(lambda: len(ledger_charges(run)) >= 5, f"no steps; see {work}/job-{job}.log")
    tasks = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
             if (environment := variables_of(pid)).get("SLURM_JOB_ID") == job and
             environment.get("SLURM_PROCID") == "1" and is_training(pid)]
    check(len(tasks) == 1, f"the second task's processes: {tasks}")
    os.kill(tasks[0], signal.SIGKILL)
    cluster.until(lambda: "Restarts=1" in cluster.call("scontrol", "show", "job", job), "the job does not queue again")
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+5seconds")
    cluster.wait(job)
    check((run / "release/privacy_card.json").is_file(), f"no release; see {work}/job-{job}.log")
    check(len(ledger_charges(run)) == LONG_STEPS, f"{len(ledger_charges(run))} charges for {LONG_STEPS} steps")
    sfumato.run("ledger", "verify", run)


def check_sweep(cluster: Cluster, sfumato, store: Path, work: Path) -> None:
    """Two tasks of an array share the runs of a sweep; a run of two processes is started by srun."""
    for name, options, jobs in (("array", ["--tasks", "2"], 2), ("wide", ["--tasks", "1", "--ranks", "2"], 1)):
        file = write_sweep(work, store, name, f"  purpose: ablation\n  repeat: {jobs * 2}\n", STEPS)
        command = [sfumato.binary, "sweep", "slurm", file, "--option=--cpus-per-task=1", *options]
        script = work / f"{name}.sbatch"
        script.write_text(subprocess.run(list(map(str, command)), cwd=work, check=True, capture_output=True,
                                         text=True).stdout)
        # The names of these two nodes are in no name service.
        job = cluster.call("sbatch", "--parsable", f"--chdir={work}", "--export=ALL,MASTER_ADDR=127.0.0.1",
                           script).strip().split(";")[0]
        cluster.wait(job)
        check_done(runs_of(work, name), jobs * 2, STEPS)
        for run in runs_of(work, name):
            sfumato.run("ledger", "verify", run)


def variables_of(pid: int) -> dict[str, str]:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(word.decode(errors="replace").partition("=")[::2] for word in words if word)


def is_training(pid: int) -> bool:
    try:
        return b"sfumato" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def check_slurm(sfumato, work: Path, _):
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "needs root, for the nodes"
    store = prepare_small_store(sfumato, work)
    cluster = Cluster(work)
    try:
        cluster.start()
        check_nodes(cluster, sfumato)
        check_array(cluster, sfumato, store, work)
        check_sweep(cluster, sfumato, store, work)
        check_requeue(cluster, sfumato, store, work)
        check_ranks(cluster, sfumato, store, work)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main(check_slurm, __doc__.splitlines()[0])
