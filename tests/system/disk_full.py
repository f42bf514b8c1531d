#!/usr/bin/env python3
"""Training, preparing and sampling on a full disk end with a clear error and lose nothing.

Needs a small file system of its own, hence root (a tmpfs); skipped without.
"""
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (DATA, check, complete_checkpoints, ledger_charges, main, metric_lines,
                         prepare_small_store, smoke_arguments, write_idx)


@contextmanager
def small_disk(folder: Path, kib: int):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "sfumato-test", folder],
                   check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount(work: Path) -> bool:
    try:
        with small_disk(work / "probe", 64):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError, PermissionError):
        return False


def fill(folder: Path, leave_kib: int) -> Path:
    """Fills the disk up to `leave_kib`; returns the file that does."""
    space = os.statvfs(folder)
    path = folder / "filler"
    path.write_bytes(b"\0" * (space.f_bavail * space.f_frsize - leave_kib * 1024))
    return path


def check_training(sfumato, store: Path, disk: Path) -> None:
    """The disk fills while training; with space again the run resumes and finishes."""
    run = disk / "run"
    arguments = smoke_arguments(store, run, "mechanism.steps=40", "run.checkpoint_every=2",
                                "run.keep_last=100", "run.log_every=1")
    check_space_error(sfumato.run("train", *arguments, expect=DATA))
    steps, newest = len(metric_lines(run)), max(complete_checkpoints(run), default=0)
    check(len(ledger_charges(run)) >= max(steps, newest),
          f"{len(ledger_charges(run))} charges, {steps} steps, checkpoint {newest}")
    sfumato.run("ledger", "verify", run)
    (disk / "filler").unlink()
    sfumato.run("train", *arguments, "--resume")
    said = sfumato.json("ledger", "show", run)
    check(said["charged_steps"] <= 40, f"{said['charged_steps']} charges, 40 planned")


def check_space_error(done) -> None:
    check("No space left" in done.stderr,
          f"the error does not say that the disk is full: {done.stderr}")


def check_preparing(sfumato, work: Path, disk: Path) -> None:
    images, labels = write_idx(work, 40)
    fill(disk, 48)
    done = sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                       f"data.labels={labels}", f"data.store={disk}/store", expect=DATA)
    check_space_error(done)
    (disk / "filler").unlink()
    sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                f"data.labels={labels}", f"data.store={disk}/store")


def disk_full(sfumato, work: Path, _):
    if not can_mount(work):
        return "mounting a small file system needs root"
    store = prepare_small_store(sfumato, work)
    # A checkpoint of the smoke network is about 0.7 MiB, and all are kept: the fourth does not fit.
    with small_disk(work / "disk", 32 * 1024) as disk:
        fill(disk, 2600)
        check_training(sfumato, store, disk)
    with small_disk(work / "disk2", 4 * 1024) as disk:
        check_preparing(sfumato, work, disk)


if __name__ == "__main__":
    main(disk_full, __doc__.splitlines()[0])
