#!/usr/bin/env python3
"""From images to a corpus on the smallest network: stages, layout, cards, statuses, stopping."""
import csv
import json
import re
import signal
import stat
import sys
import time
from pathlib import Path

import numpy
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from browser import Browser
from sfumato_cli import (DATA, INTERRUPTED, PRIVACY, USAGE, check, complete_checkpoints,
                         ledger_charges, main, metric_lines, prepare_small_store, smoke_arguments)

STEPS = 12
PRIVATE_WORDS = ("loss", "gradient_norm", "clipped_fraction", "batch_size")


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    check(data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def check_run(sfumato, run: Path) -> dict:
    """The layout of a finished run; returns its card."""
    for part in ("config.yaml", "ledger.jsonl", "release/model_index.json",
                 "release/unet/config.json", "release/unet/diffusion_pytorch_model.safetensors",
                 "release/scheduler/scheduler_config.json", "release/privacy_card.json",
                 "release/privacy_card.md", "release/README.md", "release/report.html"):
        check((run / part).is_file(), f"the run has no {part}")
    mode = stat.S_IMODE((run / "private").stat().st_mode)
    check(mode == 0o700, f"private/ has mode {mode:o}")
    check(complete_checkpoints(run)[-1] == STEPS, "no checkpoint of the last step")
    charges = len(ledger_charges(run))
    check(charges == STEPS, f"{charges} charges for {STEPS} steps")
    check([line["step"] for line in metric_lines(run)] == list(range(1, STEPS + 1)),
          "there is not one line of metrics for each step")
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(0 < card["epsilon"] <= 10, f"the card's epsilon is {card['epsilon']}, the target 10")
    check(card["delta"] == 1e-5, f"the card's delta is {card['delta']}")
    stage, = card["stages"]
    check(stage["charged"] == STEPS == stage["steps"], f"the card says {stage}")
    phase = sfumato.json("account", "--delta", "1e-5", "--phase",
                         f"{stage['sample_rate']}:{stage['noise_multiplier']}:{STEPS}")
    check(abs(phase["epsilon"] - card["epsilon"]) <= 1e-6 * card["epsilon"],
          f"`account` says {phase['epsilon']}, the card {card['epsilon']}")
    report = (run / "release/report.html").read_text()
    outside = re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)|url\((?!["']?data:)|@import""", report)
    check(not outside, f"report.html loads something from elsewhere: {outside}")
    for name in ("report.html", "privacy_card.json", "privacy_card.md", "README.md"):
        text = (run / "release" / name).read_text().lower()
        for word in PRIVATE_WORDS:
            check(f'"{word}' not in text and f">{word}" not in text, f"{name} mentions {word}")
    return card


def check_corpus(corpus: Path, count: int, card: dict) -> None:
    for part in ("metadata.csv", "README.md", "privacy_card.json", "lineage.json",
                 "__preview__/contact_sheet.png", "report.html"):
        check((corpus / part).is_file(), f"the corpus has no {part}")
    with (corpus / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    check(len(rows) == count, f"{len(rows)} rows in metadata.csv, expected {count}")
    for row in rows:
        check(png_size(corpus / row["file_name"]) == (16, 16), f"size of {row['file_name']}")
    per_class = {row["label"]: 0 for row in rows}
    for row in rows:
        per_class[row["label"]] += 1
    check(sorted(per_class.values()) == [count // 10] * 10, f"images per class: {per_class}")
    found = sorted(str(p.relative_to(corpus)) for p in (corpus / "images").rglob("*.png"))
    check(found == sorted(row["file_name"] for row in rows), "metadata.csv and images/ differ")
    copied = json.loads((corpus / "privacy_card.json").read_text())
    check(copied["epsilon"] == card["epsilon"] and copied["delta"] == card["delta"],
          "the corpus states another guarantee than the run")


def check_plots(page: Path, work: Path) -> None:
    """Three plots, laid out whole in a browser of any width and let in by the page's own policy."""
    text = page.read_text()
    check(text.count("<svg") == 3 and "ε by step" in text, f"{page} shows {text.count('<svg')} plots")
    browser = Browser.found(work)
    if not browser:
        return
    for width in (1200, 500):
        plots = browser.plots(page, work / "measured.html", width)
        check([plot["name"].split(":")[0] for plot in plots] ==
              ["ε by step", "δ against ε", "what an attacker can tell"], f"{page}: {plots}")
        for plot in plots:
            check(plot["width"] > 250 and plot["height"] > 150 and not plot["outside"], f"{page} at {width}: {plot}")
    said = browser.complaints(page)
    check("Content Security Policy" not in said, f"{page}: {said[-500:]}")
    for dark in (False, True):
        picture = work / f"{'dark' if dark else 'light'}.png"
        browser.picture(page, picture, dark=dark)
        colours = Image.open(picture).convert("RGB").getcolors(1 << 24)
        paper = max(colours)[1]
        check(len(colours) > 50 and (sum(paper) < 200) == dark, f"{page}, dark {dark}: the paper is {paper}")


def check_sampling(sfumato, run: Path, work: Path, card: dict) -> None:
    corpus, again = work / "corpus", work / "again"
    sfumato.run("sample", run, "--out", corpus, "--count", "20", "sample.batch=7", "sample.steps=4")
    check_corpus(corpus, 20, card)
    for page in (run / "release/report.html", corpus / "report.html"):
        check_plots(page, work)
    sfumato.run("sample", run, "--out", again, "--count", "20", "sample.batch=20", "sample.steps=4")
    for path in (again / "images").rglob("*.png"):
        pixels = [numpy.asarray(Image.open(folder / path.relative_to(again)), dtype=int)
                  for folder in (corpus, again)]
        difference = abs(pixels[0] - pixels[1]).max()
        check(difference <= 1, f"{path} differs by {difference} grey levels with another batch")


def check_statuses(sfumato, store: Path, run: Path, work: Path) -> None:
    """Every kind of error has its exit status and names what is wrong."""
    def refused(status: int, word: str, *arguments) -> None:
        said = sfumato.run(*arguments, expect=status).stderr
        check(word in said, f"`{' '.join(map(str, arguments))}` does not mention '{word}': {said}")

    new = work / "refused"
    refused(USAGE, "trian", "trian")
    refused(USAGE, "did you mean 'learning_rate'", "train",
            *smoke_arguments(store, new, "optimizer.learning_rat=1"))
    refused(USAGE, "sample_rate", "train",
            *smoke_arguments(store, new, "mechanism.sample_rate=1.5"))
    refused(USAGE, "delta", "account", "--phase", "0.1:1:10", "--delta", "2")
    refused(USAGE, "--resume", "train", *smoke_arguments(store, run))
    refused(USAGE, "excludes", "train", *smoke_arguments(store, run, "--resume", "--resume-or-start"))
    refused(USAGE, "exists", "prepare", "--config", "configs/smoke.yaml", f"data.store={store}",
            f"data.source={work}/images-idx3-ubyte.gz", f"data.labels={work}/labels-idx1-ubyte.gz")
    refused(DATA, "nowhere", "train", *smoke_arguments(work / "nowhere", new))
    refused(USAGE, "nowhere", "sample", work / "nowhere", "--out", new, "--count", "1")
    refused(DATA, "broken", "prepare", "--config", "configs/smoke.yaml",
            f"data.source={broken_idx(work)}", f"data.store={new}")
    refused(PRIVACY, "noise_multiplier", "train",
            *smoke_arguments(store, run, "--resume", f"mechanism.steps={STEPS}",
                             "mechanism.target_epsilon=3"))
    refused(PRIVACY, "unreachable", "train",
            *smoke_arguments(store, new, "mechanism.target_epsilon=1e-9", "mechanism.delta=1e-30"))
    check(not (new / "ledger.jsonl").exists(), "a refused run left a ledger")
    damaged = work / "damaged.jsonl"
    ledger = (run / "ledger.jsonl").read_text()
    damaged.write_text(ledger.replace('"kind":"charge"', '"kind":"stop"', 1))
    refused(PRIVACY, "line 2", "ledger", "verify", damaged)


def broken_idx(work: Path) -> Path:
    path = work / "broken-idx3-ubyte"
    path.write_bytes(bytes.fromhex("00000803 00000010 00000010 00000010") + b"\0" * 100)
    return path


def check_stopping(sfumato, store: Path, work: Path) -> None:
    """SIGTERM ends at a step boundary with a checkpoint; the resumed run goes on from there."""
    run, log = work / "stopped", work / "stopped.log"
    arguments = smoke_arguments(store, run, "mechanism.steps=400", "run.checkpoint_every=1000")
    process = sfumato.start("train", *arguments, log=log)
    deadline = time.monotonic() + 60
    while len(metric_lines(run)) < 3:
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=60)
    check(status == INTERRUPTED, f"status {status} after SIGTERM; see {log}")
    steps = len(metric_lines(run))
    check(complete_checkpoints(run) == [steps], f"{steps} steps, checkpoints "
          f"{complete_checkpoints(run)}")
    check(len(ledger_charges(run)) == steps, f"{len(ledger_charges(run))} charges, {steps} steps")
    check(not (run / "release").exists(), "an interrupted run made a release")
    process = sfumato.start("train", *arguments, "--resume-or-start", log=log)
    while len(metric_lines(run)) == steps:
        check(process.poll() is None and time.monotonic() < deadline + 60, f"no steps; see {log}")
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    check(process.wait(timeout=60) == INTERRUPTED, "status after SIGINT")
    check(metric_lines(run)[steps]["step"] == steps + 1, "the resumed run repeats or skips a step")


def check_not_private(sfumato, store: Path, work: Path) -> None:
    run = work / "plain"
    sfumato.run("train", *smoke_arguments(store, run, f"mechanism.steps={STEPS}",
                                          "privacy.enabled=false", "--resume-or-start"))
    check(not (run / "ledger.jsonl").exists(), "a run without privacy has a ledger")
    check("NOT PRIVATE" in (run / "release/privacy_card.md").read_text(),
          "the card of a run without privacy does not say so")


def end_to_end(sfumato, work: Path, _):
    store = prepare_small_store(sfumato, work)
    run = work / "run"
    result = sfumato.json("train", *smoke_arguments(store, run, f"mechanism.steps={STEPS}",
                                                    "run.checkpoint_every=5"))
    check(result["steps"] == STEPS and 0 < result["epsilon"] <= 10, f"train says {result}")
    card = check_run(sfumato, run)
    for path in (run, store, run / "release", run / "ledger.jsonl"):
        sfumato.run("inspect", path)
    sfumato.run("doctor", "--config", "configs/smoke.yaml", f"data.store={store}")
    check_sampling(sfumato, run, work, card)
    check_statuses(sfumato, store, run, work)
    check_stopping(sfumato, store, work)
    check_not_private(sfumato, store, work)


if __name__ == "__main__":
    main(end_to_end, __doc__.splitlines()[0])
