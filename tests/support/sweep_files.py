"""Sweeps for checks of the whole program: small files of them, and what their runs left."""
import json
from pathlib import Path

from sfumato_cli import ROOT, check, ledger_charges


def write_sweep(work: Path, store: Path, name: str, body: str, steps: int = 6) -> Path:
    """A sweep over configs/smoke.yaml on this store; `body`: the lines inside `sweep:` but name and base."""
    base = work / f"{name}-base.yaml"
    text = (ROOT / "configs/smoke.yaml").read_text()
    import yaml
    settings = yaml.safe_load(text)
    settings.setdefault("data", {})["store"] = str(store)
    settings.setdefault("mechanism", {}).update(sample_rate=0.08, expected_batch_size=32, steps=steps)
    settings.setdefault("performance", {})["threads"] = 1
    settings.setdefault("run", {}).pop("dir", None)
    for place in ("init", "config"):
        if settings.get("model", {}).get(place):
            settings["model"][place] = str(ROOT / settings["model"][place])
    base.write_text(yaml.safe_dump(settings))
    file = work / f"{name}.yaml"
    file.write_text(f"sweep:\n  name: {name}\n  base: {base}\n{body}")
    return file


def runs_of(work: Path, name: str, inside: str = ".") -> list[Path]:
    """The runs' folders, in order."""
    return sorted(path for path in (work / "sweeps" / name / inside).glob("[0-9][0-9][0-9]-*") if path.is_dir())


def check_done(runs: list[Path], count: int, steps: int) -> None:
    """Each is done, and no step of it was charged twice or left out."""
    check(len(runs) == count, f"{len(runs)} runs, expected {count}")
    for run in runs:
        check((run / "DONE").is_file(), f"{run} is not done")
        done = json.loads((run / "DONE").read_text())
        charges = len(ledger_charges(run))
        check(done["charged_steps"] == charges == steps, f"{run}: {charges} charges for {steps} steps")
