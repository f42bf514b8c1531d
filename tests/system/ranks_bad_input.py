#!/usr/bin/env python3
"""What several processes of one run must not be given: each is refused by all of them, with what is
wrong and what to do, and leaves no ledger behind that charges anything.

Unlike configurations, stores, numbers of processes and runs; a store of which one copy differs in
one record; a port in use; an address nobody answers at; a folder that cannot be written.
"""
import shutil
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from rank_runs import Network, Ranks, bare_environment, small_run, wait_for_step
from sfumato_cli import (DATA, DEVICE, PRIVACY, ROOT, USAGE, check, ledger_charges, main,
                         prepare_small_store)

STEPS = 12
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def refused(ranks: Ranks, run: Path, *words: str) -> None:
    """Every process says all of `words`, and no step is charged."""
    for rank in range(len(ranks.processes)):
        said = ranks.output(rank)
        for word in words:
            check(word in said, f"rank {rank} does not say '{word}':\n{said[-1500:]}")
    check(not ledger_charges(run), f"a run that was refused has charges: {run}")


def unlike(sfumato, work: Path, store: Path) -> None:
    run = work / "unlike"
    ranks = Ranks(sfumato, 2, small_run(store, run, STEPS), work / "unlike.log",
                  lambda rank: [f"mechanism.steps={STEPS + rank}"])
    ranks.expect(USAGE)
    refused(ranks, run, "the configuration (mechanism.*) of rank 1", "same configuration")

    other = work / "other"
    other.mkdir()
    theirs = prepare_small_store(sfumato, other, per_class=41)
    ranks = Ranks(sfumato, 2, small_run(store, run, STEPS), work / "stores.log",
                  lambda rank: [f"data.store={theirs}"] if rank == 1 else [])
    ranks.expect(USAGE)
    refused(ranks, run, "the record store of rank 1", "copy the store of the first rank")

    large = [*small_run(store, run, STEPS), "mechanism.expected_batch_size=2000000"]
    ranks = Ranks(sfumato, 2, large, work / "large.log")
    ranks.expect(USAGE)
    refused(ranks, run, "added up exactly", "fewer processes")


def one_record(sfumato, work: Path, store: Path) -> None:
    run, copy = work / "record", work / "copy"
    shutil.copytree(store, copy)
    with (copy / "records.bin").open("r+b") as file:
        file.seek(4096 + 100 * 16 * 16)
        file.write(b"\xff\x00\xff")
    ranks = Ranks(sfumato, 2, small_run(store, run, STEPS), work / "record.log",
                  lambda rank: [f"data.store={copy}"] if rank == 1 else [])
    ranks.expect(DATA)
    refused(ranks, run)
    check("records.bin" in ranks.output(1) and "SHA-256" in ranks.output(1),
          f"rank 1 does not say which file differs: {ranks.output(1)[-1500:]}")
    check("rank 1" in ranks.output(0), f"rank 0 does not say whose: {ranks.output(0)[-1500:]}")


def sizes(sfumato, work: Path, store: Path) -> None:
    """Two processes that take themselves for one of two and one of three."""
    run = work / "sizes"
    ranks = Ranks(sfumato, 2, small_run(store, run, STEPS), work / "sizes.log",
                  prefix=lambda rank: ["env", f"WORLD_SIZE={2 + rank}"])
    ranks.expect(USAGE)
    refused(ranks, run, "WORLD_SIZE")


def one_folder(sfumato, work: Path, store: Path) -> None:
    run = work / "folder"
    first = Ranks(sfumato, 2, small_run(store, run, 400), work / "first.log")
    wait_for_step(run, 1, first.processes)
    second = Ranks(sfumato, 2, [*small_run(store, run, 400), "--resume"], work / "second.log")
    second.expect(PRIVACY)
    for rank in (0, 1):
        check("two processes cannot train one run" in second.output(rank), f"{second.output(rank)[-1500:]}")
    for process in first.processes:
        check(process.poll() is None, "the first run has ended, too")
        process.terminate()
    first.statuses()


def port_in_use(sfumato, work: Path, store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        ranks = Ranks(sfumato, 2, small_run(store, work / "port", STEPS), work / "port.log",
                      port=taken.getsockname()[1])
        status = ranks.processes[0].wait(timeout=60)
        ranks.processes[1].kill()
    check(status == DEVICE, f"a port in use: status {status}")
    for word in ("cannot serve", "MASTER_PORT"):
        check(word in ranks.output(0), f"no '{word}' in {ranks.output(0)[-1500:]}")


def no_route(sfumato, work: Path, store: Path) -> str | None:
    """A network without any way to rank 0: stopped while it waits, it says for whom."""
    reason = Network.missing()
    if reason:
        return reason
    with Network(2) as network:
        network.cut(1)
        environment = bare_environment() | {"RANK": "1", "WORLD_SIZE": "2",
                                            "MASTER_ADDR": network.address(0),
                                            "MASTER_PORT": "29500"}
        command = [*network.prefix(1), "timeout", "--signal=TERM", "8", str(sfumato.binary), "train",
                   *small_run(store, work / "route", STEPS)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                              timeout=120)
    check(f"waiting for the store of names at {network.address(0)}:29500" in done.stderr + done.stdout,
          f"no route: {done.stderr[-1500:]}")
    check("stopped while waiting for the other processes" in done.stderr, done.stderr[-1500:])
    return None


def read_only(sfumato, work: Path, store: Path) -> str | None:
    folder = work / "read_only"
    folder.mkdir()
    prefix = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"],
                                                         capture_output=True).returncode != 0:
        return "no mount namespaces"
    ranks = Ranks(sfumato, 2, small_run(store, folder / "run", STEPS), work / "read_only.log",
                  prefix=lambda rank: prefix)
    found = ranks.statuses()
    check(found[0] == found[1] and found[0] in (USAGE, DATA),
          f"a read-only folder: statuses {found}: {ranks.output(0)[-1500:]}")
    check(str(folder) in ranks.output(0), f"no folder in {ranks.output(0)[-1500:]}")
    check("rank 0" in ranks.output(1), f"rank 1 does not say who failed: {ranks.output(1)[-1500:]}")
    return None


def bad_input(sfumato, work: Path, arguments):
    store = prepare_small_store(sfumato, work)
    for each in (unlike, one_record, sizes, one_folder, port_in_use, no_route, read_only):
        reason = each(sfumato, work, store)
        print(f"{each.__name__}: " + (f"not tried: {reason}" if reason else "refused"))


if __name__ == "__main__":
    main(bad_input, __doc__.splitlines()[0])
