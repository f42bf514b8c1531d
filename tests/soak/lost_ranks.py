#!/usr/bin/env python3
"""Kills processes of runs of three at random moments, and cuts others off their network.

    tests/soak/lost_ranks.py --kills 100 --cuts 20

After each: the other processes end by themselves with status 5 within a stated time, somebody names
the one that was lost, the ledger verifies and charges every step that left a trace, and the run goes
on in a random number of processes, until it has all its steps and another begins. Kills come while
processes start, join, train and save. Takes about 10 s for each kill and 40 s for each cut.
"""
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from rank_runs import Network, Ranks, small_run, verify
from sfumato_cli import (DEVICE, check, complete_checkpoints, ledger_charges, main,
                         prepare_small_store, steps_taken)

STEPS = 60
KILL_LIMIT_S, CUT_LIMIT_S = 45, 75  # 30 s without a sign of life, and what a busy machine adds


class Run:
    def __init__(self, store: Path, work: Path, number: int):
        self.folder = work / f"run{number}"
        self.arguments = [*small_run(store, self.folder, STEPS), "--resume-or-start"]
        self.attempts = 0

    def log(self) -> Path:
        self.attempts += 1
        return Path(f"{self.folder}.{self.attempts}.log")


class Soak:
    def __init__(self, sfumato, work: Path, seed: int):
        self.sfumato, self.work, self.draw = sfumato, work, random.Random(seed)
        self.store = prepare_small_store(sfumato, work)
        self.runs = 0
        self.run = self.next_run()
        self.longest = {"kill": 0.0, "cut": 0.0}
        self.outcomes = Counter()

    def next_run(self) -> Run:
        self.runs += 1
        return Run(self.store, self.work, self.runs)

    def wait(self, ranks: Ranks, seconds: float) -> None:
        """Somewhen: after so many seconds, or at the next step after that."""
        time.sleep(seconds)
        before = len(ledger_charges(self.run.folder))
        end = time.monotonic() + self.draw.uniform(0, 1)
        while time.monotonic() < end and len(ledger_charges(self.run.folder)) <= before:
            time.sleep(0.002)

    @staticmethod
    def have_joined(ranks: Ranks) -> bool:
        """Whether rank 0 has come to what follows on joining; it says so."""
        return bool(ranks.output(0))

    def once(self, how: str, network: Network | None) -> None:
        run, size = self.run, 3
        charges, newest = len(ledger_charges(run.folder)), max(complete_checkpoints(run.folder),
                                                               default=0)
        ranks = Ranks(self.sfumato, size, run.arguments, run.log(),
                      prefix=network.prefix if network else lambda rank: [],
                      address=network.address(0) if network else "127.0.0.1")
        victim = self.draw.randrange(size)
        self.wait(ranks, self.draw.uniform(1.5, 6))
        ended_before = all(process.poll() is not None for process in ranks.processes)
        if how == "kill":
            ranks.processes[victim].send_signal(signal.SIGKILL)
        else:
            network.cut(victim)
        begin = time.monotonic()
        limit = KILL_LIMIT_S if how == "kill" else CUT_LIMIT_S
        if how == "kill" and not self.have_joined(ranks):
            # A process that never came is waited for: launchers end the others.
            for process in ranks.processes:
                process.kill()
            self.outcomes["while joining"] += 1
            return
        found = ranks.statuses(timeout=limit, but=victim if how == "kill" else None)
        self.longest[how] = max(self.longest[how], time.monotonic() - begin)
        for process in ranks.processes:
            process.wait(timeout=limit)
        if network:
            network.mend(victim)
        if ended_before:
            check(set(found) == {0}, f"ended by themselves with {found}; see {ranks.log}")
            self.outcomes["finished before"] += 1
            self.run = self.next_run()
            return
        said = "".join(ranks.output(rank) for rank in range(size))
        finished = set(found) == {0} or len(ledger_charges(run.folder)) >= STEPS
        if not finished:
            check(set(found) == {DEVICE}, f"{how} of rank {victim}: {found}; see {ranks.log}")
            check(f"rank {victim}" in said, f"nobody names rank {victim}; see {ranks.log}")
        self.outcomes[how] += 1
        self.check_run(charges, newest)

    def check_run(self, charges: int, newest: int) -> None:
        folder = self.run.folder
        now = ledger_charges(folder)
        check(len(now) >= charges, f"{charges} charges became {len(now)}")
        check(max(complete_checkpoints(folder), default=0) >= newest, "a checkpoint is lost")
        check(len(now) >= len(steps_taken(folder)), "a step without a charge")
        if (folder / "ledger.jsonl").exists():
            verify(self.sfumato, folder, STEPS)
        if len(now) >= STEPS or self.run.attempts > 40:
            self.finish()

    def finish(self) -> None:
        ranks = Ranks(self.sfumato, self.draw.choice([1, 2, 4]), self.run.arguments, self.run.log())
        ranks.expect(0)
        verify(self.sfumato, self.run.folder, STEPS)
        self.run = self.next_run()


def soak(sfumato, work: Path, arguments):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}", flush=True)
    tests = Soak(sfumato, work, seed)
    begin = time.monotonic()
    for kind, count in (("kill", arguments.kills), ("cut", arguments.cuts)):
        if kind == "cut" and count and (reason := Network.missing()):
            return reason
        network = Network(3) if kind == "cut" and count else None
        try:
            while tests.outcomes[kind] < count:
                tests.once(kind, network)
                if sum(tests.outcomes.values()) % 10 == 0:
                    print(dict(tests.outcomes), f"{time.monotonic() - begin:.0f} s", flush=True)
        finally:
            if network:
                network.close()
        if count:
            print(f"{count} {kind}s: the others had ended after {tests.longest[kind]:.1f} s at most")
    tests.finish()
    print(f"{tests.runs - 1} runs, all finished; {dict(tests.outcomes)}")


def options(parser) -> None:
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, help="of moments and processes")


if __name__ == "__main__":
    main(soak, __doc__.splitlines()[0], options)
