"""Steps that both calls begin with, and what judges share."""
import json
import re
import sys
from pathlib import Path
from typing import Callable

from runner import Finished, Step, Unmet, telling_line
from tests_report import OF_VALUES

HERE = Path(__file__).resolve().parent


def ended_well(done: Finished) -> None:
    if done.rc != 0:
        raise Unmet(f"status {done.rc}: {telling_line(done)}")


def stopped_at_values(call, done: Finished) -> bool:
    """In a dry run, where no kernel computes what a network draws, that check is as far as it comes."""
    return call.dry_run and done.rc != 0 and bool(OF_VALUES.search(done.errors))


def parsed(done: Finished):
    ended_well(done)
    try:
        return json.loads(done.output)
    except json.JSONDecodeError as error:
        raise Unmet(f"printed no JSON ({error})")


def positive(value, what: str) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise Unmet(f"{what} is {value}")
    return value


def unpack(call) -> list:
    return [sys.executable, "-m", "tarfile", "-e", call.archive, call.work / "bundle"]


def judge_unpack(call, done: Finished) -> str:
    ended_well(done)
    facts = call.facts_of_bundle()
    if not {"version", "commit", "torch"} <= set(facts):
        raise Unmet(f"{call.archive} is no bundle of this project")
    return f"sfumato {facts['version']} ({facts['commit']})"


def judge_nvidia_smi(call, done: Finished) -> str:
    ended_well(done)
    said = {name: re.search(rf"^\s*{name}\s*:\s*(.+?)\s*$", done.output, re.M)
            for name in ("Product Name", "Driver Version")}
    if said["Product Name"] is None:
        raise Unmet("names no GPU")
    call.gpu = call.gpu or said["Product Name"][1]
    if said["Driver Version"] is None and not call.dry_run:
        raise Unmet("names no driver")
    call.driver = said["Driver Version"][1] if said["Driver Version"] else "none"
    call.put("doctor.json", "nvidia_smi", {"gpu": call.gpu, "driver": call.driver})
    return f"{call.gpu}, driver {call.driver}"


def judge_doctor(call, done: Finished) -> str:
    """The program itself must find the GPU that the driver names."""
    report = parsed(done)
    call.put("doctor.json", "doctor", report)
    machine = report["machine"]
    gpu = machine["gpu"]
    if gpu is None:
        raise Unmet(f"finds no GPU: {machine.get('why_no_gpu', 'and does not say why')}")
    if call.gpu and call.gpu not in gpu["name"] and gpu["name"] not in call.gpu:
        raise Unmet(f"finds {gpu['name']}, the driver {call.gpu}")
    call.gpu = gpu["name"]
    return (f"{gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"{gpu['memory_bytes'] / 2**30:.0f} GiB, {machine['torch_version']}")


FIRST_STEPS = (
    Step("unpack", 40, unpack, judge_unpack),
    Step("nvidia_smi", 15, lambda call: ["nvidia-smi", "-q"], judge_nvidia_smi),
    Step("doctor", 60, lambda call: call.sfumato("doctor", "--json"), judge_doctor, ("unpack",)),
)


def bench_step(case: str, precision: str, *further) -> Callable:
    """`sfumato bench step` on one case; cifar10 with the batch of the goals."""
    sizes = ("--examples", 16, "--draws", 8) if case == "cifar10" else ()

    def command(call) -> list:
        return call.sfumato("bench", "step", "--device", "cuda", "--precision", precision,
                            "--case", case, *sizes, *further, "--repeat", call.few(20, 1), "--json")
    return command


def judge_bench_step(name: str) -> Callable:
    def judge(call, done: Finished) -> str:
        report = parsed(done)
        call.put("step.json", name, report)
        case, = report["cases"]
        private, plain = (positive(case[kind]["whole_step"]["min_s"], f"seconds of the {kind} step")
                          for kind in ("private", "plain"))
        memory = positive(case["ratio"]["peak_whole_step"], "memory's ratio")
        if not case["recorded"]:
            raise Unmet("steps ran without a CUDA graph")
        return (f"private {private * 1e3:.2f} ms, plain {plain * 1e3:.2f} ms: {private / plain:.3f}; "
                f"memory {memory:.3f}; {case['draws_per_s']['private']:,.0f} draws/s")
    return judge
