"""scripts/record-gpu on results of dry runs and on made-up ones, as if a GPU had computed them.

Used by system/verify_gpu.py, which has the results. Documents are written to copies.
"""
import json
import re
import shutil
import subprocess
from pathlib import Path

from sfumato_cli import ROOT, USAGE, check

NAME = "NVIDIA H200 (pretended)"


class Documents:
    """Copies that scripts/record-gpu writes."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "kernels").mkdir(parents=True)
        for name in ("README.md", "kernels/MEASURED.md"):
            shutil.copy(ROOT / name, folder / name)

    def texts(self) -> tuple[str, str]:
        return tuple((self.folder / name).read_text() for name in ("kernels/MEASURED.md", "README.md"))

    def record(self, *folders, expect: int = 0) -> str:
        done = subprocess.run([ROOT / "scripts/record-gpu", *folders, "--documents", self.folder],
                              text=True, capture_output=True, timeout=60)
        check(done.returncode == expect, f"record-gpu ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stderr


def section(text: str, name: str) -> str:
    return text.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]


def outside(text: str) -> str:
    for name in ("gpu", "gpu dry run"):
        text = text.replace(section(text, name), "")
    return text


def change(folder: Path, **facts) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def set_outcome(folder: Path, name: str, status: str) -> None:
    steps = json.loads((folder / "summary.json").read_text())["steps"]
    for step in steps:
        if step["step"] == name:
            step.update(status=status, headline="made up by a test")
    change(folder, steps=steps)


def check_dry_recording(correct: Path, speed: Path, work: Path) -> None:
    documents = Documents(work / "dry")
    before = documents.texts()
    documents.record(correct, speed)
    after = documents.texts()
    said = section(after[0], "gpu dry run")
    check(re.search(r"Run dry on \d{4}-\d\d-\d\d at [\w-]+, with least repeats: both calls end green in "
                    r"\d+ s and \d+ s\. Nothing was measured", said), said)
    check(after[1] == before[1], "a dry run changes the README")
    check(section(after[0], "gpu") == section(before[0], "gpu") and outside(after[0]) == outside(before[0]),
          "a dry run changes more than its own section")
    check(not re.search(r"\d ms|GB/s|TFLOP|draws/s|×|\d %", said), f"figures of a dry run: {said}")
    documents.record(correct.parent)  # one folder with both
    check(documents.texts() == after, "recording is not idempotent")
    red = work / "red"
    shutil.copytree(correct, red)
    set_outcome(red, "memcheck", "failed")
    said = documents.record(red, speed, expect=USAGE)
    check("memcheck" in said and str(red) in said and documents.texts() == after, said)


def made_up(source: Path, folder: Path) -> Path:
    """As if a GPU had computed it."""
    shutil.copytree(source, folder)
    steps = json.loads((folder / "summary.json").read_text())["steps"]
    for step in steps:
        step["headline"] = step["headline"].removeprefix("dry run: ").replace(NAME, "NVIDIA H200")
    change(folder, gpu="NVIDIA H200", driver="580.159.04", dry_run=False, quick=False, steps=steps)
    step = json.loads((folder / "step.json").read_text())
    case = step["cifar10_bf16"]["cases"][0]
    case["private"]["whole_step"]["min_s"], case["plain"]["whole_step"]["min_s"] = 0.01731, 0.0154
    (folder / "step.json").write_text(json.dumps(step))
    return folder


def check_recording(correct: Path, speed: Path, work: Path) -> None:
    documents = Documents(work / "real")
    before = documents.texts()
    results = [made_up(source, work / "made_up" / source.name) for source in (correct, speed)]
    documents.record(*results)
    after = documents.texts()
    for text, earlier in zip(after, before):
        said = section(text, "gpu")
        check("NVIDIA H200, driver 580.159.04" in said and outside(text) == outside(earlier), said)
    measured, readme = (section(text, "gpu") for text in after)
    check("| 1.124 | no |" in measured and "17.31 | 15.40 | 1.124" in measured, measured)
    check("1.12 plain ones" in readme and "| **sfumato, private** |" in readme, readme)
    for name in ("conv_weight_grad", "private_update", "memcheck", "run_train"):
        check(name in measured, f"{name} is not in what was measured")
    check("Not green" not in measured and "pretended" not in measured + readme, measured)
    documents.record(*reversed(results))
    check(documents.texts() == after, "recording is not idempotent")
    documents.record(correct, speed)
    mixed = documents.texts()
    check(section(mixed[0], "gpu") == measured and mixed[1] == after[1], "a dry run replaces figures")

    step = json.loads((results[1] / "step.json").read_text())
    step["cifar10_bf16"]["cases"][0]["private"]["whole_step"]["min_s"] = 0.0154
    (results[1] / "step.json").write_text(json.dumps(step))
    set_outcome(results[1], "opacus", "timed out")
    (results[1] / "opacus.json").unlink()
    documents.record(*results)
    again = section(documents.texts()[0], "gpu")
    check("| 1.000 | yes |" in again and "1.124" not in again, "a second recording does not replace the first")
    check("**Not green**: `opacus` (timed out)" in again and
          again.count("not measured: step `opacus` timed out") == 2, again)
    check("| **sfumato, private** |" not in again, "figures of a step that is not ok")
    check(section(documents.texts()[0], "gpu dry run") == section(mixed[0], "gpu dry run"), "a part is lost")


def check_refusals(correct: Path, speed: Path, work: Path) -> None:
    documents = Documents(work / "refused")
    before = documents.texts()
    steps = json.loads((speed / "summary.json").read_text())["steps"]
    refused = {
        "another commit": (lambda folder: change(folder, commit="abcdef0"), "abcdef0"),
        "another GPU": (lambda folder: change(folder, gpu="NVIDIA H100 80GB HBM3"), "NVIDIA H100"),
        "another driver": (lambda folder: change(folder, driver="1"), "driver"),
        "dry and not": (lambda folder: change(folder, dry_run=True), "dry_run"),
        "pretended and not": (lambda folder: change(folder, gpu=NAME), "dry_run"),
        "least repeats": (lambda folder: change(folder, quick=True), "VERIFY_GPU_QUICK"),
        "ended early": (lambda folder: change(folder, complete=False), "did not come to its end"),
        "fewer steps": (lambda folder: change(folder, steps=steps[:-1]), "run_sample"),
        "no commit": (lambda folder: change(folder, commit=None), "not say its commit"),
        "no figures": (lambda folder: (folder / "kernels.json").unlink(), "copy all files"),
        "half the figures": (lambda folder: (folder / "step.json").write_text("{}"), "step.json"),
        "torn": (lambda folder: (folder / "summary.json").write_text('{"call'), "summary.json"),
        "no summary": (lambda folder: (folder / "summary.json").unlink(), "summary.json"),
        "figures of another form": (lambda folder: (folder / "opacus.json").write_text("{}"), "lack"),
    }
    real_correct = made_up(correct, work / "refusing/correct")
    for i, (name, (damage, word)) in enumerate(refused.items()):
        real_speed = made_up(speed, work / f"refusing/speed{i}")
        damage(real_speed)
        said = documents.record(real_correct, real_speed, expect=USAGE)
        check(word in said and (str(real_speed) in said or name == "figures of another form"),
              f"{name}: {said}")
    check("speed" in documents.record(real_correct, expect=USAGE), "one call is enough")
    said = documents.record(real_correct, real_correct, expect=USAGE)
    check("two results" in said, f"one call twice: {said}")
    page = documents.folder / "kernels/MEASURED.md"
    check(documents.texts() == before, "a refused recording changes a document")
    page.write_text(before[0].replace("<!-- gpu: end -->", ""))
    real_speed = made_up(speed, work / "refusing/whole")
    said = documents.record(real_correct, real_speed, expect=USAGE)
    check("MEASURED.md" in said and documents.texts()[1] == before[1], f"without markers: {said}")
