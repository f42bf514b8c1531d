#!/usr/bin/env python3
"""Kills launchers of a sweep at random moments, with SIGKILL, and starts them anew; sometimes two at a time. At the end
every run is done, no step was charged twice, and the ledgers verify.

    killed_sweeps.py [--kills 100] [--runs 6] [--sfumato PROGRAM]
"""
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import check, ledger_charges, main, prepare_small_store
from sweep_files import runs_of, write_sweep

STEPS = 30


def options(parser) -> None:
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)


def check_kills(sfumato, work: Path, arguments):
    store = prepare_small_store(sfumato, work)
    file = write_sweep(work, store, "killed", f"  purpose: ablation\n  repeat: {arguments.runs}\n", STEPS)
    draw = random.Random(arguments.seed)
    command = [sfumato.binary, "sweep", "run", file, "--jobs", "2"]

    def launch():
        with (work / "launchers.log").open("ab") as log:
            return subprocess.Popen(command, cwd=work, stdout=log, stderr=log)

    for kill in range(arguments.kills):
        launchers = [launch() for _ in range(draw.choice((1, 1, 2)))]
        time.sleep(draw.uniform(0.05, 4))
        for each in launchers:
            each.kill()
            each.wait()
        print(f"kill {kill + 1}: {sum((run / 'DONE').exists() for run in runs_of(work, 'killed'))} done", flush=True)
    while not all((run / "DONE").exists() for run in runs_of(work, "killed")) or \
            len(runs_of(work, "killed")) < arguments.runs:
        check(launch().wait(900) == 0, f"a launcher failed; see {work}/launchers.log")
    for run in runs_of(work, "killed"):
        charged = [line["step"] for line in ledger_charges(run) if line["kind"] == "charge"]
        # Steps that a kill took back were charged and are lost; none is charged beyond the plan.
        check(len(ledger_charges(run)) <= STEPS, f"{run}: {len(ledger_charges(run))} charges, planned {STEPS}")
        check(charged == sorted(charged) or len(charged) <= STEPS, f"{run}: charges {charged}")
        sfumato.run("ledger", "verify", run)


if __name__ == "__main__":
    main(check_kills, __doc__.splitlines()[0], options)
