#!/usr/bin/env python3
"""The host side of the GPU's path, on a device that is not there (tests/README.md).

Training, sampling, benchmarks and running out of memory on `tests/pretend_gpu/on_pretend_gpu`: each
must end well without one call that CUDA would refuse. Kernels compute nothing there. --only WORD
runs the cases whose names contain it.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (DEVICE, ROOT, CheckFailed, Sfumato, check, ledger_charges, main,
                         prepare_small_store, smoke_arguments)

LAUNCHER = ROOT / "tests/pretend_gpu/on_pretend_gpu"
NAME = "NVIDIA H200 (pretended)"
STEPS = 6
PRECISIONS = ("fp32", "tf32", "bf16")
# A card that is no data centre's: 99 KiB of shared memory a block.
SMALL_SHARED_BYTES = 101376
# cudaErrorStreamCaptureUnsupported and ...Invalidated.
REFUSED_IN_CAPTURE, INVALID_CAPTURE = 900, 901


class OnPretendGpu(Sfumato):
    """The program on the pretended device; `report` is what the last run's processes left there."""

    def __init__(self, binary: Path, libraries: Path, work: Path):
        super().__init__(binary)
        self.libraries = libraries
        self.work = work
        self.report: list[dict] = []

    def _command(self, arguments) -> list[str]:
        return [str(LAUNCHER), *super()._command(arguments)]

    def environment(self, log: Path, **settings) -> dict:
        """What is measured on one kind of card is not remembered for another."""
        card = settings.get("PRETEND_GPU_SHARED_BYTES", "")
        return {**os.environ, "SFUMATO_PRETEND_GPU": str(self.libraries),
                "PRETEND_GPU_LOG": str(log), "SFUMATO_CACHE_DIR": str(self.work / f"cache{card}"),
                **{name: str(value) for name, value in settings.items()}}

    def run(self, *arguments, settings=None, may_be_refused=(), **options):
        """Runs to the end; CheckFailed where a call was illegal with another error than these."""
        log = self.work / "device.log"
        log.unlink(missing_ok=True)
        done = super().run(*arguments, env=self.environment(log, **(settings or {})), **options)
        check(log.exists(), f"{arguments}: the device was not used:\n{done.stdout}{done.stderr}")
        self.report = [json.loads(line) for line in log.read_text().splitlines()]
        for process in self.report:
            wrong = [call for call in process["illegal"] if call["error"] not in may_be_refused]
            check(not wrong and not process["not_pretended"] and process["captures_open"] == 0,
                  f"{arguments}: {json.dumps(process, indent=1)}")
        return done

    def total(self, figure: str) -> int:
        return sum(process[figure] for process in self.report)


class Bench:
    """Small stores of grey and of colour images, and runs on them."""

    def __init__(self, plain: Sfumato, gpu: OnPretendGpu, work: Path):
        self.plain = plain
        self.gpu = gpu
        self.work = work
        self.grey = prepare_small_store(plain, work)
        network = json.loads((ROOT / "configs/networks/smoke_unet.json").read_text())
        network["in_channels"] = network["out_channels"] = 3
        self.colour_network = work / "colour.json"
        self.colour_network.write_text(json.dumps(network))
        self.colour = work / "colour_store"
        plain.run("prepare", "--config", "configs/smoke.yaml", *self.colour_overrides(),
                  f"data.source={work}/images-idx3-ubyte.gz",
                  f"data.labels={work}/labels-idx1-ubyte.gz", f"data.store={self.colour}")
        self._runs = 0

    def colour_overrides(self) -> list[str]:
        return ["data.channels=3", f"model.config={self.colour_network}"]

    def train(self, channels: int, precision: str, *overrides, recorded: bool = True, **options):
        """Trains on the device; the run's folder and what the program said."""
        self._runs += 1
        run = self.work / f"run_{self._runs}"
        arguments = smoke_arguments(self.grey if channels == 1 else self.colour, run,
                                    "performance.device=cuda", f"performance.precision={precision}",
                                    f"performance.cuda_graph={str(recorded).lower()}",
                                    f"mechanism.steps={STEPS}")
        if channels == 3:
            arguments += self.colour_overrides()
        done = self.gpu.run("train", *arguments, *overrides, **options)
        return run, done.stdout + done.stderr

    def check_ledger(self, run: Path) -> None:
        self.plain.run("ledger", "verify", run)
        check(len(ledger_charges(run)) == STEPS, f"{len(ledger_charges(run))} charges in {run}")


