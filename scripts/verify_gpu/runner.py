"""Runs a table of steps, each under a limit of time and all within a budget, and says how each ended."""
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable

OK, FAILED, TIMED_OUT, SKIPPED = "ok", "failed", "timed out", "skipped"
# A step starts if this share of its limit is left of the budget.
LEAST_SHARE = 0.5
GRACE_S = 5


class Unmet(Exception):
    """A step's evidence is not there; the message says what is missing."""


@dataclass(frozen=True)
class Step:
    name: str
    limit_s: float
    command: Callable  # call -> list of words; Unmet if it cannot run
    judge: Callable    # call, Finished -> headline; Unmet if what the step left is no evidence
    needs: tuple = ()  # steps whose files it uses; for --only


@dataclass(frozen=True)
class Finished:
    """What a step's program left."""
    rc: int
    output: str
    errors: str


@dataclass
class Outcome:
    step: str
    status: str
    rc: int | None
    seconds: float
    headline: str


@dataclass
class Run:
    """Outcomes so far; told to `report` after every step."""
    steps: tuple
    budget_s: float
    logs: Path
    environment: dict
    folder: Path  # where programs run
    report: Callable = lambda run: None
    outcomes: list = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def all_ok(self) -> bool:
        return self.complete() and all(each.status == OK for each in self.outcomes)

    def complete(self) -> bool:
        return len(self.outcomes) == len(self.steps)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def telling_line(done: Finished) -> str:
    """The last one that speaks of an error, else the last one."""
    lines = (done.errors.strip() or done.output).splitlines()
    return last_line("\n".join(line for line in lines if re.search("error|FAILED", line, re.I)) or
                     "\n".join(lines))


def processes_of_session(session: int) -> list[int]:
    """timeout and launchers put what they start into process groups of their own."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def end_session(session: int) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        for process in processes_of_session(session):
            try:
                os.kill(process, sent)
            except ProcessLookupError:
                pass
        while processes_of_session(session) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not processes_of_session(session):
            return


def execute(run: Run, name: str, command: list, limit_s: float) -> tuple[int | None, str, str]:
    """Status (None: ended at its limit), output and errors, which also stay in the logs."""
    paths = [run.logs / f"{name}.{stream}" for stream in ("out", "err")]
    with paths[0].open("wb") as output, paths[1].open("wb") as errors:
        program = subprocess.Popen(list(map(str, command)), cwd=run.folder, env=run.environment,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                                   start_new_session=True)
        try:
            rc = program.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            rc = None
        finally:
            end_session(program.pid)  # what it left running too
            try:
                program.wait(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                pass  # in the driver, where no signal reaches it
    return rc, *(path.read_text(errors="replace") for path in paths)


def take(run: Run, call, step: Step) -> Outcome:
    left = run.budget_s - run.seconds()
    if left < LEAST_SHARE * step.limit_s:
        return Outcome(step.name, SKIPPED, None, 0.0,
                       f"{max(left, 0):.0f} s left of the call's {run.budget_s:.0f}, too few for it")
    limit = min(step.limit_s * call.patience, left)
    call.limit_s = limit
    began, rc = time.monotonic(), None
    try:
        rc, output, errors = execute(run, step.name, step.command(call), limit)
        if rc is None:
            said = last_line(errors) or last_line(output)
            status, headline = TIMED_OUT, f"no end after {limit:.0f} s; {said}"
        else:
            status, headline = OK, call.dressed(step.judge(call, Finished(rc, output, errors)))
    except Unmet as reason:
        status, headline = FAILED, str(reason)
    except OSError as reason:
        status, headline = FAILED, f"cannot run: {reason}"
    except (KeyError, IndexError, TypeError, ValueError) as reason:
        status, headline = FAILED, f"cannot read what it left: {type(reason).__name__}: {reason}"
    return Outcome(step.name, status, rc, round(time.monotonic() - began, 1), headline)


def run_steps(run: Run, call) -> None:
    for step in run.steps:
        print(f"{step.name} ...", flush=True)
        outcome = take(run, call, step)
        run.outcomes.append(outcome)
        run.report(run)
        print(f"{step.name}: {outcome.status} ({outcome.seconds:.0f} s) {outcome.headline}", flush=True)


def write_atomically(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def write_summary(path: Path, facts: dict, run: Run) -> None:
    summary = {**facts, "total_seconds": round(run.seconds(), 1), "complete": run.complete(),
               "ok": run.all_ok(), "steps": [asdict(outcome) for outcome in run.outcomes]}
    write_atomically(path, json.dumps(summary, indent=1) + "\n")


def table(run: Run) -> str:
    width = max(len(outcome.step) for outcome in run.outcomes)
    return "\n".join(f"{outcome.step:{width}}  {outcome.status:9}  {outcome.seconds:6.1f} s  "
                     f"{outcome.headline}" for outcome in run.outcomes)
