#!/usr/bin/env python3
"""tests/soak/benchmark_protocol.py from end to end, tiny: a run by a time budget, what is not done again, what may not
change, and the table: means, spreads and published rows."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/soak")]
from benchmark_protocol import delta_of, rate_for
from protocol_table import PUBLISHED, table
from sfumato_cli import check, ledger_charges, main, write_idx

TINY = ("--set", "fashion", "--budget-minutes", "0.2", "--epsilon", "10", "--seeds", "0", "--records", "183",
        "--batch", "16", "--draws", "2", "--most-steps", "2", "--count", "40")
QUICK = ("--settings", "warmup.steps=2", "sample.steps=2", "preview.images=0", "performance.threads=1")


def call(sfumato, data: Path, out: Path, *more, fails: bool = False, settings=QUICK) -> str:
    command = [sys.executable, ROOT / "tests/soak/benchmark_protocol.py", "--sfumato", sfumato.binary, "--data", data,
               "--out", out, *TINY, *more, *settings]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "2"})
    logs = "".join(path.read_text()[-1500:] for path in out.rglob("*.log")) if done.returncode else ""
    check((done.returncode != 0) == fails, f"status {done.returncode}:\n{done.stdout}{done.stderr}{logs}")
    return done.stdout + done.stderr


def make_set(work: Path) -> Path:
    data = work / "idx"
    data.mkdir()
    for part, per_class, seed in (("train", 20, 1), ("t10k", 4, 2)):
        images, labels = write_idx(data, per_class, size=28, seed=seed)
        images.rename(data / f"{part}-{images.name}")
        labels.rename(data / f"{part}-{labels.name}")
    return data


def check_run(out: Path, said: str) -> None:
    folder = out / "epsilon-10-seed-0"
    result = json.loads((folder / "result.json").read_text())
    check(result["steps"] == 2 and result["draws"] == 2, f"{result}")
    # Two steps, and the ten releases of central images.
    steps = [line for line in ledger_charges(folder / "run") if "stage" not in line]
    check(len(steps) == 2, f"charged {ledger_charges(folder / 'run')}")
    check(9.9 < result["epsilon_spent"] <= 10 and result["delta"] == delta_of(183), f"{result}")
    check(set(result["accuracies"]) == {"small"} and set(result["distances"]) == {"FD-LeNet"}, f"{result}")
    check(0 <= result["accuracies"]["small"] <= 100, f"{result}")
    check(all(result["seconds"][what] > 0 for what in ("training", "drawing", "measuring")), f"{result}")
    page = (out / "table.md").read_text()
    check(page in said, "the table is not printed")
    for text in ("**sfumato**, seeds 0 | 10 |", "DP-FETA [bench] | 10 | - | 13.2 | - | - | 87.3",
                 "FETA-Pro [pro] | 10 | - | 11.29 | - | 87.8 | 88.17", "2 of 16 images x 2 draws"):
        check(text in page, f"'{text}' is not in\n{page}")
    check("| 1 |" not in page and "98.1" not in page, f"rows of another epsilon or set in\n{page}")


def check_again(sfumato, data: Path, out: Path) -> None:
    """A finished run is skipped; one of which the end is missing goes on without training or drawing again."""
    folder = out / "epsilon-10-seed-0"
    kept = [folder / "run/ledger.jsonl", folder / "corpus/lineage.json", folder / "accuracy-small.json"]
    before, first = [path.stat().st_mtime_ns for path in kept], (folder / "result.json").read_text()
    call(sfumato, data, out)
    check((folder / "result.json").read_text() == first, "a finished run was measured again")
    (folder / "result.json").unlink()
    (folder / "distance-lenet.json").unlink()
    (folder / "trained.json").unlink()
    call(sfumato, data, out)
    again = json.loads((folder / "result.json").read_text())
    check(again["distances"] == json.loads(first)["distances"], "the same corpus has another distance")
    check([path.stat().st_mtime_ns for path in kept] == before, "what was there was made again")
    said = call(sfumato, data, out, fails=True, settings=(*QUICK, "mechanism.target_epsilon=20"))
    check("mechanism.target_epsilon=20" in said and "--epsilon" in said, said)
    said = call(sfumato, data, out, "--budget-minutes", "0.3", fails=True)
    check("budget_minutes" in said and "another --out" in said, said)


def check_table() -> None:
    """By hand, from made-up results."""
    results = [{"epsilon": 1.0, "seed": seed, "distances": {"FD-LeNet": 10.0 + seed},
                "accuracies": {"small": 70.0, "resnet-110": 10.0, "wrn-40-4": 80.0 + seed, "resnext-29": 60.0},
                "steps": 2000, "draws": 4, "batch": 4096, "step_seconds": .5, "parameters": 1490000, "delta": 1.6657e-6,
                "images": 60000, "seconds": {"training": 1200, "drawing": 60, "measuring": 60}} for seed in (0, 2)]
    page = table("mnist", results, {"config": "protocol-edm", "settings": [], "budget_minutes": 20, "device": "cuda",
                                    "records": 55000, "classifier_count": 0})
    # (10 + 80 + 60) / 3 = 50 and (10 + 82 + 60) / 3 = 50.667; of two values the deviation is their distance / √2.
    own = "| **sfumato**, seeds 0, 2 | 1 | 11.00 ± 1.41 | - | 70.00 ± 0.00 | 50.33 ± 0.47 | 81.00 ± 1.41 |"
    check(own in page, f"'{own}' is not in\n{page}")
    check("DPDM, its own protocol [dpdm] | 1 | - | 23.4 | 95.3 | - | - |" in page, page)
    part = [{**results[0], "accuracies": {"small": 70.0, "wrn-40-4": 80.0}}]
    check("| - | 70.00 | - | - |" in table("mnist", part, {
        "config": "c", "settings": [], "budget_minutes": 1, "device": "cpu", "records": 55000,
        "classifier_count": 0}), "a mean of three by fewer than three")
    published = json.loads(PUBLISHED.read_text())
    check(all(row["source"] in published["sources"] for row in published["rows"]), "a row without its source")


def check_choices() -> None:
    # DPImageBench's logs have 1.6657e-06 for 55,000 images; rounded up it would not be its delta.
    check(delta_of(55000) == 1.6657e-06 and delta_of(45000) <= 1 / (45000 * 10.714418), f"{delta_of(55000)}")
    check(abs(rate_for(2014, 55000) - 3e-4) < 1e-7 and rate_for(5000, 55000) == 3e-4, "DPImageBench's rate at its steps")
    check(abs(rate_for(504, 55000) - 6e-4) < 1e-6 and rate_for(1, 55000) == 3e-3, "rates of fewer steps")


def run_check(sfumato, work: Path, _) -> None:
    check_table()
    check_choices()
    data, out = make_set(work), work / "protocol"
    check_run(out, call(sfumato, data, out))
    check_again(sfumato, data, out)


if __name__ == "__main__":
    main(run_check, __doc__)