def check_recorded(gpu: OnPretendGpu, said: str, recorded: bool) -> None:
    """Steps ran as graphs exactly where that was asked for, with nothing odd in them."""
    figures = {name: gpu.total(name) for name in
               ("launches", "captures_begun", "captures_ended", "graph_launches")}
    check("without a CUDA graph" not in said, said)
    check(figures["launches"] > 1000, f"{figures}")
    if recorded:
        check(figures["captures_ended"] > 0 and figures["graph_launches"] > 0, f"{figures}")
        check(figures["captures_ended"] == figures["captures_begun"], f"{figures}")
    else:
        check(figures["captures_begun"] == 0 and figures["graph_launches"] == 0, f"{figures}")
    warnings = [warning for process in gpu.report for warning in process["warnings"]]
    check(not warnings, f"the device warns: {warnings}")


# Cases -------------------------------------------------------------------------------------------


def doctor(bench: Bench) -> None:
    said = bench.gpu.run("doctor").stdout
    check(re.search(rf"GPU +{re.escape(NAME)}, compute capability 9\.0", said), said)
    machine = bench.gpu.json("doctor")["machine"]
    check(machine["gpu"] and machine["gpu"]["name"] == NAME, f"doctor --json says {machine}")
    check(machine["gpu"]["memory_free_bytes"] > 140 * 2**30, f"doctor --json says {machine}")


def training(channels: int, precision: str):
    def case(bench: Bench) -> None:
        for recorded in (True, False):
            run, said = bench.train(channels, precision, recorded=recorded)
            check_recorded(bench.gpu, said, recorded)
            bench.check_ledger(run)
    return case


def training_without_privacy(bench: Bench) -> None:
    run, said = bench.train(3, "bf16", "privacy.enabled=false")
    check_recorded(bench.gpu, said, recorded=True)
    check((run / "release/unet").is_dir(), f"no release in {run}")


def memory_that_runs_out(bench: Bench) -> None:
    """The step is repeated with fewer images; the ledger is that of a run that had enough."""
    large = ("performance.physical_batch=32", "diffusion.draws=32")
    bench.train(3, "bf16", *large)
    needed = bench.gpu.total("peak_bytes")
    for share in (0.7, 0.5):
        run, said = bench.train(3, "bf16", *large,
                                settings={"PRETEND_GPU_BYTES": int(share * needed)})
        check("out of memory: the physical batch is" in said, said)
        check(bench.gpu.total("allocations_refused") > 0, f"{bench.gpu.report}")
        check_recorded(bench.gpu, said, recorded=True)
        bench.check_ledger(run)


def memory_for_nothing(bench: Bench) -> None:
    _, said = bench.train(3, "bf16", expect=DEVICE, settings={"PRETEND_GPU_BYTES": 16 << 20})
    check("out of memory" in said and "physical_batch" in said, said)


def recordings_that_fail(bench: Bench) -> None:
    """A library may do what no recording allows: training goes on without one."""
    run, said = bench.train(3, "bf16", settings={"PRETEND_GPU_BREAK_CAPTURES": 1},
                            may_be_refused=(REFUSED_IN_CAPTURE, INVALID_CAPTURE))
    check("steps run without a CUDA graph" in said, said)
    check(bench.gpu.total("captures_failed") == 1 and bench.gpu.total("graph_launches") == 0,
          f"{bench.gpu.report}")
    bench.check_ledger(run)


