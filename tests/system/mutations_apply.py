#!/usr/bin/env python3
"""Every mutation of tests/mutations.json still applies, and the tests that should notice it exist.

Builds nothing: `scripts/mutate` without --check does, and runs them. The tool's verdicts are tested
here on a list of its own, with shell scripts in the place of compiler and test programs.
"""
import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, check, main

LEAST = 32


def load_tool():
    path = str(ROOT / "scripts/mutate")
    spec = importlib.util.spec_from_loader(
        "mutate", importlib.machinery.SourceFileLoader("mutate", path))
    tool = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = tool
    sys.dont_write_bytecode = True
    spec.loader.exec_module(tool)
    return tool


def check_the_list() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/mutate", "--check"],
                          capture_output=True, text=True)
    check(done.returncode == 0, done.stdout + done.stderr)
    check(int(done.stdout.split()[0]) >= LEAST, f"only {done.stdout}")


def refused(tool, mutation) -> bool:
    try:
        tool.check([mutation])
    except tool.Problem:
        return True
    return False


def check_the_check(tool) -> None:
    """A find string that is gone, or there twice, and a test that is gone are noticed."""
    good = next(m for m in tool.read_mutations() if m.tests)
    check(not refused(tool, good), good.name)
    fields = {**vars(good)}
    for change in ({"find": "no such line"}, {"find": ";"}, {"replace": good.find},
                   {"tests": ("Suite.ThatIsGone",)}, {"tests": ()}, {"file": "src/gone.cpp"}):
        check(refused(tool, tool.Mutation(**{**fields, **change})), str(change))


def check_the_verdicts(tool, work: Path) -> None:
    tool.say = lambda _: None
    tool.TREE = work
    mutation = next(m for m in tool.read_mutations() if m.tests)
    compiled = tool.Mutation(**{**vars(mutation), "tests": (), "guard_is_compiler": True})
    program = work / "program"

    def verdict(judged, status: int, script: str = "", output: str = "") -> str:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        runner = tool.Runner([judged], 1)
        runner._judge(judged, status, output, program, 0)
        return runner.results[0].outcome

    check(verdict(mutation, 0, "exit 0") == "SURVIVED", "all tests pass")
    check(verdict(mutation, 0, "echo '[  FAILED  ] A.B (1 ms)'; exit 1") == "CAUGHT", "one fails")
    check(verdict(mutation, 0, "kill -SEGV $$") == "CAUGHT", "the program crashes")
    check(verdict(mutation, 1, output="x.cpp:1: error: expected ';'") == "BROKEN",
          "what does not compile proves nothing")
    check(verdict(compiled, 0) == "SURVIVED", "the compiler accepts it")
    refusal = "x.cpp:1: error: static assertion failed"
    check(verdict(compiled, 1, output=refusal) == "CAUGHT", "a static assertion")
    check(verdict(compiled, 1, output="x.cpp:1: error: expected ';'") == "BROKEN",
          "not the compiler's guard")
    tool.TEST_TIMEOUT_S = 0.2
    check(verdict(mutation, 0, "sleep 30") == "BROKEN", "no end")
    patient = tool.Mutation(**{**vars(mutation), "timeout_is_caught": True})
    check(verdict(patient, 0, "sleep 30") == "CAUGHT", "no end, and that is the sign")


def mutations_apply(_, work: Path, __):
    check_the_list()
    tool = load_tool()
    check_the_check(tool)
    check_the_verdicts(tool, work)


if __name__ == "__main__":
    main(mutations_apply, __doc__.splitlines()[0])
