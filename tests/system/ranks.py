#!/usr/bin/env python3
"""Trains and audits one run in several processes, as launchers start them, and kills some of them.

By torchrun, MPI and variables of the environment: a run of three processes is a run like any other
(its ledger verifies, one charge a step, one session, nothing written by followers); a signal to one
stops all at the same step; a process that is killed, or stopped, ends the others with status 5
within seconds, whichever it was, and the run goes on in another number of processes with every step
that was charged still counted; torchrun starts all anew after a kill.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from rank_runs import Network, Ranks, bare_environment, free_port, small_run, verify, wait_for_step
from sfumato_cli import (DEVICE, INTERRUPTED, ROOT, USAGE, check, complete_checkpoints,
                         ledger_charges, main, metric_lines, prepare_small_store)

STEPS = 40


def whole_run(sfumato, arguments, work: Path) -> None:
    run, followers = work / "three", work / "followers"
    one_command = [*arguments(run), "--resume=auto", "preview.every=10", "preview.images=4",
                   "preview.steps=2", "preview.share=1", "run.checkpoint_minutes=0.0001"]
    ranks = Ranks(sfumato, 3, one_command, work / "three.log",
                  lambda rank: [] if rank == 0 else [f"run.dir={followers}"])
    ranks.expect(0)
    shown = sorted(path.name for path in (run / "private/previews").glob("*.png"))
    check(shown == [f"step_{step:06}.png" for step in range(10, STEPS + 1, 10)],
          f"previews of three processes: {shown}")
    again = Ranks(sfumato, 2, one_command, work / "finished.log",
                  lambda rank: [] if rank == 0 else [f"run.dir={followers}"])
    again.expect(0)
    check("nothing left to do" in again.output(0), f"a finished run: {again.output(0)}")
    verify(sfumato, run, STEPS)
    check(len(ledger_charges(run)) == STEPS, f"{len(ledger_charges(run))} charges")
    check(not followers.exists(), "a follower wrote a run directory")
    check("trained" in ranks.output(0), "rank 0 does not say what was trained")
    for rank in (1, 2):
        check("trained" not in ranks.output(rank), f"rank {rank} speaks for the run")
    check([line["step"] for line in metric_lines(run)] == list(range(1, STEPS + 1)), "metrics")
    looking = Ranks(sfumato, 2, [run], work / "inspect.log", subcommand="inspect")
    looking.expect(0)
    check("steps" in looking.output(0) and not looking.output(1),
          f"inspect by two: {looking.output(0)}\n--\n{looking.output(1)}")
    planned = Ranks(sfumato, 2, ["--phase", "0.01:1.1:100", "--delta", "1e-5", "--accountant", "rdp"],
                    work / "account.log", subcommand="account")
    planned.expect(0)
    check("0.90748" in planned.output(0), planned.output(0))
    check(not planned.output(1), f"account by two prints twice: {planned.output(1)}")
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(card["status"] == "private", f"the card says {card['status']}")


def sample(sfumato, work: Path) -> None:
    options = ["--count", "23", "sample.steps=4", "sample.batch=4"]
    run, alone, shared = work / "three", work / "corpus_of_one", work / "corpus_of_three"
    sfumato.run("sample", run, "--out", alone, *options)
    Ranks(sfumato, 3, [run, "--out", shared, *options], work / "sample.log",
          subcommand="sample").expect(0)
    listed = [sorted(str(p.relative_to(c)) for p in c.rglob("*.png")) for c in (alone, shared)]
    check(listed[0] == listed[1] and len(listed[0]) == 23 + 1, f"other images: {listed}")
    for name in ("metadata.csv", "privacy_card.json"):
        check((alone / name).read_bytes() == (shared / name).read_bytes(), f"{name} differs")
    Ranks(sfumato, 2, [run, "--out", shared, *options], work / "again.log",
          subcommand="sample").expect(USAGE)  # it is there
    of_step = work / "corpus_of_step"
    Ranks(sfumato, 2, [f"{run}@{STEPS}", "--out", of_step, *options], work / "step.log",
          subcommand="sample").expect(0)
    weights = [json.loads((corpus / "privacy_card.json").read_text())["weights_sha256"]
               for corpus in (alone, of_step)]
    check(weights[0] == weights[1], f"the last step has other weights than the release: {weights}")
    Ranks(sfumato, 2, [f"{run}@{STEPS + 1}", "--out", work / "none", *options], work / "none.log",
          subcommand="sample").expect(USAGE)


def audits(sfumato, store: Path, work: Path) -> None:
    """What several processes share out says what one process says, byte by byte."""
    other = work / "other"
    other.mkdir()
    strangers = prepare_small_store(sfumato, other, per_class=41)
    one_thread = "performance.threads=1"
    membership = [work / "three", "--members", store, "--non-members", strangers, "--count", "60",
                  "--batch", "7", one_thread]
    replication = [work / "corpus_of_one", "--store", store, "--count", "40"]
    for name, arguments in (("membership", membership), ("replication", replication)):
        reports = []
        for size in (1, 2, 3):
            folder = work / f"{name}_by_{size}"
            os.environ["OMP_NUM_THREADS"] = "1"
            ranks = Ranks(sfumato, size, [*arguments, "--out", folder], work / f"{name}{size}.log",
                          subcommand=f"audit {name}")
            del os.environ["OMP_NUM_THREADS"]
            found = ranks.statuses()
            check(found == [found[0]] * size and found[0] in (0, 4), f"{name} by {size}: {found}")
            check("report, for the data holder" in ranks.output(0), ranks.output(0))
            for rank in range(1, size):
                check("report, for" not in ranks.output(rank), ranks.output(rank))
            reports.append({file.name: file.read_bytes().replace(str(folder).encode(), b"")
                            for file in sorted(folder.iterdir())})
        check(len(reports[0]) == 3 and reports[0] == reports[1] == reports[2],
              f"{name}: reports of 1, 2 and 3 processes differ: "
              f"{[n for n in reports[0] if not reports[0][n] == reports[1][n] == reports[2][n]]}")
    for name, arguments in (("conformance", []), ("canaries", ["--phase", "0.2:1:20"])):
        ranks = Ranks(sfumato, 2, [*arguments, "--json"], work / f"{name}.log",
                      subcommand=f"audit {name}")
        ranks.expect(0)
        said = json.loads(ranks.output(0))
        check(said["verdict"].startswith(("consistent", "no contradiction")), f"{name}: {said}")
        check(not ranks.output(1), f"{name}: rank 1 says {ranks.output(1)}")
        if name == "conformance":
            groups = {one["group"] for one in said["checks"]}
            check(said["ranks"] == 2 and "ranks" in groups, f"by {said['ranks']}, {groups}")


def kill_audit(sfumato, work: Path) -> None:
    ranks = Ranks(sfumato, 3, ["--phase", "0.2:1:100000"], work / "audit_killed.log",
                  subcommand="audit canaries")
    time.sleep(10)
    check(all(p.poll() is None for p in ranks.processes), "the audit ended before it was killed")
    ranks.processes[1].kill()
    begin = time.monotonic()
    found = ranks.statuses(timeout=90, but=1)
    check(found == [DEVICE] * 2, f"an audit lost rank 1, the others ended with {found}")
    check("rank 1 on" in ranks.output(0) + ranks.output(2), "nobody says that rank 1 was lost")
    print(f"audit, rank 1 lost by SIGKILL: the others ended after {time.monotonic() - begin:.1f} s")


def stop(sfumato, arguments, work: Path) -> None:
    run = work / "stopped"
    ranks = Ranks(sfumato, 3, arguments(run), work / "stopped.log")
    wait_for_step(run, 5, ranks.processes)
    ranks.processes[2].send_signal(signal.SIGTERM)
    ranks.expect(INTERRUPTED)
    charges = len(ledger_charges(run))
    check(max(complete_checkpoints(run)) == charges, "the checkpoint is not of the last step")
    Ranks(sfumato, 2, [*arguments(run), "--resume"], work / "stopped2.log").expect(0)
    check(len(ledger_charges(run)) == STEPS, "a step was lost")
    verify(sfumato, run, STEPS)


def kill(sfumato, arguments, work: Path, draw: random.Random, victim: int, how: int) -> None:
    run = work / f"killed{victim}_{how}"
    ranks = Ranks(sfumato, 3, arguments(run), work / f"killed{victim}_{how}.log")
    wait_for_step(run, draw.randint(4, 12), ranks.processes)
    time.sleep(draw.uniform(0, 0.05))
    ranks.processes[victim].send_signal(how)
    begin = time.monotonic()
    found = ranks.statuses(timeout=90, but=victim)
    seconds = time.monotonic() - begin
    # Only now: else it could go on before the others have noticed.
    if how == signal.SIGSTOP:
        ranks.processes[victim].kill()
    ranks.processes[victim].wait()
    check(found == [DEVICE] * 2, f"rank {victim} was lost, the others ended with {found}")
    # One that notices first ends, and a third may miss that one first.
    said = {rank: ranks.output(rank) for rank in {0, 1, 2} - {victim}}
    check(any(f"rank {victim} on" in text for text in said.values()),
          f"nobody says that rank {victim} was lost: {said}")
    for rank, text in said.items():
        check("can be continued from its last checkpoint" in text or f"rank {victim} on" in text,
              f"rank {rank} does not say what to do: {text[-800:]}")
    print(f"rank {victim} lost by {signal.Signals(how).name}: the others ended after {seconds:.1f} s")
    charges = len(ledger_charges(run))
    verify(sfumato, run, STEPS)
    Ranks(sfumato, draw.choice([1, 2]), [*arguments(run), "--resume"],
          work / f"killed{victim}_{how}b.log").expect(0)
    check(charges <= len(ledger_charges(run)) <= STEPS, "charges were forgotten, or are too many")
    verify(sfumato, run, STEPS)


def cut(sfumato, arguments, work: Path) -> str | None:
    """A node that is cut off, and sends no word that it is, ends all; it ends itself, too."""
    reason = Network.missing()
    if reason:
        return reason
    run = work / "cut"
    with Network(3) as network:
        ranks = Ranks(sfumato, 3, arguments(run), work / "cut.log", prefix=network.prefix,
                      address=network.address(0))
        wait_for_step(run, 5, ranks.processes)
        network.cut(1)
        begin = time.monotonic()
        found = ranks.statuses(timeout=90)
    print(f"rank 1 cut off: all ended after {time.monotonic() - begin:.1f} s")
    check(found == [DEVICE] * 3, f"a cut network: they ended with {found}")
    check("rank 1 on" in ranks.output(0) + ranks.output(2), "nobody says that rank 1 was cut off")
    Ranks(sfumato, 2, [*arguments(run), "--resume"], work / "cut2.log").expect(0)
    verify(sfumato, run, STEPS)
    return None


def torchrun(sfumato, arguments, work: Path) -> str | None:
    program = ROOT / ".venv/bin/torchrun"
    if not program.exists():
        return "no torchrun in .venv"
    run = work / "elastic"
    command = [str(program), "--no-python", "--nproc-per-node=2", "--max-restarts=2",
               "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}",
               str(sfumato.binary), "train", *arguments(run), "--resume-or-start"]
    with (work / "elastic.log").open("wb") as log:
        agent = subprocess.Popen(command, cwd=ROOT, env=bare_environment(), stdout=log,
                                 stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    sfumato._started.append(agent)
    wait_for_step(run, 8, [agent])
    workers = [int(pid) for pid in
               Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
    trainers = [pid for pid in workers
                if "train" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")]
    check(len(trainers) == 2, f"torchrun has the children {workers}, of which {trainers} train")
    os.kill(trainers[-1], signal.SIGKILL)
    check(agent.wait(timeout=300) == 0, f"torchrun did not end well; see {work}/elastic.log")
    charges = len(ledger_charges(run))
    check(charges == STEPS, f"{charges} charges of {STEPS}")
    verify(sfumato, run, STEPS)
    return None


def mpirun(sfumato, arguments, work: Path) -> str | None:
    """Two processes that OpenMPI starts take one run."""
    if shutil.which("mpirun") is None:
        return "no mpirun (apt-get install openmpi-bin)"
    run = work / "mpi"
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", str(sfumato.binary), "train",
               *arguments(run), "mechanism.steps=6"]
    environment = bare_environment() | {"MASTER_PORT": str(free_port())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    check(done.returncode == 0, f"mpirun ended with {done.returncode}: {done.stdout}{done.stderr}")
    check(done.stdout.count("trained 6 steps") == 1, f"not one run: {done.stdout}")
    verify(sfumato, run, 6)
    check(len(ledger_charges(run)) == 6, f"{len(ledger_charges(run))} charges of 6")
    return None


def ranks_check(sfumato, work: Path, arguments):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}")
    draw = random.Random(seed)
    store = prepare_small_store(sfumato, work)

    def of(run: Path) -> list[str]:
        return small_run(store, run, STEPS)

    whole_run(sfumato, of, work)
    sample(sfumato, work)
    audits(sfumato, store, work)
    kill_audit(sfumato, work)
    stop(sfumato, of, work)
    for victim, how in ((1, signal.SIGKILL), (0, signal.SIGKILL), (2, signal.SIGSTOP)):
        kill(sfumato, of, work, draw, victim, how)
    for reason in (cut(sfumato, of, work), mpirun(sfumato, of, work), torchrun(sfumato, of, work)):
        if reason:
            print(f"not tried: {reason}")


if __name__ == "__main__":
    main(ranks_check, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--seed", type=int, help="of the moments of the kills"))
