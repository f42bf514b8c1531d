"""What two calls of verify-gpu left, checked: complete, of one commit and one GPU."""
import json
from dataclasses import dataclass
from pathlib import Path

import correct
import speed
from call import PRETENDED

TABLES = {"correct": correct.STEPS, "speed": speed.STEPS}
# Where the figures of a step are: file, and key in it.
FIGURES = {
    "correct": {"doctor": ("doctor.json", "doctor"), "ceilings": ("doctor.json", "ceilings"),
                "step_cifar10_bf16": ("step.json", "cifar10_bf16"),
                "step_cifar10_bf16_keep": ("step.json", "cifar10_bf16_keep")},
    "speed": {"step_cifar10_bf16": ("step.json", "cifar10_bf16"),
              "step_cifar10_tf32": ("step.json", "cifar10_tf32"),
              "step_dpdm_mnist_bf16": ("step.json", "dpdm_mnist_bf16"),
              "kernels": ("kernels.json", None), "opacus": ("opacus.json", None),
              "noise": ("step.json", "noise"), "sample": ("step.json", "sample")},
}


class Refused(Exception):
    """Why these results cannot be recorded, with the file and what to do."""


@dataclass
class CallResult:
    path: Path  # of summary.json
    summary: dict
    figures: dict  # step -> what it measured; only steps that are ok

    def __getitem__(self, name: str):
        return self.summary[name]

    def steps(self) -> dict:
        return {each["step"]: each for each in self.summary["steps"]}

    def not_ok(self) -> list[dict]:
        return [each for each in self.summary["steps"] if each["status"] != "ok"]


def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Refused(f"no {path}: copy all files that the call wrote")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refused(f"{path} cannot be read ({error}): copy it again")


def read_call(folder: Path) -> CallResult:
    path = folder / "summary.json"
    summary = read_json(path)
    kind = summary.get("call") if isinstance(summary, dict) else None
    if kind not in TABLES:
        raise Refused(f"{path} is no summary of scripts/verify-gpu")
    again = f"run scripts/verify-gpu {kind} again"
    for fact in ("commit", "gpu", "date", "version", "total_seconds", "steps"):
        if not summary.get(fact):
            raise Refused(f"{path} does not say its {fact}: {again}")
    done = [each["step"] for each in summary["steps"]]
    lacking = [step.name for step in TABLES[kind] if step.name not in done]
    if lacking or not summary.get("complete"):
        raise Refused(f"{path} has no outcome of {', '.join(lacking) or 'all steps'}: the call did not "
                      f"come to its end; {again}")
    if summary["dry_run"] != (PRETENDED in summary["gpu"]):
        raise Refused(f"{path} says dry_run {summary['dry_run']} of {summary['gpu']}: {again}")
    if summary["quick"] and not summary["dry_run"]:
        raise Refused(f"{path} was made with VERIFY_GPU_QUICK, too few repeats for figures: "
                      f"{again} without")
    result = CallResult(path, summary, {})
    for step, (name, key) in FIGURES[kind].items():
        if result.steps()[step]["status"] != "ok":
            continue
        content = read_json(folder / name)
        if key is not None and key not in content:
            raise Refused(f"{folder / name} has no {key}, although step {step} is ok: "
                          "copy it again")
        result.figures[step] = content if key is None else content[key]
    return result


def read_results(folders: list[Path]) -> dict[str, CallResult]:
    """Of the two folders, or of one that holds a folder for each call."""
    if len(folders) == 1 and not (folders[0] / "summary.json").exists():
        folders = sorted(path.parent for path in folders[0].glob("*/summary.json"))
    calls = [read_call(folder) for folder in folders]
    given = {call["call"]: call for call in calls}
    results = {kind: given[kind] for kind in TABLES if kind in given}
    if len(calls) != len(results):
        raise Refused(f"two results of one call: {', '.join(str(call.path) for call in calls)}; "
                      "name one of each")
    for kind in TABLES:
        if kind not in results:
            seen = ", ".join(str(call.path) for call in calls) or "no summary.json"
            raise Refused(f"no results of scripts/verify-gpu {kind} in what was given ({seen}): "
                          "name both folders")
    first, second = results["correct"], results["speed"]
    for fact in ("commit", "version", "gpu", "driver", "dry_run"):
        if first[fact] != second[fact]:
            raise Refused(f"{first.path} is of {fact} {first[fact]}, {second.path} of {second[fact]}: "
                          "run both calls with one bundle on one kind of machine")
    return results
