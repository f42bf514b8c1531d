#!/usr/bin/env python3
"""Kills training 25 times at random moments (SIGKILL) and resumes it each time.

What must hold after every kill: the ledger verifies; it charges at least every step that left a
trace (a line of metrics, a checkpoint); a complete checkpoint is never lost, and training goes on
from the newest; the metrics go from step to step, without one that was lost. In the end a run finishes with at most the planned number of charges and an epsilon
within its target.
"""
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (check, complete_checkpoints, ledger_charges, main, metric_lines,
                         prepare_small_store, smoke_arguments, steps_taken)

KILLS = 25
STEPS = 150
TARGET_EPSILON = 8


class Run:
    """One run directory that is killed again and again until it finishes."""

    def __init__(self, sfumato, work: Path, store: Path, number: int):
        self.sfumato = sfumato
        self.folder = work / f"run{number}"
        self.log = work / f"run{number}.log"
        self.arguments = smoke_arguments(
            store, self.folder, f"mechanism.steps={STEPS}",
            f"mechanism.target_epsilon={TARGET_EPSILON}", "run.checkpoint_every=3",
            "run.log_every=1", "performance.physical_batch=16")
        self.taken_before = {}  # steps taken when the latest session started
        self.newest_before = 0  # step of the newest complete checkpoint then

    def start(self):
        # Without config.yaml nothing has begun, and a plain start takes the folder over.
        resume = ["--resume"] if (self.folder / "config.yaml").exists() else []
        self.taken_before = steps_taken(self.folder)
        self.newest_before = max(complete_checkpoints(self.folder), default=0)
        return self.sfumato.start("train", *self.arguments, *resume, log=self.log)

    def wait_for_steps(self, process, steps: int, timeout: float = 300) -> None:
        """Until this session has taken so many steps, or has ended."""
        deadline = time.monotonic() + timeout
        wanted = len(self.taken_before) + steps
        while process.poll() is None and len(steps_taken(self.folder)) < wanted:
            check(time.monotonic() < deadline, f"no {steps} steps in {timeout} s; see {self.log}")
            time.sleep(0.005)

    def verify(self) -> None:
        taken = steps_taken(self.folder)
        charges = ledger_charges(self.folder)
        newest = max(complete_checkpoints(self.folder), default=0)
        check(len(charges) >= len(taken),
              f"{len(taken)} steps were taken, the ledger charges {len(charges)}")
        check(len(charges) >= newest, f"checkpoint of step {newest}, {len(charges)} charges")
        check(newest >= self.newest_before,
              f"checkpoint of step {self.newest_before} is lost; the newest is {newest}")
        steps = [line["step"] for line in metric_lines(self.folder)]
        check(steps == list(range(1, len(steps) + 1)), f"the metrics are of steps {steps}")
        new = [taken[line] for line in taken if line not in self.taken_before]
        check(not new or new[0] == self.newest_before + 1,
              f"resumed at step {new[:1]}, the checkpoint was of step {self.newest_before}")
        if (self.folder / "ledger.jsonl").exists():
            said = self.sfumato.json("ledger", "verify", self.folder)
            check(said["charged_steps"] >= len(charges) and not said["problems"],
                  f"{len(charges)} charges in the ledger, verify says {said}")
            check(said["epsilon"] <= TARGET_EPSILON, f"epsilon {said['epsilon']} over the target")

    def verify_finished(self) -> None:
        self.verify()
        said = self.sfumato.json("ledger", "show", self.folder)
        check(said["charged_steps"] <= STEPS, f"{said['charged_steps']} charges, {STEPS} planned")
        steps = max(line["step"] for line in metric_lines(self.folder))
        check(steps == STEPS or said["charged_steps"] == STEPS,
              f"stopped at step {steps} with {said['charged_steps']} of {STEPS} charges")
        check((self.folder / "release/unet/diffusion_pytorch_model.safetensors").exists(),
              "the finished run has no release")


def kill_once(run: Run, draw: random.Random) -> bool:
    """True if the process was killed, False if it had finished before."""
    process = run.start()
    if draw.random() < 0.3:
        time.sleep(draw.uniform(0, 2))  # also while it starts
    else:
        run.wait_for_steps(process, draw.randint(1, 9))
        time.sleep(draw.uniform(0, 0.1))  # anywhere in a step or a checkpoint
    killed = process.poll() is None
    process.kill()
    status = process.wait()
    check(killed or status == 0, f"training ended by itself with status {status}; see {run.log}")
    run.verify()
    return killed


def crash_resume(sfumato, work: Path, arguments):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}")
    draw = random.Random(seed)
    store = prepare_small_store(sfumato, work)
    number, kills = 0, 0
    run = Run(sfumato, work, store, number)
    while kills < KILLS:
        if kill_once(run, draw):
            kills += 1
        else:
            run.verify_finished()
            number += 1
            run = Run(sfumato, work, store, number)
    process = run.start()
    check(process.wait(timeout=300) == 0, f"the last session did not finish; see {run.log}")
    run.verify_finished()
    print(f"{kills} kills over {number + 1} runs")


if __name__ == "__main__":
    main(crash_resume, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--seed", type=int, help="of the moments of the kills"))
