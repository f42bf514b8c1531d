#!/usr/bin/env python3
"""A generator and its discriminator, from images to a corpus: configs/gan-smoke.yaml on small data,
the card, the ledger, an attack, a generator that breaks, and what is refused."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, USAGE, check, complete_checkpoints, ledger_charges, main, write_idx

CONFIG = ("--config", "configs/gan-smoke.yaml")


def prepared(sfumato, folder: Path, per_class: int) -> Path:
    folder.mkdir()
    images, labels = write_idx(folder, per_class, size=28)
    store = folder / "store"
    sfumato.run("prepare", *CONFIG, f"data.source={images}", f"data.labels={labels}",
                f"data.store={store}")
    return store


def arguments(store: Path, run: Path, *overrides: str) -> list[str]:
    return [*CONFIG, f"data.store={store}", f"run.dir={run}", "mechanism.sample_rate=0.08",
            "mechanism.steps=20", "performance.threads=1", *overrides]


def check_run(sfumato, store: Path, run: Path) -> None:
    sfumato.run("train", *arguments(store, run))
    check(len(ledger_charges(run)) == 20, "the discriminator's steps are not those that are charged")
    sfumato.run("ledger", "verify", run)
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(0.99 * 10 < card["epsilon"] <= 10, f"epsilon is {card['epsilon']}, the target 10")
    check("discriminator" in card["networks"]["private"], "the card does not say what was private")
    released = sorted(path.name for path in (run / "release").iterdir())
    check(released == ["README.md", "generator", "privacy_card.json", "privacy_card.md",
                       "report.html", "sample.py"], f"released: {released}")


def check_corpus(sfumato, run: Path, work: Path) -> None:
    for name, batch in (("corpus", 64), ("again", 3)):
        sfumato.run("sample", run, "--out", work / name, "--count", "30", f"sample.batch={batch}")
    images = sorted((work / "corpus/images").rglob("*.png"))
    check(len(images) == 30, f"{len(images)} images")
    check((work / "corpus/privacy_card.json").exists(), "the corpus has no card")
    said = sfumato.run("sample", run, "--out", work / "guided", "--count", "3", "sample.steps=7",
                       expect=USAGE).stderr
    check("sample.steps" in said, said)


def check_attack(sfumato, run: Path, store: Path, others: Path) -> None:
    found = sfumato.json("audit", "membership", run, "--members", store, "--non-members", others,
                         "--count", "60")
    check([attack["score"] for attack in found["attacks"]] == ["discriminator"], str(found))


def check_broken(sfumato, store: Path, run: Path) -> None:
    """A generator that breaks loses no step that was charged."""
    said = sfumato.run("train", *arguments(store, run, "gan.generator_learning_rate=1e38"),
                       expect=DATA).stderr
    check("the generator broke" in said and "gan.generator_learning_rate" in said, said)
    charged = len(ledger_charges(run))
    check(complete_checkpoints(run) == [charged], f"{charged} charges: {complete_checkpoints(run)}")
    sfumato.run("train", *arguments(store, run), "--resume")
    check(len(ledger_charges(run)) == 20, "steps were charged twice")
    sfumato.run("ledger", "verify", run)


def run_check(sfumato, work: Path, _):
    store, others = prepared(sfumato, work / "a", 40), prepared(sfumato, work / "b", 15)
    run = work / "run"
    check_run(sfumato, store, run)
    check_corpus(sfumato, run, work)
    check_attack(sfumato, run, store, others)
    check_broken(sfumato, store, work / "broken")
    said = sfumato.run("train", *arguments(store, work / "average", "gan.loss=relativistic_average"),
                       expect=USAGE).stderr
    check("relativistic_average" in said and "depends on" in said, said)


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
