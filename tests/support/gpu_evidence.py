"""What scripts/verify-gpu takes for evidence, step by step: made-up outputs, on a GPU and in a dry run.

Used by system/verify_gpu.py, which has scripts/verify_gpu on its path.
"""
import json
import tempfile
from pathlib import Path

import common_steps
import correct
import speed
from call import Call
from runner import Finished, Unmet
from sfumato_cli import check

GPU, PRETENDED = "NVIDIA H200", "NVIDIA H200 (pretended)"
COMPARISON = "a_test.cpp:1\nExpected: (a) <= (b), actual: 2 vs 1"
OF_VALUES = 'unknown file\nC++ exception with description "the clip norm must be positive and finite"'
EXCEPTION = 'unknown file\nC++ exception with description "CUDA error: invalid argument"'
END = "[==========] 1 test from 1 test suite ran. (1 ms total)\n"
CLEAN = "========= ERROR SUMMARY: 0 errors\n"


def new_call(work: Path, gpu: str) -> Call:
    folder = Path(tempfile.mkdtemp(dir=work))
    for name in ("out", "run", "sanitize"):
        (folder / name).mkdir()
    return Call("correct", folder, folder / "out", folder, folder, "python3", gpu=gpu)


def expect(call: Call, judge, done: Finished, good: bool, what: str) -> None:
    try:
        headline = judge(call, done)
    except Unmet as reason:
        check(not good, f"{what} is refused: {reason}")
    else:
        check(good and headline, f"{what} is taken for evidence: {headline}")


def printed(value, rc: int = 0, errors: str = "") -> Finished:
    return Finished(rc, value if isinstance(value, str) else json.dumps(value), errors)


def report_of(failures=(), result: str = "COMPLETED") -> str:
    test = {"name": "b", "status": "RUN", "result": result}
    if failures:
        test["failures"] = [{"failure": each} for each in failures]
    return json.dumps({"testsuites": [{"name": "A", "testsuite": [test]}]})


def check_tests(work: Path) -> None:
    # report, status, what was printed; whether it is evidence on a GPU, and in a dry run
    cases = {
        "all passed": (report_of(), 0, "", True, True),
        "a wrong value": (report_of([COMPARISON]), 1, "", False, True),
        "a wrong value, status lost": (report_of([COMPARISON]), 0, "", False, True),
        "a value that the program refuses": (report_of([OF_VALUES]), 1, "", False, True),
        "an exception": (report_of([COMPARISON, EXCEPTION]), 1, "", False, False),
        "only skipped": (report_of(result="SKIPPED"), 0, "", False, False),
        "skipped without a GPU": (report_of(), 0, "a.h:1: Skipped\nno GPU: none\n", False, False),
        "a crash at the end": (report_of(), 139, "", False, False),
        "a failure without a test": (report_of(), 1, "", False, True),
        "no report": (None, 0, END, False, False),
    }
    for name, (report, rc, said, on_gpu, dry) in cases.items():
        for gpu, good in ((GPU, on_gpu), (PRETENDED, dry)):
            call = new_call(work, gpu)
            if report:
                (call.work / "test_device.json").write_text(report)
            expect(call, correct.judge_test_device, printed(said, rc), good, f"test_device, {gpu}: {name}")


def check_sanitizers(work: Path) -> None:
    said_ok = "[sanitize-device] racecheck: ok, 1 tests, 0 hazards (1 s)\n"
    failed = "[ RUN      ] A.b\na_test.cpp:1: Failure\n{}\n[  FAILED  ] A.b (1 ms)\n" + END
    wrong, thrown = (failed.format(each.partition("\n")[2]) for each in (COMPARISON, EXCEPTION))
    cases = {
        "clean": (END + CLEAN, 0, said_ok, True, True),
        "a wrong value": (wrong + CLEAN, 1, "[sanitize-device] racecheck: FAILED\n", False, True),
        "an exception": (thrown + CLEAN, 1, "[sanitize-device] racecheck: FAILED\n", False, False),
        "found something": (END + "========= ERROR SUMMARY: 2 errors\n", 1, "FAILED\n", False, False),
        "no summary": (END, 1, "[sanitize-device] racecheck: FAILED, no summary\n", False, False),
        "a crash": ("[ RUN      ] A.b\n" + CLEAN, 1, "FAILED with status 139\n", False, False),
        "out of time": (wrong + CLEAN, 1, "racecheck: FAILED, no end after 5 s\n", False, False),
        "no GPU": (None, 0, "[sanitize-device] no GPU: skipped\n", False, False),
    }
    for name, (log, rc, said, on_gpu, dry) in cases.items():
        for gpu, good in ((GPU, on_gpu), (PRETENDED, dry)):
            call = new_call(work, gpu)
            if log:
                (call.work / "sanitize/racecheck.log").write_text(log)
            expect(call, correct.judge_sanitize("racecheck"), printed(said, rc), good,
                   f"racecheck, {gpu}: {name}")


