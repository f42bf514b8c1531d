#!/usr/bin/env python3
"""Both calls of scripts/verify-gpu end green on the pretended device, and scripts/record-gpu tells.

The bundle is of the build of the given program, with least repeats and few tests. Then steps that
fail, hang or no longer fit, and results that cannot be recorded. Documents are written to copies.
"""
import importlib.util
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/verify_gpu"))
from gpu_evidence import check_evidence
from gpu_recordings import NAME, check_dry_recording, check_recording, check_refusals
import results as results_of
import runner
from sfumato_cli import ROOT, check, main

LAUNCHER = ROOT / "tests/pretend_gpu/on_pretend_gpu"
FILES = {"correct": {"summary.json", "doctor.json", "test_device.json", "sanitize.log.xz", "step.json",
                     "run.tar.xz"},
         "speed": {"summary.json", "doctor.json", "step.json", "kernels.json", "opacus.json",
                   "run.tar.xz"}}
MOST_FILES, MOST_BYTES, MOST_SECONDS = 8, 16 << 20, 590


def why_not(build: Path) -> str | None:
    if not any(build.rglob("libsfumato_cuda.so")):
        return "this build has no libsfumato_cuda.so: no CUDA toolkit was found"
    if not (build / "pretend_gpu/libpretend_cuda.so").exists():
        return "this build has no pretended device"
    if not shutil.which("dpkg-query"):
        return "bundles are made on Debian or Ubuntu"
    if importlib.util.find_spec("torch") is None:
        return "torch, which the comparison with Opacus needs, is not in this Python"
    return None


def environment(build: Path, **further) -> dict:
    return {**os.environ, "SFUMATO_PYTHON": sys.executable, "VERIFY_GPU_QUICK": "1",
            "SFUMATO_PRETEND_GPU": str(build / "pretend_gpu"), **further}


def make_bundle(build: Path, work: Path) -> Path:
    archive = work / "bundle.tar.xz"
    done = subprocess.run([ROOT / "scripts/bundle", "--build-folder", build, "--level", "0",
                           "--with-peers", "--output", archive], capture_output=True, text=True)
    check(done.returncode == 0, f"scripts/bundle failed:\n{done.stdout}{done.stderr}")
    return archive


def start(kind: str, archive: Path, out: Path, build: Path, **further):
    return subprocess.Popen([LAUNCHER, ROOT / "scripts/verify-gpu", kind, archive, out], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=out.parent,
                            env=environment(build, **further))


# The two calls -------------------------------------------------------------------------------------


def check_call(kind: str, process, out: Path, version: str) -> None:
    printed = process.communicate(timeout=MOST_SECONDS)[0]
    check(process.returncode == 0, f"{kind} ended with {process.returncode}:\n{printed[-6000:]}")
    names = {path.name for path in out.iterdir()}
    check(names == FILES[kind] and len(names) <= MOST_FILES, f"{kind} wrote {sorted(names)}")
    for path in out.iterdir():
        check(0 < path.stat().st_size < MOST_BYTES, f"{path.name} has {path.stat().st_size} bytes")
    summary = json.loads((out / "summary.json").read_text())
    steps = summary["steps"]
    wanted = [step.name for step in results_of.TABLES[kind]]
    check([step["step"] for step in steps] == wanted, f"steps are {steps}")
    check(all(set(step) == {"step", "status", "rc", "seconds", "headline"} for step in steps), steps)
    check(summary["call"] == kind and summary["complete"] and summary["ok"] and summary["quick"] and
          summary["dry_run"] and summary["gpu"] == NAME and summary["left_out"] == [] and
          f"({summary['commit']})" in version and 0 < summary["total_seconds"] < MOST_SECONDS, summary)
    # From the second step on it is known what device this is.
    check(all(step["headline"].startswith("dry run: ") for step in steps[1:]), steps)
    table = printed.split("\n\n")[-1].splitlines()
    check([line.split()[:2] for line in table] == [[name, "ok"] for name in wanted], f"table:\n{table}")