def graphs_that_cannot_be_made(bench: Bench) -> None:
    """Nor may a device that is full when a recording is over end the program."""
    run, said = bench.train(3, "bf16", settings={"PRETEND_GPU_BREAK_GRAPHS": 1})
    check("steps run without a CUDA graph" in said, said)
    check(bench.gpu.total("captures_ended") == 1 and bench.gpu.total("graph_launches") == 0,
          f"{bench.gpu.report}")
    bench.check_ledger(run)
    test_of_a_gpu(bench, "Gpu.WhatFailsInARecordingPassesThrough", PRETEND_GPU_BREAK_GRAPHS=1)


def test_of_a_gpu(bench: Bench, tests: str, **settings) -> None:
    """Tests of test_device that compare nothing but what the host keeps: all must pass."""
    done = subprocess.run([str(LAUNCHER), str(bench.gpu.binary.parent / "test_device"),
                           f"--gtest_filter={tests}"], text=True, capture_output=True, timeout=120,
                          env=bench.gpu.environment(bench.work / "values.log", **settings))
    passed = f"[  PASSED  ] {tests.count(':') + 1} test"
    check(done.returncode == 0 and passed in done.stdout,
          f"{done.returncode}: {done.stdout[-3000:]}{done.stderr[-2000:]}")


def less_shared_memory(channels: int):
    def case(bench: Bench) -> None:
        run, said = bench.train(channels, "bf16",
                                settings={"PRETEND_GPU_SHARED_BYTES": SMALL_SHARED_BYTES})
        check_recorded(bench.gpu, said, recorded=True)
        bench.check_ledger(run)
    return case


def sampling(bench: Bench) -> None:
    """Black pictures; "are all values finite?" has to be answered by a device without values."""
    run, _ = bench.train(3, "bf16")
    corpus = bench.work / "corpus"
    done = bench.gpu.run("sample", run, "--out", corpus, "--count", "20", "sample.steps=4",
                         "performance.device=auto", "performance.precision=bf16",
                         settings={"PRETEND_GPU_TRUTHS": 1})
    check("drawing on the GPU" in done.stderr, f"auto takes no GPU, or does not say so: {done.stderr}")
    check(len(list((corpus / "images").rglob("*.png"))) == 20, f"no 20 images in {corpus}")
    check(bench.gpu.total("launches") > 100, f"{bench.gpu.report}")


def bench_step(bench: Bench) -> None:
    for network in (bench.colour_network, ROOT / "configs/networks/smoke_unet.json"):
        said = bench.gpu.json("bench", "step", "--device", "cuda", "--precision", "bf16",
                              "--network", network, "--examples", "2", "--draws", "2",
                              "--repeat", "2")
        measured, = said["cases"]
        check(measured["recorded"], f"not as graphs: {measured}")
        check(measured["private"]["peak_bytes_gradient"] > 0, f"no memory: {measured}")
        check(len(bench.gpu.report) == 3, f"{len(bench.gpu.report)} processes, not 3")


def bench_step_waits_at_its_ends_only(bench: Bench) -> None:
    """Nothing waits for the device between a gradient and the ledger: the disk's time would be added
    to that of the device, which training has beside it."""
    waits = []
    for repeat in (1, 3):
        bench.gpu.json("bench", "step", "--device", "cuda", "--precision", "bf16", "--network",
                       ROOT / "configs/networks/smoke_unet.json", "--examples", "2", "--draws", "2",
                       "--repeat", str(repeat))
        waits.append(bench.gpu.total("device_synchronisations"))
    # Gradients and whole steps, private and plain: before and after the steps in a row.
    check(waits[1] - waits[0] == 2 * 4 * 2, f"{waits} waits with 1 and 3 repetitions")


def bench_kernels(bench: Bench) -> None:
    said = bench.gpu.json("bench", "kernels", "--device", "cuda", "--examples", "1", "--draws", "1",
                          "--repeat", "1")
    rows = [row for row in said["rows"] if row["measured"]]
    check(len(rows) > 20 and all(row["min_s"] > 0 for row in rows), f"{said['rows']}")


