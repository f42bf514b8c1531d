#!/usr/bin/env python3
"""Counts the test cases below a results folder and prints 'N passed, N failed, N skipped'.

Reads, for every preset, GoogleTest's XML (PRESET/cases/test_AREA.xml) beside what ctest says about
the programs (PRESET/ctest.xml), and checks.json of run_checks.py. A program that failed without a
failed case (it crashed, or ran out of time) counts as one failure. Exit status 1 if anything failed
or nothing ran at all.
"""
import argparse
import json
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path


def case_outcome(case: xml.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.find("skipped") is not None or case.get("status") == "notrun":
        return "skipped"
    return "passed"


def program_outcomes(preset: Path, program: xml.Element):
    """Yields (name, outcome) for the cases of one program that ctest ran."""
    name = program.get("name")
    skipped = program.find("skipped")
    # ctest calls a program that was never built "notrun" as well.
    program_skipped = program.get("status") == "disabled" or (
        skipped is not None and "SKIP_" in skipped.get("message", ""))
    program_failed = program.get("status") != "run" and not program_skipped
    cases_file = preset / "cases" / f"test_{name}.xml"
    cases = []
    if cases_file.exists():
        try:
            cases = [(f"{case.get('classname')}.{case.get('name')}", case_outcome(case))
                     for case in xml.parse(cases_file).iter("testcase")]
        except xml.ParseError:
            program_failed = True
    for case, outcome in cases:
        yield f"{preset.name}: {case}", outcome
    if program_failed and all(outcome != "failed" for _, outcome in cases):
        yield f"{preset.name}: program {name} did not end well", "failed"
    elif not cases:
        yield f"{preset.name}: {name}", "skipped" if program_skipped else "passed"


def all_outcomes(results: Path):
    for preset in sorted(path for path in results.iterdir() if path.is_dir()):
        listing = preset / "ctest.xml"
        if not listing.exists():
            yield f"{preset.name}: ctest did not run", "failed"
            continue
        for program in xml.parse(listing).iter("testcase"):
            yield from program_outcomes(preset, program)
    checks = results / "checks.json"
    if checks.exists():
        for check in json.loads(checks.read_text()):
            yield f"check {check['name']}", check["outcome"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder that scripts/test wrote")
    outcomes = list(all_outcomes(parser.parse_args().results))
    for outcome in ("skipped", "failed"):
        for name in (name for name, o in outcomes if o == outcome):
            print(f"{outcome}: {name}")
    count = Counter(outcome for _, outcome in outcomes)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 0 if outcomes and not count["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
