#!/usr/bin/env python3
"""A run's TensorBoard events, read by the `tensorboard` package, say what metrics.jsonl says.

Also those of a run that was killed and resumed from an earlier step: no curve runs backwards.
"""
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (check, complete_checkpoints, ledger_charges, main, metric_lines,
                         prepare_small_store, smoke_arguments, steps_taken)

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard_reads_back import check_scalar
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def compare(run: Path, steps: int) -> None:
    """The curves are those of metrics.jsonl, which has a line for each of `steps` steps."""
    events = EventAccumulator(str(run / "private/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    lines = metric_lines(run)
    check([line["step"] for line in lines] == list(range(1, steps + 1)),
          f"metrics of steps {[line['step'] for line in lines]}, expected 1 to {steps}")
    for name in lines[0].keys() - {"step"}:
        tag = f"train/{name}"
        for line in lines:
            defect = check_scalar(events, tag, line["step"], line[name])
            check(defect is None, defect)
        found = [event.step for event in events.Scalars(tag)]
        check(found == list(range(1, steps + 1)), f"the curve {tag} goes through steps {found}")


def crash_and_resume(sfumato, store: Path, run: Path) -> None:
    """A run that loses steps whose curves were already on disk goes on from an earlier step."""
    arguments = smoke_arguments(store, run, "mechanism.steps=40", "run.checkpoint_every=4",
                                "run.keep_last=3")
    process = sfumato.start("train", *arguments, log=run.with_suffix(".log"))
    deadline = time.monotonic() + 120
    while 8 not in complete_checkpoints(run):
        check(process.poll() is None and time.monotonic() < deadline, "no checkpoint of step 8")
        time.sleep(0.005)
    process.kill()
    process.wait()
    for step in complete_checkpoints(run):
        if step > 4:
            shutil.rmtree(run / f"private/checkpoints/step_{step:06d}")
    before = steps_taken(run)
    charged = len(ledger_charges(run))
    sfumato.run("train", *arguments, "--resume")
    compare(run, 40 - (charged - 4))
    lost = (run / "private/metrics_lost.jsonl").read_text().splitlines()
    check(lost == [line for line, step in before.items() if step > 4],
          f"{len(lost)} lost lines were kept of {len(before) - 4}")


def check_tensorboard(sfumato, work: Path, _):
    store = prepare_small_store(sfumato, work)
    sfumato.run("train", *smoke_arguments(store, work / "run", "mechanism.steps=6"))
    compare(work / "run", 6)
    crash_and_resume(sfumato, store, work / "crashed")


if __name__ == "__main__":
    main(check_tensorboard, __doc__.splitlines()[0])
