#!/usr/bin/env python3
"""Stages before training: one budget for all, class proportions from the noisy counts, and no stage
that a kill interrupted runs again."""
import csv
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import PRIVACY, USAGE, check, main, prepare_small_store, smoke_arguments, write_idx

STAGES = "mechanism.stages."


def stage_charges(run: Path) -> Counter:
    """Charges of each stage, read from the ledger without the program."""
    path = run / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return Counter(entry["stage"] for entry in map(json.loads, lines) if entry["kind"] == "stage")


def largest_remainder(total: int, shares: list[float]) -> list[int]:
    counts = [math.floor(total * share) for share in shares]
    order = sorted(range(len(shares)), key=lambda c: counts[c] - total * shares[c])
    for label in order[: total - sum(counts)]:
        counts[label] += 1
    return counts


def public_store(sfumato, work: Path) -> Path:
    """Other generated images than the private ones, as public ones."""
    folder = work / "public"
    folder.mkdir()
    images, labels = write_idx(folder, 3, seed=8)
    store = work / "public_store"
    sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                f"data.labels={labels}", f"data.store={store}")
    return store


def check_budget(sfumato, store: Path, public: Path, run: Path) -> None:
    """Stages and training together stay within the target, and all of them are on the card."""
    sfumato.run("train", *smoke_arguments(
        store, run, "mechanism.steps=8", "mechanism.target_epsilon=6", "mechanism.candidates=2",
        f"{STAGES}label_histogram.share=0.02", f"{STAGES}central_images.share=0.1",
        f"{STAGES}central_images.releases=4", "mechanism.declared=gaussian:1:20",
        f"{STAGES}mean_embedding.share=0.05", f"{STAGES}mean_embedding.frequencies=100",
        f"{STAGES}semantic_query.share=0.02", f"{STAGES}semantic_query.public_store={public}",
        f"{STAGES}semantic_query.votes_per_record=2", "warmup.semantic.steps=2",
        f"{STAGES}feature_means.share=0.02", "sample.candidates=2",
        f"{STAGES}feature_classifier.share=0.02", f"{STAGES}feature_classifier.releases=5",
        f"{STAGES}class_gaussians.share=0.05", f"{STAGES}class_gaussians.frequencies=4",
        "warmup.gaussians.steps=2", "warmup.gaussians.images=50",
        "warmup.steps=3", "warmup.batch=8", "warmup.embedding.steps=2", "warmup.embedding.images=50",
        "warmup.embedding.generator_steps=3", "warmup.embedding.generator_batch=20"))
    check(stage_charges(run) == {"label_histogram": 1, "central_images": 4, "class_gaussians": 2,
                                 "mean_embedding": 1, "semantic_query": 1, "feature_means": 1,
                                 "feature_classifier": 5},
          f"the ledger charges {stage_charges(run)}")
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(0.99 * 6 < card["epsilon"] <= 6, f"epsilon is {card['epsilon']}, the target 6")
    phases = []
    for stage in card["stages"]:
        if stage["mechanism"] == "gaussian":
            phases.append(f"gaussian:{stage['sensitivity_l2']}:{stage['noise_stddev']}")
        else:  # made by each of the two candidates
            phases.append(f"{stage['sample_rate']}:{stage['noise_multiplier']}:{2 * stage['steps']}")
    check(len(phases) == 9, f"the card lists {len(phases)} uses of the data, not 9")
    check(any("semantic_query" in line for line in card["public_data"]),
          f"the card names no public images: {card['public_data']}")
    arguments = [word for phase in phases for word in ("--phase", phase)]
    by_hand = sfumato.json("account", "--delta", "1e-5", *arguments)["epsilon"]
    check(abs(by_hand - card["epsilon"]) < 1e-3, f"by hand {by_hand}, the card {card['epsilon']}")
    sfumato.run("ledger", "verify", run)


def check_proportions(sfumato, run: Path, corpus: Path) -> None:
    shares = json.loads((run / "release/label_histogram.json").read_text())["proportions"]
    sfumato.run("sample", run, "--out", corpus, "--count", "97", "sample.steps=1")
    with (corpus / "metadata.csv").open() as file:
        drawn = Counter(int(row["label"]) for row in csv.DictReader(file))
    expected = largest_remainder(97, shares)
    check([drawn[label] for label in range(10)] == expected,
          f"classes {drawn}, the histogram asks for {expected}")
    said = (corpus / "README.md").read_text()
    check("proportions of a noisy count" in said,
          "the corpus does not say where its class counts come from")
    check("Of 2 images that were drawn for each" in said,
          "the corpus does not say that its images were chosen among candidates")


def check_kill(sfumato, store: Path, run: Path) -> None:
    """Killed among the releases of a stage: what is charged is spent."""
    arguments = smoke_arguments(store, run, f"{STAGES}central_images.noise_multiplier=5",
                                f"{STAGES}central_images.releases=2000")
    process = sfumato.start("train", *arguments, log=run.with_suffix(".log"))
    deadline = time.monotonic() + 60
    while stage_charges(run)["central_images"] < 5 and time.monotonic() < deadline:
        check(process.poll() is None, f"training ended: {run.with_suffix('.log').read_text()}")
        time.sleep(0.002)
    process.kill()
    process.wait()
    charged = stage_charges(run)["central_images"]
    check(5 <= charged < 2000, f"killed after {charged} of 2000 releases")
    check(not (run / "release/central_images.safetensors").exists(), "half a result was written")
    said = sfumato.run("train", *arguments, "--resume", expect=PRIVACY).stderr
    check("budget is spent" in said and "new run" in said, f"no remedy in: {said}")
    check(stage_charges(run)["central_images"] == charged, "the refused resume charged the stage")


def check_stages(sfumato, work, _):
    store = prepare_small_store(sfumato, work)
    check_budget(sfumato, store, public_store(sfumato, work), work / "run")
    check_proportions(sfumato, work / "run", work / "corpus")
    check_kill(sfumato, store, work / "killed")
    sfumato.run("train", *smoke_arguments(store, work / "open", "privacy.enabled=false",
                                          f"{STAGES}label_histogram.noise_multiplier=9"),
                expect=USAGE)


if __name__ == "__main__":
    main(check_stages, __doc__.splitlines()[0])