def tests_of_a_gpu(bench: Bench) -> None:
    """Every layer, precision and network of test_device. What its tests compare is zero there, so
    that many fail; all must run to the end and start nothing that CUDA refuses."""
    program = bench.gpu.binary.parent / "test_device"

    def run(name: str, tests: str, **settings) -> str:
        log = bench.work / f"{name}.log"
        done = subprocess.run([str(LAUNCHER), str(program), f"--gtest_filter={tests}"], text=True,
                              capture_output=True, timeout=600,
                              env=bench.gpu.environment(log, OMP_NUM_THREADS=1, **settings))
        ended = re.search(r"(\d+) tests from \d+ test suites? ran", done.stdout)
        check(done.returncode in (0, 1) and ended and int(ended[1]) > 100,
              f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return log.read_text()

    # All but one that breaks a recording, and those that spend most of their time in the CPU's twins
    # of kernels.
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run, "large_card", "-Twins.*:*AFailedRecording*"),
                pool.submit(run, "small_card", "*LayersOnKernels*",
                            PRETEND_GPU_SHARED_BYTES=SMALL_SHARED_BYTES)]
    for line in [json.loads(done.result()) for done in runs]:
        check(line["launches"] > 10000 and line["illegal_calls"] == 0 and not line["not_pretended"],
              f"{line}")


def tests_without_values(bench: Bench) -> None:
    """Those tests of a GPU that have nothing to compare but what the host keeps must hold."""
    test_of_a_gpu(bench, "Gpu.AFailedRecordingGivesItsMemoryBack:"
                  "Gpu.WhatFailsInARecordingPassesThrough:"
                  "Gpu.AWayThatThisGpuDoesNotHaveIsLeftOut:"
                  "RecordedBatchOnGpu.IsRecordedAndReplayed")


# The device itself: tests/pretend_gpu/pretend_gpu_test.cpp has the rest --------------------------


