#!/usr/bin/env python3
"""Runs the checks of the whole program: every tests/system/*.py, and some of tests/python.

Each gets the program and an empty folder of its own. Exit status 77 of a check means skipped. The
outcomes go to --results as JSON: [{"name": ..., "outcome": "passed" | "failed" | "skipped"}, ...].
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# The other scripts of tests/python are tools with arguments of their own.
PYTHON_CHECKS = ("release_opens_in_diffusers", "pretrained_files", "tensorboard_of_a_run",
                 "classifier_on_real_images", "cli_commands", "card_recomputed_by_dp_accounting",
                 "epsilon_against_dp_accounting", "images_against_pillow", "corpus_in_readers",
                 "gan_networks_in_torch", "imported_gan", "imported_diffusion", "tuners",
                 "feature_weights", "classifier_networks")
OUTCOMES = {0: "passed", 77: "skipped"}
TIMEOUT_S = 900  # the longest take two minutes or three; one that hangs leaves time for the others
# They take minutes each, so they begin first.
LONG = ("emulation_faults", "verify_gpu", "classifier_on_real_images", "container", "ranks", "pretend_gpu",
        "slurm", "release_opens_in_diffusers", "imported_diffusion", "imported_gan")


def run_check(script: Path, sfumato: Path, work: Path) -> tuple[str, str]:
    """Its outcome, and what it said where that is not "passed"."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, script, "--sfumato", sfumato, "--work", work]
    try:
        done = subprocess.run(list(map(str, command)), timeout=TIMEOUT_S, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return "failed", f"  no end after {TIMEOUT_S} s\n"
    outcome = OUTCOMES.get(done.returncode, "failed")
    if outcome != "passed":
        return outcome, "  " + done.stdout.strip().replace("\n", "\n  ") + "\n"
    shutil.rmtree(work, ignore_errors=True)
    return outcome, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sfumato", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="write the outcomes to this file")
    parser.add_argument("--work", type=Path, default=TESTS.parent / "build/checks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="checks at a time")
    parser.add_argument("names", nargs="*", help="only checks whose name contains one of these")
    arguments = parser.parse_args()
    scripts = sorted(TESTS.glob("system/*.py"))
    scripts += [TESTS / "python" / f"{name}.py" for name in PYTHON_CHECKS]
    if arguments.names:
        scripts = [script for script in scripts
                   if any(part in script.stem for part in arguments.names)]
    scripts.sort(key=lambda script: script.stem not in LONG)
    if arguments.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    def run(script: Path) -> dict:
        start = time.monotonic()
        outcome, said = run_check(script, arguments.sfumato, arguments.work / script.stem)
        print(f"check {script.stem}: {outcome} ({time.monotonic() - start:.0f} s)\n{said}", end="",
              flush=True)
        return {"name": script.stem, "outcome": outcome}

    with ThreadPoolExecutor(max_workers=max(1, arguments.jobs)) as pool:
        outcomes = list(pool.map(run, scripts))
    if arguments.results:
        arguments.results.write_text(json.dumps(outcomes, indent=1) + "\n")
    return 1 if any(check["outcome"] == "failed" for check in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