def check_contents(correct: Path, speed: Path) -> None:
    logs = lzma.open(correct / "sanitize.log.xz", "rt").read()
    tools = re.findall(r"^===== (\w+)$", logs, re.M)
    check(sorted(tools) == ["initcheck", "memcheck", "racecheck", "synccheck"], f"logs of {tools}")
    check(json.loads((correct / "test_device.json").read_text())["tests"] > 0, "no test in the report")
    check(set(json.loads((correct / "doctor.json").read_text())) == {"nvidia_smi", "doctor", "ceilings"},
          "doctor.json")
    peers = json.loads((speed / "opacus.json").read_text())
    for name, layouts in (("PyTorch", {"channels_last", "NCHW"}), ("Opacus", {"NCHW"})):
        tried = peers[name]["variants"]
        check(layouts <= set(tried) and peers[name]["fastest"] ==
              min(each["fastest"] for each in tried.values()), f"{name} ran as {tried}")
    with tarfile.open(speed / "run.tar.xz") as packed:
        names = packed.getnames()
        card = json.load(packed.extractfile("train/privacy_card.json"))
    wanted = {"ncu.csv", "train/metrics.jsonl", "train/ledger.jsonl", "corpus/contact_sheet.png",
              "corpus/privacy_card.json", "logs/kernels.out", "logs/run_train.err"}
    check(wanted <= set(names), f"run.tar.xz lacks {wanted - set(names)}")
    check(0 < card["epsilon"] <= 10, f"the run's epsilon is {card['epsilon']}")


def check_both_calls(sfumato, build: Path, archive: Path, work: Path) -> tuple[Path, Path]:
    outs = {kind: work / "out" / kind for kind in FILES}
    (work / "out").mkdir()
    # With truth values that are true, sampling passes its checks; without, tests must not.
    further = {"correct": {}, "speed": {"PRETEND_GPU_TRUTHS": "1"}}
    processes = {kind: start(kind, archive, out, build, **further[kind]) for kind, out in outs.items()}
    for kind, process in processes.items():
        try:
            check_call(kind, process, outs[kind], sfumato.run("--version").stdout)
        finally:
            for each in processes.values():
                if each.poll() is None and kind == "speed":
                    each.terminate()
    check_contents(outs["correct"], outs["speed"])
    again = start("correct", archive, outs["correct"], build)
    said = again.communicate(timeout=60)[0]
    check(again.returncode == 1 and "holds the results of a call" in said, f"overwrites results: {said}")
    return outs["correct"], outs["speed"]


# What goes wrong -----------------------------------------------------------------------------------


def check_missing_programs(build: Path, work: Path) -> None:
    """A bundle without programs: what needs none is ok, and everything is tried."""
    bundle = work / "empty/sfumato-0"
    (bundle / "bin").mkdir(parents=True)
    (bundle / "scripts").mkdir()
    for name in ("run", "sfumato"):
        shutil.copy(ROOT / "scripts/bundled" / name, bundle)
    for name in ("common.sh", "sanitize-device"):
        shutil.copy(ROOT / "scripts" / name, bundle / "scripts")
    (bundle / "bundle.txt").write_text("version=0.1.0\ncommit=0123456\ntorch=2.11.0\nglibc=2.28\n")
    with tarfile.open(work / "empty.tar.gz", "w:gz") as packed:
        packed.add(bundle, bundle.name)
    out = work / "broken"
    process = start("correct", work / "empty.tar.gz", out, build)
    said = process.communicate(timeout=300)[0]
    check(process.returncode == 1, f"status {process.returncode}:\n{said}")
    summary = json.loads((out / "summary.json").read_text())
    status = {step["step"]: step["status"] for step in summary["steps"]}
    good = {"unpack", "nvidia_smi", "sanitizer_help", "ceilings"}
    check(set(status) == {step.name for step in results_of.TABLES["correct"]}, status)
    check(all(status[name] == ("ok" if name in good else "failed") for name in status), said)
    tests, = (step for step in summary["steps"] if step["step"] == "test_device")
    check("no program 'test_device' in this bundle" in tests["headline"] and tests["rc"] == 2, tests)
    check(summary["complete"] and not summary["ok"], summary)


