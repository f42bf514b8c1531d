#!/usr/bin/env python3
"""scripts/sanitize-device calls clean what compute-sanitizer found clean, and nothing else.

The sanitizer, the driver's nvidia-smi and the tests are stand-ins, so that no GPU is needed.
"""
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, check, main

PASSED = "[  PASSED  ] 5 tests."
CLEAN = "========= ERROR SUMMARY: 0 errors"
DEFAULT_FILTER = "--gtest_filter=Twins.*:UpdatesOnKernels.*:All/LayersOnKernels.*_bf16*"
# What the sanitizer prints, its status, and whether that is clean.
OUTCOMES = {
    "clean": ((PASSED, CLEAN), 0, True),
    "one clean test": (("[  PASSED  ] 1 test.", CLEAN), 0, True),
    "no race": ((PASSED, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
                0, True),
    "errors": ((PASSED, "========= ERROR SUMMARY: 3 errors"), 99, False),
    "ten errors, status lost": ((PASSED, "========= ERROR SUMMARY: 10 errors"), 0, False),
    "a race, status lost": (
        (PASSED, "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)"), 0, False),
    "a test failed": (("[  PASSED  ] 4 tests.", "[  FAILED  ] 1 test", CLEAN), 1, False),
    "every test skipped": (("[  PASSED  ] 0 tests.", "[  SKIPPED ] 5 tests", CLEAN), 0, False),
    "not attached": (("========= Error: No attachable process found.", PASSED), 0, False),
    "no test ran": (("========= Error: Device not supported.",), 1, False),
}


def write_program(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)


class Checkout:
    """A folder with the scripts and stand-ins for what they run."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        for name in ("common.sh", "sanitize-device"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts")
        write_program(folder / "tools/nvidia-smi", "echo 'GPU 0: stand-in'\n")

    def expect_sanitizer_says(self, lines, status: int) -> None:
        write_program(self.folder / "tools/compute-sanitizer",
                      f'echo "$@" >> {self.folder}/calls\ncat <<END\n' + "\n".join(lines) +
                      f"\nEND\nexit {status}\n")

    def run(self, *arguments):
        return subprocess.run([self.folder / "scripts/sanitize-device", *arguments], text=True,
                              capture_output=True, timeout=60,
                              env={"PATH": f"{self.folder}/tools:/usr/bin:/bin",
                                   "TMPDIR": str(self.folder)})

    def run_on_stand_in(self, *arguments):
        """With the stand-in that knows the real tool's options, which runs the program."""
        shutil.copy(ROOT / "tests/pretend_gpu/bin/compute-sanitizer", self.folder / "tools")
        return self.run(*arguments)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


def check_outcomes(checkout: Checkout) -> None:
    for name, (lines, status, clean) in OUTCOMES.items():
        checkout.expect_sanitizer_says(lines, status)
        done = checkout.run("memcheck")
        check(done.returncode == (0 if clean else 1), f"{name}: {done}")
        said = done.stdout.splitlines()
        check(len(said) == 1 and ("memcheck: ok" in said[0]) == clean, f"{name}: {done}")
        check(clean or Path(said[0].split("see ")[1]).is_file(), f"{name}: the log is gone")


def check_all_tools(checkout: Checkout) -> None:
    checkout.expect_sanitizer_says((PASSED, CLEAN), 0)
    (checkout.folder / "calls").unlink()
    done = checkout.run("all", "--gtest_filter=A*")
    tools = ("memcheck", "racecheck", "synccheck", "initcheck")
    calls = checkout.calls()
    check(done.returncode == 0 and len(done.stdout.splitlines()) == len(tools) == len(calls), done)
    for tool, call in zip(tools, calls):
        check(call.startswith(f"--tool {tool} ") and
              call.endswith("build/release/test_device --gtest_filter=A*"), call)
    unclean = sum(not clean for _, _, clean in OUTCOMES.values())
    check(len(list(checkout.folder.glob("sanitize-device.*"))) == unclean, "logs left")


def check_what_is_checked(checkout: Checkout) -> None:
    """Own kernels on a filter of tests; nothing of what LibTorch and its libraries do by design."""
    checkout.expect_sanitizer_says((PASSED, CLEAN), 0)
    (checkout.folder / "calls").unlink()
    check(checkout.run("--gtest_repeat=1").returncode == 0, "tests' arguments without a tool")
    calls = checkout.calls()
    check(len(calls) == 4, calls)
    for call in calls:
        words = call.split()
        tool = words[words.index("--tool") + 1]
        check(words[-2:] == [DEFAULT_FILTER, "--gtest_repeat=1"], f"no default filter: {call}")
        # What a kernel writes unwatched would count as never written.
        check(("--kernel-name kernel_substring=_ZN7sfumato " in call) == (tool != "initcheck"), call)
        check("--leak-check full" not in call, f"LibTorch's own memory counts as leaked: {call}")
        check(("--report-api-errors no" in call) == (tool == "memcheck"), call)


def check_environment_of_tests(checkout: Checkout) -> None:
    """A CUDA graph cannot be recorded where LibTorch's allocator does not keep memory."""
    program = checkout.folder / "build/release/test_device"
    write_program(program, f'env > {checkout.folder}/environment\necho "{PASSED}"\n')
    done = checkout.run_on_stand_in("all", "--logs", checkout.folder / "kept")
    check(done.returncode == 0 and done.stdout.count(": ok, 5 tests") == 4, done)
    seen = (checkout.folder / "environment").read_text()
    check("NO_CUDA_MEMORY_CACHING" not in seen, f"the tests run with\n{seen}")
    kept = sorted(path.name for path in (checkout.folder / "kept").iterdir())
    check(kept == ["initcheck.log", "memcheck.log", "racecheck.log", "synccheck.log"], kept)
    check("SUMMARY: 0" in (checkout.folder / "kept/racecheck.log").read_text(), "the log is empty")


def check_limits_of_time(checkout: Checkout) -> None:
    write_program(checkout.folder / "build/release/test_device", "sleep 600\n")
    started = time.monotonic()
    done = checkout.run_on_stand_in("synccheck", "--limit", "1")
    check(done.returncode == 1 and "synccheck: FAILED, no end after 1 s" in done.stdout, done)
    check(time.monotonic() - started < 30, "the limit of time does not hold")
    for wrong in ("0", "1.5", "soon"):
        check(checkout.run("synccheck", "--limit", wrong).returncode == 2, f"--limit {wrong}")


def check_bundle_layout(work: Path) -> None:
    bundle = Checkout(work / "bundle")
    (bundle.folder / "bundle.txt").touch()
    write_program(bundle.folder / "run", f'echo "run $1" >> {bundle.folder}/calls\nshift\nexec "$@"\n')
    write_program(bundle.folder / "bin/test_device", "exit 1\n")
    bundle.expect_sanitizer_says((PASSED, CLEAN), 0)
    done = bundle.run("synccheck")
    check(done.returncode == 0 and bundle.calls()[0] == "run --" and
          bundle.calls()[1].endswith(f"/bin/test_device {DEFAULT_FILTER}"),
          f"{done} {bundle.calls()}")


def check_what_is_missing(checkout: Checkout) -> None:
    (checkout.folder / "build/release/test_device").unlink()
    done = checkout.run()
    check(done.returncode == 2 and "no " in done.stderr and "test_device" in done.stderr, done)
    write_program(checkout.folder / "tools/nvidia-smi", "echo 'No devices were found'\nexit 6\n")
    done = checkout.run()
    check(done.returncode == 0 and "no GPU: skipped" in done.stdout, done)
    check(checkout.run("helgrind").returncode == 2, "an unknown tool is accepted")


def sanitize_device(_, work: Path, __):
    checkout = Checkout(work / "checkout")
    write_program(checkout.folder / "build/release/test_device", "exit 1\n")
    check_outcomes(checkout)
    check_all_tools(checkout)
    check_what_is_checked(checkout)
    check_environment_of_tests(checkout)
    check_limits_of_time(checkout)
    check_bundle_layout(work)
    check_what_is_missing(checkout)


if __name__ == "__main__":
    main(sanitize_device, __doc__.splitlines()[0])