def on_device(bench: Bench, *command) -> dict:
    """Runs another program there; the line that it left."""
    log = bench.work / "other.log"
    log.unlink(missing_ok=True)
    done = subprocess.run([str(LAUNCHER), *map(str, command)], text=True, capture_output=True,
                          env=bench.gpu.environment(log), timeout=120)
    check(done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    lines = log.read_text().splitlines()
    check(len(lines) == 1, f"{command} left {lines}")
    return json.loads(lines[0])


def the_log_tells(bench: Bench) -> None:
    """What is illegal reaches the log; a capture that nobody ended, too."""
    line = on_device(bench, bench.gpu.libraries / "test_pretend_gpu", "--gtest_brief=1")
    check(line["illegal_calls"] > 50 and len(line["illegal"]) > 30, f"{line}")
    said = on_device(bench, sys.executable, "-c", """
import ctypes
cuda = ctypes.CDLL(None)
stream = ctypes.c_void_p()
assert cuda.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
assert cuda.cudaStreamBeginCapture(stream, 1) == 0
assert cuda.cudaMalloc(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(512)) == 900
""")
    check(said["captures_open"] == 1 and said["illegal_calls"] == 1, f"{said}")


def nothing_reaches_cuda(bench: Bench) -> None:
    """Every function of the runtime and cuBLAS that our library and LibTorch call is pretended."""
    library = bench.gpu.binary.parent / "libsfumato_cuda.so"
    linked = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    torch = re.findall(r"=> (/\S*/lib(?:torch\w*|c10_cuda)\.so)", linked)
    check(len(torch) >= 3, f"{library} does not find its LibTorch:\n{linked}")

    def symbols(path, option: str) -> set[str]:
        listed = subprocess.run(["nm", "-D", option, path], capture_output=True, text=True,
                                check=True).stdout
        return {line.split()[-1].split("@")[0] for line in listed.splitlines()}

    needed = set().union(*(symbols(path, "--undefined-only") for path in (library, *torch)))
    needed = {name for name in needed if re.match(r"(__)?cuda[A-Z]|cublas", name)}
    # Text, which asks no device.
    needed -= {"cudaGetErrorName", "cudaGetErrorString"}
    there = symbols(bench.gpu.libraries / "libpretend_cuda.so", "--defined-only")
    check(len(needed) > 100 and needed <= there, f"not pretended: {sorted(needed - there)}")


def the_program_comes_with_its_library(bench: Bench) -> None:
    """Who builds the program alone gets its GPU, and who takes it away alone is told so."""
    built = bench.gpu.binary.parent
    if (built / "build.ninja").exists():
        inputs = subprocess.run(["ninja", "-C", built, "-t", "inputs", "program"], text=True,
                                capture_output=True, check=True).stdout.split()
        check(any(name.endswith("gpu_backend.cpp.o") for name in inputs),
              "the target program does not build its GPU library")
    alone = bench.work / "alone"
    alone.mkdir()
    for program in (bench.gpu.binary, bench.gpu.binary.with_name("sfumato-lab")):
        shutil.copy(program, alone)
    said = Sfumato(alone / bench.gpu.binary.name).run("doctor").stdout
    check("libsfumato_cuda.so, which this build makes, is not beside the program" in said, said)


def torch_in_python(bench: Bench) -> None:
    """The layouts are LibTorch's own choice; where there is no Python with torch, C++ alone is."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return
    line = on_device(bench, sys.executable, "-W", "ignore", "-c", """
import torch
from torch.nn.functional import conv2d, scaled_dot_product_attention
assert "(pretended)" in torch.cuda.get_device_name(0)
for channels in (1, 3):
    x = torch.randn(4, channels, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
    w = torch.randn(16, channels, 3, 3, device="cuda", requires_grad=True)
    y = conv2d(x, w, padding=1)
    layout = torch._C._conv_determine_backend_memory_format(x, w, torch._C._ConvBackend.Cudnn)
    assert y.shape == (4, 16, 8, 8) and y.is_contiguous(memory_format=layout), y.stride()
    assert (layout == torch.channels_last) == (channels == 3)
    y.sum().backward()
    assert w.grad.shape == w.shape
q = torch.randn(2, 4, 16, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
scaled_dot_product_attention(q, q, q).sum().backward()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    z = (x * 2).sum()
graph.replay()
assert z.item() == 0
""")
    check(line["illegal_calls"] == 0 and not line["not_pretended"], f"{line}")
    check(line["graph_launches"] == 1, f"{line}")


CASES = {
    "doctor": doctor,
    **{f"training, {'grey' if channels == 1 else 'colour'}, {precision}":
       training(channels, precision) for channels in (1, 3) for precision in PRECISIONS},
    "training without privacy": training_without_privacy,
    "memory that runs out": memory_that_runs_out,
    "memory for nothing": memory_for_nothing,
    "recordings that fail": recordings_that_fail,
    "graphs that cannot be made": graphs_that_cannot_be_made,
    "less shared memory, grey": less_shared_memory(1),
    "less shared memory, colour": less_shared_memory(3),
    "sampling": sampling,
    "bench step": bench_step,
    "bench step waits": bench_step_waits_at_its_ends_only,
    "bench kernels": bench_kernels,
    "tests of a GPU": tests_of_a_gpu,
    "tests without values": tests_without_values,
    "the log tells": the_log_tells,
    "nothing reaches CUDA": nothing_reaches_cuda,
    "the program comes with its library": the_program_comes_with_its_library,
    "torch in Python": torch_in_python,
}


def pretend_gpu(sfumato, work: Path, arguments):
    built = sfumato.binary.parent
    libraries = Path(os.environ.get("SFUMATO_PRETEND_GPU", built / "pretend_gpu"))
    for part in (built / "libsfumato_cuda.so", libraries / "libpretend_cuda.so"):
        if not part.exists():
            return f"no {part}: this build has no CUDA"
    bench = Bench(sfumato, OnPretendGpu(sfumato.binary, libraries, work), work)
    failures = []
    for name, case in CASES.items():
        if arguments.only not in name:
            continue
        try:
            case(bench)
        except CheckFailed as failure:
            failures.append(f"{name}: {failure}")
    check(not failures, f"{len(failures)} of {len(CASES)} cases:\n" + "\n".join(failures))


if __name__ == "__main__":
    main(pretend_gpu, __doc__.splitlines()[0], lambda parser: parser.add_argument(
        "--only", default="", help="cases with this in their names"))
