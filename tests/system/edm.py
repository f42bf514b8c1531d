#!/usr/bin/env python3
"""configs/edm-smoke.yaml from images to a corpus: what is charged, what the release says of its network,
corpora by Heun with churn and by other solvers, and what an EDM network is refused."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import USAGE, check, ledger_charges, main, write_idx

CONFIG = ("--config", "configs/edm-smoke.yaml")
STEPS = 6


def trained(sfumato, work: Path) -> Path:
    images, labels = write_idx(work, 40)
    store, run = work / "store", work / "run"
    sfumato.run("prepare", *CONFIG, f"data.source={images}", f"data.labels={labels}",
                f"data.store={store}")
    sfumato.run("train", *CONFIG, f"data.store={store}", f"run.dir={run}", "mechanism.sample_rate=0.08",
                f"mechanism.steps={STEPS}", "performance.threads=1")
    check(len(ledger_charges(run)) == STEPS, "not every step was charged")
    sfumato.run("ledger", "verify", run)
    return run


def check_release(run: Path) -> None:
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(0.99 * 10 < card["epsilon"] <= 10, f"epsilon is {card['epsilon']}, the target 10")
    names = {path.name for path in (run / "release").rglob("*")}
    # diffusers has no Heun with churn: the release brings the one that draws its images.
    check("sample.py" in names, f"no sample.py among {sorted(names)}")
    scheduler = json.loads(next((run / "release").rglob("scheduler_config.json")).read_text())
    check(scheduler["_class_name"].startswith("EDM"), f"{scheduler}")
    check(abs(scheduler["sigma_data"] - .57735) < 1e-9, f"{scheduler}")


def check_corpora(sfumato, run: Path, work: Path) -> None:
    pictures = {}
    for sampler in ("heun", "ddim", "dpmpp_3m", "sde_dpmpp_2m", "unipc"):
        out = work / sampler
        own = () if sampler == "heun" else ("sample.s_churn=0", "sample.s_min=0")
        sfumato.run("sample", run, "--out", out, "--count", "10", f"sample.sampler={sampler}", *own)
        lineage = json.loads((out / "lineage.json").read_text())
        check(sum(lineage["images_per_class"]) == 10, f"{sampler}: {lineage['images_per_class']}")
        pictures[sampler] = [path.read_bytes() for path in sorted((out / "images").rglob("*.png"))]
    check(len({tuple(made) for made in pictures.values()}) == len(pictures), "two solvers draw the same")
    refused = sfumato.run("sample", run, "--out", work / "no", "--count", "1", "sample.sampler=ddpm",
                          "sample.s_churn=0", "sample.s_min=0", expect=USAGE).stderr
    check("not for networks of diffusion.parameterization=edm" in refused, refused)


def run_check(sfumato, work: Path, _) -> None:
    run = trained(sfumato, work)
    check_release(run)
    check_corpora(sfumato, run, work)


if __name__ == "__main__":
    main(run_check, __doc__)