def machine(name: str | None) -> dict:
    gpu = name and {"name": name, "compute_capability": "9.0", "memory_bytes": 1 << 37}
    return {"machine": {"gpu": gpu, "torch_version": "2.11.0"}}


def step_report(seconds: float = 0.01, recorded: bool = True) -> dict:
    kind = {"whole_step": {"min_s": seconds}}
    return {"cases": [{"private": kind, "plain": kind, "ratio": {"peak_whole_step": 1.0},
                       "recorded": recorded, "draws_per_s": {"private": 1.0}}]}


def kernel_report(measured: bool) -> dict:
    return {"rows": [{"kernel": "k", "measured": measured}], "totals": []}


def check_benchmarks(work: Path) -> None:
    step = common_steps.judge_bench_step("cifar10_bf16")
    smi = "Driver Version : 1\n    Product Name : NVIDIA H200\n"
    cases = (
        ("the driver's GPU", common_steps.judge_nvidia_smi, printed(smi), True),
        ("no driver", common_steps.judge_nvidia_smi, printed("Product Name : NVIDIA H200\n"), False),
        ("no GPU", common_steps.judge_nvidia_smi, printed("Driver Version : 1\n"), False),
        ("the GPU is found", common_steps.judge_doctor, printed(machine(GPU)), True),
        ("another GPU is found", common_steps.judge_doctor, printed(machine("NVIDIA L4")), False),
        ("no GPU is found", common_steps.judge_doctor, printed(machine(None)), False),
        ("a machine that is not ready", common_steps.judge_doctor, printed(machine(GPU), 5), False),
        ("a step", step, printed(step_report()), True),
        ("a step of no time", step, printed(step_report(seconds=0)), False),
        ("a step without a graph", step, printed(step_report(recorded=False)), False),
        ("a step that failed", step, printed(step_report(), 5), False),
        ("half a report", step, printed('{"cases": ['), False),
        ("kernels", speed.judge_kernels, printed(kernel_report(True)), True),
        ("a kernel that does not fit", speed.judge_kernels, printed(kernel_report(False)), False),
        ("no kernels", speed.judge_kernels, printed({"rows": [], "totals": []}), False),
        ("images that are not finite", speed.judge_bench_sample,
         printed("", 3, "error: the network produced values that are not finite"), False),
    )
    for name, judge, done, good in cases:
        expect(new_call(work, GPU), judge, done, good, name)
    dry = new_call(work, PRETENDED)
    for errors, good in (("error: the network produced values that are not finite", True),
                         ("error: CUDA error: invalid argument", False)):
        expect(dry, speed.judge_bench_sample, printed("", 3, errors), good, f"a dry run that says {errors}")
    for text, on_gpu, dry_run in (('"Kernel Name"\n"weight_grad_kernel"', True, True),
                                  ('"Kernel Name"\n', False, True), ("==ERROR==\n", False, False)):
        for gpu, good in ((GPU, on_gpu), (PRETENDED, dry_run)):
            call = new_call(work, gpu)
            (call.work / "ncu.csv").write_text(text)
            expect(call, speed.judge_ncu, printed(""), good, f"a profile, {gpu}: {text}")


def check_real_run(work: Path) -> None:
    for name, losses, epsilon, on_gpu, dry in (
            ("falling losses", [1.0, 0.5], 9.9, True, True),
            ("losses that do not fall", [1.0, 1.0], 9.9, False, True),
            ("a loss that is not finite", [1.0, float("nan")], 9.9, False, False),
            ("no steps", [], 9.9, False, False), ("too large an epsilon", [1.0, 0.5], 10.1, False, False)):
        for gpu, good in ((GPU, on_gpu), (PRETENDED, dry)):
            call = new_call(work, gpu)
            for folder in ("private", "release"):
                (call.work / "run/digits" / folder).mkdir(parents=True)
            lines = "".join(json.dumps({"loss": loss}) + "\n" for loss in losses)
            (call.work / "run/digits/private/metrics.jsonl").write_text(lines)
            card = call.work / "run/digits/release/privacy_card.json"
            card.write_text(json.dumps({"epsilon": epsilon}))
            expect(call, speed.judge_train, printed(""), good, f"training, {gpu}: {name}")
    for name, count, distinct, on_gpu, dry in (("64 images", 64, 64, True, True),
                                               ("63 images", 63, 63, False, False),
                                               ("one image 64 times", 64, 1, False, True)):
        for gpu, good in ((GPU, on_gpu), (PRETENDED, dry)):
            call = new_call(work, gpu)
            images = call.work / "run/corpus/images/0"
            images.mkdir(parents=True)
            sheet = images.parents[1] / "__preview__/contact_sheet.png"
            sheet.parent.mkdir()
            sheet.touch()
            for i in range(count):
                (images / f"{i}.png").write_text(str(i % distinct))
            expect(call, speed.judge_sample, printed({"status": "private", "epsilon": 9.9}), good,
                   f"sampling, {gpu}: {name}")


def check_evidence(work: Path) -> None:
    work.mkdir()
    check_tests(work)
    check_sanitizers(work)
    check_benchmarks(work)
    check_real_run(work)
