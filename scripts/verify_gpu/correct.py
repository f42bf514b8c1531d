"""The steps of `verify-gpu correct`: does what is computed on this GPU hold?"""
import re
import shutil

from common_steps import (FIRST_STEPS, HERE, bench_step, ended_well, judge_bench_step, parsed,
                          positive)
from runner import Finished, Step, Unmet, last_line, telling_line
from tests_report import accept, read_log, read_report

# Of the tests, with VERIFY_GPU_QUICK=1: a kernel against its twin, and what only a GPU has.
QUICK_TESTS = "--gtest_filter=Twins.ClipFactors*:Gpu.FactsAndMemory*:Gpu.RecordedPlain*"
# Of a step's seconds, for scripts/sanitize-device to end a tool, 10 s after a hint, and say so.
MARGIN_S = 15


def judge_sanitizer_help(call, done: Finished) -> str:
    ended_well(done)
    missing = [option for option in ("--tool", "--kernel-name", "--report-api-errors")
               if option not in done.output]
    if missing:
        raise Unmet(f"does not know {', '.join(missing)}")
    version = re.search(r"Version (\S+)", done.output)
    return f"version {version[1]}" if version else "takes the options that are used"


def ceilings(call) -> list:
    return [call.python, HERE / "ceilings.py", "--repeat", call.few(20, 2)]


def judge_ceilings(call, done: Finished) -> str:
    report = parsed(done)
    call.put("doctor.json", "ceilings", report)
    copy = positive(report["copy_bytes_per_s"], "copy's rate")
    product = positive(report["bf16_flops_per_s"], "product's rate")
    return f"copy {copy * 1e-9:,.0f} GB/s, 8192^3 bf16 {product * 1e-12:,.0f} TFLOP/s"


def test_device(call) -> list:
    return call.program("test_device", f"--gtest_output=json:{call.work / 'test_device.json'}",
                        *call.few((), (QUICK_TESTS,)))


def judge_test_device(call, done: Finished) -> str:
    report = call.work / "test_device.json"
    if not report.is_file():
        raise Unmet(f"status {done.rc} and no report: {telling_line(done)}")
    shutil.copy(report, call.out / "test_device.json")
    tests = read_report(report)
    accept(tests, done.output, call.dry_run)
    if done.rc not in ((0, 1) if call.dry_run else (0,)):
        raise Unmet(f"status {done.rc} after {tests.headline()}")
    return tests.headline()


def sanitize(tool: str, *tests):
    def command(call) -> list:
        chosen = call.few(tests, (QUICK_TESTS.partition(":")[0],))
        return [call.bundle / "scripts/sanitize-device", tool,
                "--limit", max(1, int(call.limit_s) - MARGIN_S),
                "--logs", call.work / "sanitize", *chosen]
    return command


def judge_sanitize(tool: str):
    def judge(call, done: Finished) -> str:
        call.pack_sanitizer_logs()
        log = call.work / "sanitize" / f"{tool}.log"
        said = last_line(done.output)
        if not log.is_file():
            raise Unmet(f"nothing ran: {said or last_line(done.errors)}")
        if "no end after" in said:
            raise Unmet(said.partition("] ")[2])
        if not call.dry_run:
            if done.rc != 0 or f"{tool}: ok" not in said:
                raise Unmet(said.partition("] ")[2] or last_line(done.errors))
            return said.partition(": ")[2]
        text = log.read_text(errors="replace")
        tests = read_log(text)
        accept(tests, text, call.dry_run)
        summary = re.search(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (0 (?:errors|hazards).*)$", text,
                            re.M)
        if not summary:
            raise Unmet("no clean summary")
        return f"{summary[1]}; {tests.headline()}"
    return judge


def sanitizer_step(tool: str, limit_s: float, *tests) -> Step:
    return Step(tool, limit_s, sanitize(tool, *tests), judge_sanitize(tool), ("unpack",))


STEPS = FIRST_STEPS + (
    Step("sanitizer_help", 15, lambda call: ["compute-sanitizer", "--help"], judge_sanitizer_help),
    Step("ceilings", 45, ceilings, judge_ceilings),
    # In case nothing else ends: the figure that most depends on.
    Step("step_cifar10_bf16", 60, bench_step("cifar10", "bf16"), judge_bench_step("cifar10_bf16"),
         ("unpack",)),
    Step("step_cifar10_bf16_keep", 60, bench_step("cifar10", "bf16", "--layer-algorithm", "keep"),
         judge_bench_step("cifar10_bf16_keep"), ("unpack",)),
    Step("test_device", 210, test_device, judge_test_device, ("unpack",)),
    sanitizer_step("memcheck", 150),
    sanitizer_step("racecheck", 110, "--gtest_filter=Twins.*"),
    sanitizer_step("synccheck", 90, "--gtest_filter=Twins.*"),
    sanitizer_step("initcheck", 90, "--gtest_filter=Twins.*"),
)
