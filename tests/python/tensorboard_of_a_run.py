#!/usr/bin/env python3
"""A run's TensorBoard events, read by the `tensorboard` package, say what metrics.jsonl says."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import check, main, metric_lines, prepare_small_store, smoke_arguments

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard_reads_back import check_scalar
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def check_tensorboard(sfumato, work: Path, _):
    run = work / "run"
    store = prepare_small_store(sfumato, work)
    sfumato.run("train", *smoke_arguments(store, run, "mechanism.steps=6"))
    events = EventAccumulator(str(run / "private/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    lines = metric_lines(run)
    check(len(lines) == 6, f"{len(lines)} lines of metrics for 6 steps")
    for name in lines[0].keys() - {"step"}:
        for line in lines:
            defect = check_scalar(events, f"train/{name}", line["step"], line[name])
            check(defect is None, defect)


if __name__ == "__main__":
    main(check_tensorboard, __doc__.splitlines()[0])
