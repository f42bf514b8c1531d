#!/usr/bin/env python3
"""A run as somebody lives with it: one command that starts, stops, goes on and stays finished;
pictures while it trains; the weights of one step; an older copy; runs side by side."""
import json
import re
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (INTERRUPTED, PRIVACY, USAGE, check, complete_checkpoints,
                         ledger_charges, main, metric_lines, prepare_small_store, smoke_arguments)

STEPS = 12
SEEN = ("preview.every=3", "preview.images=20", "preview.steps=2", "preview.share=1",
        "run.checkpoint_every=4", "run.keep_last=100", f"mechanism.steps={STEPS}")


def interrupted_run(sfumato, run: Path, arguments: list[str], log: Path) -> None:
    """Started by --resume=auto, ended by SIGTERM after some steps."""
    process = sfumato.start("train", *arguments, "--resume=auto", log=log)
    deadline = time.monotonic() + 120
    while len(metric_lines(run)) < 3:
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=60)
    check(status == INTERRUPTED, f"status {status} after SIGTERM; see {log}")
    said = log.read_text()
    check("error:" not in said, f"a stop that was asked for is called an error: {said}")
    check("continue with --resume" in said, f"nothing says how to go on: {said}")


def check_auto(sfumato, store: Path, work: Path) -> None:
    """One command line starts, goes on and leaves a finished run alone."""
    run, log = work / "auto", work / "auto.log"
    arguments = smoke_arguments(store, run, *SEEN, "mechanism.steps=400")
    interrupted_run(sfumato, run, arguments, log)
    check(re.search(r"computing on the (CPU|GPU)", log.read_text()), "the device is not said")
    step = complete_checkpoints(run)[-1]
    said = sfumato.run("sample", run, "--out", work / "none", "--count", "10", expect=USAGE).stderr
    check(f"{run}@{step}" in said and "whole plan" in said, f"sample of an unfinished run says {said}")
    short, log = work / "short", work / "short.log"
    arguments = smoke_arguments(store, short, *SEEN)
    sfumato.run("train", *arguments, "--resume=auto")
    before = (short / "ledger.jsonl").read_bytes()
    again = sfumato.run("train", *arguments, "--resume=auto")
    check("finished" in again.stderr and "nothing left" in again.stderr, again.stderr)
    check((short / "ledger.jsonl").read_bytes() == before, "a finished run was touched")
    result = sfumato.json("train", *arguments, "--resume=auto")
    check(result["steps"] == STEPS and result["charged_steps"] == STEPS, f"it says {result}")
    said = sfumato.run("train", *arguments, "--resume=auto", "mechanism.steps=20",
                       expect=PRIVACY).stderr
    check("mechanism.steps is 20" in said, f"another mechanism: {said}")
    said = sfumato.run("train", *arguments, "--resume=maybe", expect=USAGE).stderr
    check("--resume=auto" in said, said)


def check_history(sfumato, store: Path, work: Path) -> None:
    run = work / "auto"
    log = work / "history.log"
    process = sfumato.start("train", *smoke_arguments(
        store, run, *SEEN, "mechanism.steps=400", "optimizer.learning_rate=0.0123"),
        "--resume=auto", log=log)
    lines = len(metric_lines(run))
    deadline = time.monotonic() + 120
    while len(metric_lines(run)) == lines:
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    check(process.wait(timeout=60) == INTERRUPTED, f"see {log}")
    history = [json.loads(line) for line in (run / "settings_history.jsonl").read_text().splitlines()]
    check(len(history) == 1 and
          history[0]["changed"]["optimizer.learning_rate"]["to"] == "0.0123", f"history {history}")


