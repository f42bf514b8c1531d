#!/usr/bin/env python3
"""How long small commands take as a whole, with and without LibTorch, in one run.

Each command is run by both programs in turns; the table shows the median of wall and user time and the
largest resident set of each (no less than Python's own), and how many times faster the first is. What
accounting takes is part of it: nothing to speak of by RDP, most of it where the PLD accountant searches.
--against names the program of a build in which it loads LibTorch for every command.
"""
import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHASE, TARGET = ("--phase", "0.01:1.1:100"), ("--sample-rate", "0.01", "--steps", "100")
COMMANDS = {
    "--version": ("--version",),
    "account, rdp": ("account", *PHASE, "--delta", "1e-5", "--accountant", "rdp"),
    "account, pld": ("account", *PHASE, "--delta", "1e-5"),
    "calibrate, rdp": ("calibrate", "--target-epsilon", "3", "--delta", "1e-5", *TARGET,
                       "--accountant", "rdp"),
    "calibrate, pld": ("calibrate", "--target-epsilon", "3", "--delta", "1e-5", *TARGET),
    "2250 steps, pld": ("calibrate", "--target-epsilon", "8", "--delta", "1e-5", "--sample-rate",
                        "0.04", "--steps", "2250"),
    "10 steps, q = 1": ("calibrate", "--target-epsilon", "3", "--delta", "1e-5", "--sample-rate",
                        "1", "--steps", "10"),
}


def measured(program: Path, arguments: tuple) -> tuple[float, float, float]:
    """Wall and user seconds and megabytes of one run; what it prints goes nowhere."""
    start = time.perf_counter()
    child = os.posix_spawn(program, [str(program), *arguments], os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{program} {' '.join(arguments)} ended with status {status}")
    return wall, usage.ru_utime, usage.ru_maxrss / 1024


def medians(runs: list) -> dict:
    wall, user, memory = zip(*runs)
    return {"wall_s": statistics.median(wall), "user_s": statistics.median(user),
            "resident_mb": max(memory)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--against", type=Path, required=True, help="another build's program")
    parser.add_argument("--repeat", type=int, default=9, help="runs of each command")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    programs = [arguments.sfumato.resolve(),
                arguments.against.resolve()]
    for program in programs:
        if not program.exists():
            sys.exit(f"no program at {program}; run scripts/build")
        measured(program, COMMANDS["--version"])  # from disk to memory
    print(f"{'':<16}{'wall s':>17}{'user s':>17}{'MB':>13}{'faster, wall':>14}{'user':>7}")
    rows = []
    for name, command in COMMANDS.items():
        runs = [[], []]
        for _ in range(arguments.repeat):
            for own, program in zip(runs, programs):
                own.append(measured(program, command))
        ours, theirs = map(medians, runs)
        faster = {key: theirs[key] / max(ours[key], 1e-3) for key in ("wall_s", "user_s")}
        print(f"{name:<16}{ours['wall_s']:>8.3f} {theirs['wall_s']:>8.3f}{ours['user_s']:>8.3f} "
              f"{theirs['user_s']:>8.3f}{ours['resident_mb']:>6.0f} {theirs['resident_mb']:>6.0f}"
              f"{faster['wall_s']:>13.1f}x{faster['user_s']:>6.1f}x")
        rows.append({"command": name, "sfumato": ours, "against": theirs, "times_faster": faster})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
