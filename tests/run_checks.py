#!/usr/bin/env python3
"""Runs the checks of the whole program: every tests/system/*.py, and some of tests/python.

Each gets the program and an empty folder of its own. Exit status 77 of a check means skipped. The
outcomes go to --results as JSON: [{"name": ..., "outcome": "passed" | "failed" | "skipped"}, ...].
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# The other scripts of tests/python are tools with arguments of their own.
PYTHON_CHECKS = ("release_opens_in_diffusers", "pretrained_files", "tensorboard_of_a_run",
                 "classifier_on_real_images", "cli_commands", "card_recomputed_by_dp_accounting",
                 "epsilon_against_dp_accounting", "images_against_pillow", "corpus_in_readers")
OUTCOMES = {0: "passed", 77: "skipped"}
TIMEOUT_S = 900


def run_check(script: Path, sfumato: Path, work: Path) -> str:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, script, "--sfumato", sfumato, "--work", work]
    try:
        done = subprocess.run(list(map(str, command)), timeout=TIMEOUT_S, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        print(f"  no end after {TIMEOUT_S} s")
        return "failed"
    outcome = OUTCOMES.get(done.returncode, "failed")
    if outcome != "passed":
        print("  " + done.stdout.strip().replace("\n", "\n  "))
    else:
        shutil.rmtree(work, ignore_errors=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sfumato", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="write the outcomes to this file")
    parser.add_argument("--work", type=Path, default=TESTS.parent / "build/checks")
    parser.add_argument("names", nargs="*", help="only checks whose name contains one of these")
    arguments = parser.parse_args()
    scripts = sorted(TESTS.glob("system/*.py"))
    scripts += [TESTS / "python" / f"{name}.py" for name in PYTHON_CHECKS]
    outcomes = []
    for script in scripts:
        name = script.stem
        if arguments.names and not any(part in name for part in arguments.names):
            continue
        start = time.monotonic()
        print(f"check {name} ...", flush=True)
        outcome = run_check(script, arguments.sfumato, arguments.work / name)
        print(f"check {name}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
        outcomes.append({"name": name, "outcome": outcome})
    if arguments.results:
        arguments.results.write_text(json.dumps(outcomes, indent=1) + "\n")
    return 1 if any(check["outcome"] == "failed" for check in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
