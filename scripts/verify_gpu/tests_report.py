"""What reports of GoogleTest say: did every test run, and did more than a comparison of values fail?"""
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from runner import Unmet

# How a failed comparison begins.
COMPARISON = re.compile(
    r"Expected equality of these values|Expected: \(|Value of: |The difference between ")
# And what this program says of values that it checks itself: a clip norm taken from norms that are all zero,
# images of a network whose values no kernel computed, a mixing of examples that it must find and cannot see.
# Any other exception, FAIL() or statement that should have thrown means that the program did not do what it
# should, whatever the kernels computed.
OF_VALUES = re.compile(r"the clip norm must be positive and finite|produced values that are not finite|"
                       r"throws an exception of type PrivacyError\.")


@dataclass
class Tests:
    ran: int = 0
    skipped: int = 0
    failed: int = 0
    beyond_values: list = field(default_factory=list)  # tests that failed in more than comparisons

    def headline(self) -> str:
        said = f"{self.ran - self.failed} of {self.ran} tests passed"
        if self.failed:
            said += f", {self.failed} failed"
        return said + (f", {self.skipped} skipped for want of data" if self.skipped else "")


def is_comparison(failure: str) -> bool:
    """Of one failure: the place is on its first line, what was wanted on the next."""
    place, _, what = failure.partition("\n")
    return bool(COMPARISON.match(what.lstrip() if what else place) or OF_VALUES.search(failure))


def read_report(path: Path) -> Tests:
    tests = Tests()
    for suite in json.loads(path.read_text())["testsuites"]:
        for test in suite["testsuite"]:
            if test.get("result") == "SKIPPED":
                tests.skipped += 1
                continue
            if test.get("status") != "RUN":
                continue
            tests.ran += 1
            failures = [each["failure"] for each in test.get("failures", [])]
            tests.failed += bool(failures)
            if not all(map(is_comparison, failures)):
                tests.beyond_values.append(f"{suite['name']}.{test['name']}")
    return tests


def read_log(text: str) -> Tests:
    """The same of what a test program printed; Unmet if it did not come to its end."""
    end = re.search(r"^\[==========\] (\d+) tests? from \d+ test suites? ran", text, re.M)
    if not end:
        raise Unmet("the tests did not come to their end")
    tests = Tests(skipped=len(re.findall(r"^\[  SKIPPED \] \S+ \(", text, re.M)),
                  failed=len(re.findall(r"^\[  FAILED  \] \S+.* \(\d+ ms\)$", text, re.M)))
    tests.ran = int(end[1]) - tests.skipped
    for block in re.split(r"^\[ RUN      \] ", text, flags=re.M)[1:]:
        heads = re.findall(r": Failure\n(.*)", block)
        if not all(COMPARISON.match(head) or OF_VALUES.search(head) for head in heads):
            tests.beyond_values.append(block.split(None, 1)[0])
    return tests


def accept(tests: Tests, printed: str, dry_run: bool) -> None:
    """Unmet unless tests ran, on the GPU, and passed; in a dry run values need not be right."""
    if re.search(r"Skipped\n.*no GPU", printed):
        raise Unmet("tests were skipped for want of a GPU")
    if tests.ran < 1:
        raise Unmet(f"no test ran, {tests.skipped} were skipped")
    if tests.beyond_values:
        some = ", ".join(tests.beyond_values[:3])
        raise Unmet(f"{tests.headline()}; not by values alone: {some}")
    if tests.failed and not dry_run:
        raise Unmet(tests.headline())