class NoCall:
    """What made-up steps are given."""
    limit_s = 0

    def __init__(self, patience: int = 1):
        self.patience = patience

    def dressed(self, headline: str) -> str:
        return headline


def check_patience(work: Path) -> None:
    """A step of a dry run may take longer than its limit, but never more than is left of the call."""
    logs = work / "patience"
    logs.mkdir()
    step = runner.Step("slow", 1, lambda _: ["sleep", "2"], lambda *_: "fine")
    for budget, wanted in ((60, "ok"), (1, "timed out")):
        run = runner.Run((step,), budget, logs, dict(os.environ), work)
        runner.run_steps(run, NoCall(patience=4))
        check(run.outcomes[0].status == wanted, f"with {budget} s: {run.outcomes[0]}")


def check_limits(work: Path) -> None:
    """Made-up steps: one hangs with children in groups of their own that take no hint."""
    logs = work / "limits"
    logs.mkdir()
    endless = f"while : {work}; do sleep 1; done"
    loop = f"trap '' TERM; echo started; {endless}"
    stubborn = f"trap '' TERM; timeout 600 sh -c {shlex.quote(loop)}; true"

    def judge(_, done):
        if done.rc != 0:
            raise runner.Unmet(f"status {done.rc}")
        return "fine"

    steps = tuple(runner.Step(name, limit, lambda _, words=words: words, judge) for name, limit, words in (
        ("hangs", 1, ["bash", "-c", stubborn]), ("is not there", 5, ["/nowhere/program"]),
        ("fails", 5, ["false"]), ("works", 5, ["true"]), ("leaves a child", 5, ["sh", "-c", "sleep 600 &"]),
        ("no longer fits", 200, ["true"]), ("fits", 5, ["true"])))
    given = NoCall()
    seen = []
    run = runner.Run(steps, 60, logs, dict(os.environ), work,
                     lambda run: seen.append([each.status for each in run.outcomes]))
    runner.run_steps(run, given)
    check(given.limit_s == 5, f"the last step was told of {given.limit_s} s")
    wanted = ["timed out", "failed", "failed", "ok", "ok", "skipped", "ok"]
    check(seen[-1] == wanted and len(seen) == len(wanted), f"outcomes {seen[-1:]}")
    hung = run.outcomes[0]
    check(1 <= hung.seconds < 1 + 3 * runner.GRACE_S and hung.rc is None and "started" in hung.headline, hung)
    check("cannot run" in run.outcomes[1].headline and "of the call's 60" in run.outcomes[5].headline,
          runner.table(run))
    left = subprocess.run(["pgrep", "-f", endless], capture_output=True, text=True)
    check(not left.stdout, f"processes are left: {left.stdout}")


def check_end_from_outside(build: Path, archive: Path, work: Path) -> None:
    """Ended early, a call leaves a summary, its logs and no process or folder."""
    out, temporary = work / "ended", work / "temporary"
    temporary.mkdir()
    process = start("correct", archive, out, build, TMPDIR=str(temporary))
    deadline = time.monotonic() + 60
    while not (out / "doctor.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    said = process.communicate(timeout=60)[0]
    summary = json.loads((out / "summary.json").read_text())
    check(process.returncode != 0 and not summary["complete"] and summary["steps"], f"{said}{summary}")
    check((out / "run.tar.xz").exists() and not list(temporary.iterdir()), f"left in {temporary}")


def verify_gpu(sfumato, work: Path, _):
    build = sfumato.binary.parent
    check_limits(work)
    check_patience(work)
    check_evidence(work / "evidence")
    reason = why_not(build)
    if reason:
        return reason
    archive = make_bundle(build, work)
    correct, speed = check_both_calls(sfumato, build, archive, work)
    check_missing_programs(build, work)
    check_end_from_outside(build, archive, work)
    check_dry_recording(correct, speed, work)
    check_recording(correct, speed, work)
    check_refusals(correct, speed, work)
    return None


if __name__ == "__main__":
    main(verify_gpu, __doc__.splitlines()[0])