def check_previews(sfumato, store: Path, work: Path) -> None:
    run = work / "short"
    folder = run / "private/previews"
    found = sorted(path.name for path in folder.iterdir())
    check(found == ["index.html", *(f"step_{step:06}.png" for step in range(3, STEPS + 1, 3))],
          f"previews are {found}")
    for path in folder.iterdir():
        check(stat.S_IMODE(path.stat().st_mode) == 0o600, f"mode of {path}")
    check(not list((run / "release").rglob("*.png")), "a release holds pictures")
    events = b"".join(path.read_bytes() for path in (run / "private/tensorboard").iterdir())
    check(events.count(b"\x89PNG") == STEPS // 3, "TensorBoard has not one picture for each preview")
    said = sfumato.run("train", *smoke_arguments(store, work / "none", "preview.every=0"),
                       expect=USAGE).stderr
    check("preview.every" in said, f"an interval of 0: {said}")


def check_steps(sfumato, work: Path) -> None:
    """The weights of one checkpoint."""
    run = work / "short"
    card = json.loads((run / "release/privacy_card.json").read_text())
    said = sfumato.run("release", run, "--step", "5", expect=USAGE).stderr
    check("steps 4, 8 and 12 have" in said, f"a step without a checkpoint: {said}")
    released = sfumato.json("release", run, "--step", "4")
    check(released["epsilon"] == card["epsilon"], f"step 4 of 12 claims {released}")
    sfumato.run("account", "--card", Path(released["release"]) / "privacy_card.json")
    corpus = work / "at4"
    sfumato.run("sample", f"{run}@4", "--out", corpus, "--count", "10", "sample.steps=2")
    of_corpus = json.loads((corpus / "privacy_card.json").read_text())
    check(of_corpus["status"] == "private" and of_corpus["epsilon"] == card["epsilon"]
          and of_corpus["checkpoint_step"] == 4, "the corpus of step 4 claims something else")
    said = sfumato.run("sample", f"{run}@5", "--out", work / "at5", "--count", "10",
                       expect=USAGE).stderr
    check("no checkpoint of step 5" in said, said)
    # Of an unfinished run: of what is charged the ledger knows, of what may come the plan.
    unfinished = work / "auto"
    step = complete_checkpoints(unfinished)[-1]
    planned = sfumato.json("ledger", "show", unfinished)["epsilon_planned"]
    epsilon = sfumato.json("release", unfinished, "--step", step)["epsilon"]
    check(abs(epsilon - planned) <= 1e-9 * planned, f"{epsilon} is not the plan's {planned}")
    sfumato.run("ledger", "verify", run)


def check_older_copy(sfumato, store: Path, work: Path) -> None:
    """A copy put back charges what it has forgotten, and ends earlier; never less."""
    run, kept, log = work / "moved", work / "kept", work / "moved.log"
    arguments = smoke_arguments(store, run, *SEEN, "mechanism.steps=400")
    interrupted_run(sfumato, run, arguments, log)
    shutil.copytree(run, kept)
    old = len(ledger_charges(kept))
    process = sfumato.start("train", *arguments, "--resume=auto", log=log)
    deadline = time.monotonic() + 120
    while len(ledger_charges(run)) < old + 5:
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.02)
    process.kill()  # no checkpoint, no word to the store
    process.wait()
    # A last charge may have been on disk whose noise was not drawn yet; a step with a line of metrics
    # was taken.
    truth = len(metric_lines(run))
    check(truth >= old + 3, f"{truth} steps were taken, {old} of them before the copy")
    shutil.rmtree(run)
    shutil.copytree(kept, run)
    process = sfumato.start("train", *arguments, "--resume=auto", log=log)
    while len(ledger_charges(run)) == old:
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    check(process.wait(timeout=60) == INTERRUPTED, f"see {log}")
    charged = sfumato.json("ledger", "show", run)["charged_steps"]
    own = len(ledger_charges(run)) - old
    check(charged >= truth + own, f"{truth} + {own} steps were noised, the copy charges {charged}")
    check("older than what the record store remembers" in log.read_text(), "nothing is said of it")
    check("are charged and lost: the run ends at step" in log.read_text(), "the end is not said")
    check(not sfumato.json("ledger", "verify", run)["problems"], "the copy does not verify")


def check_compare(sfumato, work: Path) -> None:
    page = work / "page.html"
    runs = (work / "short", work / "auto")
    text = sfumato.run("compare", *runs, "--out", page).stdout
    check("optimizer.learning_rate" in text and "0.0123" in text and "finished" in text, text)
    check("loss" not in text and "loss" not in page.read_text(), "private metrics unasked")
    check(page.read_text().count("data:image/png;base64,") == 2, "the page lacks pictures")
    check("private: loss" in sfumato.run("compare", *runs, "--private").stdout, "no metrics")
    said = sfumato.json("compare", *runs)
    check([run["privacy"] for run in said["runs"]] == ["private"] * 2, f"it says {said}")
    sfumato.run("compare", work / "nowhere", expect=USAGE)


def check_public_weights(sfumato, work: Path) -> None:
    done = sfumato.run("sample", "models/public/glyphs-gan", "--out", work / "public", "--count", "8")
    check("VOID" not in done.stderr + done.stdout, f"public weights are called VOID: {done.stderr}")
    check("Nothing is claimed about privacy" in done.stderr, done.stderr)


def while_it_trains(sfumato, work: Path, _):
    store = prepare_small_store(sfumato, work)
    check_auto(sfumato, store, work)
    check_history(sfumato, store, work)
    check_previews(sfumato, store, work)
    check_steps(sfumato, work)
    check_older_copy(sfumato, store, work)
    check_compare(sfumato, work)
    check_public_weights(sfumato, work)


if __name__ == "__main__":
    main(while_it_trains, __doc__.splitlines()[0])
