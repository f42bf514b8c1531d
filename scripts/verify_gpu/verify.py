"""`scripts/verify-gpu`: one call on a GPU, its table of steps and its files."""
import argparse
import os
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path

from call import Call, make_call
from results import TABLES
from runner import Run, run_steps, table, write_summary

# Of a call's 590 s: the rest is for packing and for ending what hangs.
BUDGET_S = 565


def with_needs(steps: tuple, names: list[str]) -> tuple:
    """Those steps and what they need, in the table's order."""
    known = {step.name: step for step in steps}
    wanted = []
    for name in names:
        if name not in known:
            sys.exit(f"[verify-gpu] error: no step '{name}'; there are {', '.join(known)}")
        wanted.append(name)
    for name in wanted:  # grows
        wanted += [need for need in known[name].needs if need not in wanted]
    return tuple(step for step in steps if step.name in wanted)


def folder_for_results(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if (path / "summary.json").exists():
        sys.exit(f"[verify-gpu] error: '{path}' holds the results of a call; "
                 "give each a folder of its own")
    return path.resolve()


def carry_out(call: Call, steps: tuple) -> Run:
    facts = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def report(run: Run) -> None:
        write_summary(call.out / "summary.json", {**call.facts(), **facts}, run)

    run = Run(steps, BUDGET_S, call.work / "logs", call.environment(), call.work, report)
    report(run)
    try:
        run_steps(run, call)
    finally:
        call.pack_run()
        call.fit()
        report(run)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="verify-gpu", usage="see scripts/verify-gpu --help")
    parser.add_argument("call", choices=TABLES)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","))
    arguments = parser.parse_args()
    if not arguments.bundle.is_file():
        parser.error(f"no bundle '{arguments.bundle}'; scripts/bundle --with-peers makes one")
    steps = TABLES[arguments.call]
    if arguments.only:
        steps = with_needs(steps, arguments.only)
    # Files and a summary are left where the call itself is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    call = make_call(arguments.call, arguments.bundle.resolve(), folder_for_results(arguments.out))
    try:
        run = carry_out(call, steps)
    finally:
        call.clean()
    print(f"\n{call.kind} on {call.gpu or 'no GPU'}"
          f"{', a dry run' if call.dry_run else ''}, {run.seconds():.0f} s\n\n{table(run)}")
    for line in call.left_out:
        print(f"left out: {line}")
    return 0 if run.all_ok() and not call.left_out else 1


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
