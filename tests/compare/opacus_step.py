#!/usr/bin/env python3
"""Times one training step of PyTorch, Opacus and sfumato on the same network, batch and threads.

    tests/compare/opacus_step.py                     # all cases, two threads, fp32 and bf16
    tests/compare/opacus_step.py --case cifar10 --threads 8 --json result.json
    tests/compare/opacus_step.py --device cuda       # cifar10, B = 16, K = 8, bf16

Cases (B images, K noise draws of each; a step sees B*K network inputs):
    small    1.6 M-parameter UNet, 28x28 grey, B = 32, K = 1
    cifar10  the network of google/ddpm-cifar10-32, 35.7 M parameters, B = 4, K = 4
    dcgan28  the norm-free DCGAN of configs/networks, whose discriminator of 1.7 M parameters
             trains, 28x28 grey with ten classes, B = 64, K = 2: an image and K - 1 fakes

Rows: PyTorch's ordinary step in NCHW, in channels_last, and in channels_last with autocast to bf16;
Opacus with hooks, the same with autocast, and with ghost clipping; sfumato's ordinary and private
step with performance.precision fp32 and bf16. Every row is a process. All rows take a step by turns,
every other turn backwards; a process whose memory others need ends after its turn and starts again,
with warm-up steps, for the next. Seconds of a step, optimizer included, are the median and the
minimum over --steps turns; ratios are of the seconds of the same turn: their median, and their
quartiles. "x PyTorch" is over the fastest of PyTorch's fp32 rows, "x own" over the same engine's
ordinary step in the same precision. Memory is the peak resident set of the row's process.

Before its turns every private engine shows its norms of the gradients of two images, which are
compared with PyTorch's of one image at a time, in float32; a row that is off by more than 1e-3 (bf16:
5e-2) of an example's norm, in all or in one parameter, is marked WRONG, with the parameter that is off
most. sfumato's are those of `sfumato probe` (of a GAN, which that does not take, and of a GPU none).
The K draws of an image are one example: Opacus with hooks gets B*K inputs, and their gradients are
averaged in groups of K before the clip. Ghost clipping cannot do that: it clips every draw, which is
another mechanism, and is checked draw by draw; a discriminator's image and fake it cannot take.
Behind attention images lie in channels_last without anyone asking for it, and of such inputs Opacus
1.6.0 forms wrong gradients of convolutions: its rows are mended, every convolution sees contiguous
inputs; one row shows it as it is.

A discriminator's step includes the generator's fakes, but not the generator's own steps. PyTorch
sees images and fakes in one pass; Opacus sees them in two, each with its backward pass, whose
per-example gradients add up before one clip, which is what sfumato computes. Its networks compute in
fp32.

Opacus and diffusers are installed from PyPI into build/opacus-venv, which borrows torch from .venv;
nothing else is touched.

With --device cuda the clock is read when the GPU is done, for PyTorch and sfumato after 4 steps;
memory is that of tensors at the peak, and bf16 is autocast for PyTorch and Opacus. PyTorch runs in
channels_last and in NCHW, with cuDNN's search for the fastest algorithm, and held to cuDNN's
deterministic ones; its row is its fastest variant, and the others stand below it. Opacus runs in NCHW
alone, for the same reason.
sfumato's steps, the plain one too, always take deterministic algorithms, and replay a CUDA graph,
while PyTorch and Opacus launch every kernel anew.
On a machine without a network, bring the packages:
    pip install --no-deps --target peers $(tests/compare/opacus_step.py --list-packages)
    tests/compare/opacus_step.py --packages peers --device cuda
which runs with the Python that runs this script; torch and what else they import is its own.
"""
import argparse
import json
import statistics
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import step_engines
import turns
from step_cases import CASES, ROOT, Setting, Variant
from step_engines import make_network  # noqa: F401 (opacus_ranks.py)

PACKAGES = ["opacus==1.6.0", "diffusers==0.42.1"]
# What they import beside torch and that a machine with torch may lack.
BROUGHT_ALONG = ["opt_einsum==3.4.0"]
GPU_SIZES = {"batch": 16, "draws": 8}  # of cifar10, where a GPU has something to do
NCHW, CHANNELS_LAST = Variant("NCHW"), Variant("channels_last", channels_last=True)
ON_GPU = (CHANNELS_LAST, NCHW, Variant("channels_last, search", channels_last=True, search=True),
          Variant("channels_last, deterministic", channels_last=True, deterministic=True))
IN_A_ROW = 4  # PyTorch's steps on a GPU between two looks at the clock, as in `sfumato bench step`
TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 5e-2}


class Row(NamedTuple):
    name: str
    engine: str  # of step_engines, or private or plain of sfumato
    precision: str
    variant: Variant = NCHW
    ours: bool = False

    @property
    def own(self) -> str:
        """The ordinary row that this one is compared with."""
        if self.ours:
            return self.name.replace("sfumato, private", "sfumato, not private")
        return BF16 if self.precision == "bf16" else FP32


FP32, BF16 = "PyTorch", "PyTorch, channels_last, bf16"


def sfumato_row(kind: str, precision: str, with_precision: bool = True) -> Row:
    name = "sfumato, " + ("private" if kind == "private" else "not private")
    more = ", bf16" if precision == "bf16" and with_precision else ""
    return Row(name + more, kind, precision, ours=True)


def rows_on_gpu(arguments) -> list:
    precision, = arguments.precision
    rows = [Row(variant.name, "plain", precision, variant) for variant in ON_GPU]
    rows += [Row("Opacus", "hooks", precision), Row("Opacus, ghost", "ghost", precision)]
    return rows + [sfumato_row(kind, precision, False) for kind in ("plain", "private")]


def rows_on_cpu(arguments) -> list:
    rows = []
    if "fp32" in arguments.precision:
        rows += [Row("PyTorch, NCHW", "plain", "fp32"),
                 Row("PyTorch, channels_last", "plain", "fp32", CHANNELS_LAST)]
        rows += [Row("Opacus", "hooks", "fp32"), Row("Opacus, ghost", "ghost", "fp32"),
                 Row("Opacus, not mended", "hooks as they are", "fp32")]
    if "bf16" in arguments.precision:
        rows += [Row(BF16, "plain", "bf16", CHANNELS_LAST), Row("Opacus, bf16", "hooks", "bf16")]
    return rows + [sfumato_row(kind, precision) for precision in arguments.precision
                   for kind in ("plain", "private")]


def rows_of(case: str, arguments) -> list:
    rows = rows_on_gpu(arguments) if arguments.device == "cuda" else rows_on_cpu(arguments)
    if "pair" in CASES[case]:
        rows = [row for row in rows if row.precision != "bf16" and
                row.engine not in ("ghost", "hooks as they are")]
    return [row for row in rows if not (row.ours and arguments.without_sfumato)]


def setting_of(case_name: str, row: Row, arguments) -> Setting:
    sizes = CASES[case_name]
    if arguments.device == "cuda" and case_name == "cifar10":
        sizes = GPU_SIZES
    return Setting(case_name, arguments.batch or sizes["batch"], arguments.draws or sizes["draws"],
                   arguments.device, row.precision, row.variant)


# Processes -------------------------------------------------------------------------------------------


def make_environment(folder: Path) -> Path:
    """The Python of a virtual environment with Opacus and diffusers; torch comes from .venv."""
    python, stamp = folder / "bin/python", folder / ".complete"
    if stamp.exists() and stamp.read_text() == str(PACKAGES):
        return python
    site = sorted((ROOT / ".venv/lib").glob("python3*/site-packages"))
    if not site:
        sys.exit("no torch in .venv; run scripts/setup without SFUMATO_TORCH_DIR first")
    print(f"installing {', '.join(PACKAGES)} into {folder}", file=sys.stderr)
    subprocess.run([ROOT / ".venv/bin/python", "-m", "venv", "--clear", folder], check=True)
    own = next((folder / "lib").glob("python3*/site-packages"))
    (own / "torch.pth").write_text(f"{site[0]}\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    *PACKAGES], check=True)
    stamp.write_text(str(PACKAGES))
    return python


def common_words(arguments) -> list:
    words = ["--threads", arguments.threads, "--warmup", arguments.warmup, "--device",
             arguments.device]
    for name in ("batch", "draws"):
        if getattr(arguments, name):
            words += [f"--{name}", getattr(arguments, name)]
    words += ["--without-check"] if not arguments.check else []
    return words + (["--without-cudnn-attention"] if arguments.without_cudnn_attention else [])


def child_command(python: Path, what: str, case: str, arguments, folder: Path) -> list:
    return [python, "-W", "ignore", __file__, "--child", what, "--case", case, "--folder", folder,
            *common_words(arguments)]


def engine_of(row: Row, python: Path, case: str, arguments) -> turns.Engine:
    folder = arguments.folder / case
    if not row.ours:
        index = rows_of(case, arguments).index(row)
        return turns.Engine(row, [*child_command(python, str(index), case, arguments, folder),
                            "--precision", ",".join(arguments.precision)], arguments)
    setting = setting_of(case, row, arguments)
    return turns.Engine(row, [arguments.sfumato, "bench", "step", "--network", folder, "--examples",
                        setting.batch, "--draws", setting.draws, "--threads", arguments.threads,
                        "--device", arguments.device, "--precision", row.precision, "--only",
                        row.engine, "--by-turns"], arguments)


def child_main(arguments) -> None:
    case, = arguments.case
    rows = rows_of(case, arguments)
    if arguments.child == "save":
        check = arguments.check and arguments.device == "cpu"  # where probe finds norms
        print(json.dumps(step_engines.save(setting_of(case, rows[0], arguments), arguments.folder,
                                           check)))
        return
    row = rows[int(arguments.child)]
    in_a_row = IN_A_ROW if arguments.device == "cuda" and row.engine == "plain" else 1
    step_engines.serve(row.engine, setting_of(case, row, arguments), arguments, in_a_row)


# Measuring -------------------------------------------------------------------------------------------


def floats_in(path: Path, name: str) -> list:
    """A float32 tensor of a safetensors file."""
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + size])[name]["data_offsets"]
    return list(struct.unpack(f"<{(end - begin) // 4}f", data[8 + size + begin:8 + size + end]))


def check_of_sfumato(exact: list, row: Row, folder: Path, arguments) -> dict:
    done = subprocess.run(
        list(map(str, [arguments.sfumato, "probe", folder, "--inputs", folder / "inputs.safetensors",
                       "--out", folder / "out.safetensors", "--precision", row.precision,
                       "--threads", arguments.threads])), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sfumato probe failed (status {done.returncode}):\n{done.stderr}")
    norms = floats_in(folder / "out.safetensors", "grad_norm_per_sample")
    return {"difference": max(abs(a - b) / b for a, b in zip(norms, exact, strict=True))}


def is_wrong(check: dict, precision: str) -> bool:
    off = max(check["difference"], check.get("parameter_difference", 0))
    return not off <= TOLERANCE[precision]  # a NaN too


def measure(case: str, python: Path, arguments) -> dict:
    folder = arguments.folder / case
    rows = rows_of(case, arguments)
    saved = json.loads(subprocess.run(
        list(map(str, [*child_command(python, "save", case, arguments, folder), "--precision",
                       ",".join(arguments.precision)])),
        env=turns.environment(arguments), stdout=subprocess.PIPE, text=True,
        check=True).stdout.splitlines()[-1])
    engines = [engine_of(row, python, case, arguments) for row in rows]
    turns.take_turns(engines, arguments.steps)
    measured = {}
    for row, engine in zip(rows, engines, strict=True):
        measured[row.name] = result = {
            "seconds": statistics.median(engine.seconds), "fastest": min(engine.seconds),
            "turns": engine.seconds, "peak_mib": engine.peak_mib, "precision": row.precision,
            "engine": "sfumato" if row.ours else row.engine, "own": row.own, **engine.facts}
        if row.ours and row.engine == "private" and arguments.check and arguments.device == "cpu" \
                and "norms" in saved:
            result["check"] = check_of_sfumato(saved["norms"], row, folder, arguments)
        if "check" in result:
            result["check"]["wrong"] = is_wrong(result["check"], row.precision)
    counts = {result["parameters"] for result in measured.values()}
    if len(counts) > 1:
        sys.exit(f"{case}: networks of {counts} parameters: not the same ones")
    return with_ratios(name_fastest(measured, arguments))


def name_fastest(measured: dict, arguments) -> dict:
    """PyTorch's row is its fastest variant of the precision that all are compared with; on a GPU the
    others lie in it."""
    first = "fp32" if "fp32" in arguments.precision else arguments.precision[0]
    tried = {name: row for name, row in measured.items()
             if row["engine"] == "plain" and row["precision"] == first}
    name = min(tried, key=lambda each: tried[each]["seconds"])
    if arguments.device == "cpu":
        fastest = {**tried[name], "variant": name}
        return {FP32: fastest, **{each: row for each, row in measured.items()}}
    others = {each: row for each, row in measured.items() if each not in tried}
    if "Opacus" in others:
        others["Opacus"]["variants"] = {NCHW.name: dict(others["Opacus"])}
    fastest = min(tried, key=lambda each: tried[each]["fastest"])
    return {FP32: {**tried[fastest], "variant": fastest, "variants": tried}, **others}


def with_ratios(measured: dict) -> dict:
    for row in (*measured.values(), *measured[FP32].get("variants", {}).values()):
        row["over_pytorch"] = turns.ratios(row["turns"], measured[FP32]["turns"])
        own = measured.get(row["own"], measured[FP32])
        row["over_own"] = turns.ratios(row["turns"], own["turns"])
        row["memory_over_own"] = row["peak_mib"] / own["peak_mib"]
    return measured


# Output ----------------------------------------------------------------------------------------------


def check_text(row: dict) -> str:
    if "check" not in row:
        return ""
    check = row["check"]
    if not check["wrong"]:
        return f"right to {max(check['difference'], check.get('parameter_difference', 0)):.0e}"
    where = f", {check['parameter']} by {check['parameter_difference']:.0%}" if "parameter" in check else ""
    return f"WRONG by {check['difference']:.1%}{where}"


def spread(ratio: dict) -> str:
    return f"{ratio['median']:6.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def table(case: str, rows: dict, arguments) -> str:
    setting = setting_of(case, Row("", "", "fp32"), arguments)
    lines = [f"{case}: {rows[FP32]['parameters']:,} parameters, B = {setting.batch}, "
             f"K = {setting.draws}, {arguments.device}, {arguments.threads} threads, "
             f"{arguments.steps} turns",
             f"  {'':34}{'s/step':>9}{'fastest':>9}{'peak MiB':>10}{'x PyTorch':>23}{'x own':>23}"
             f"{'memory':>8}  norms"]
    for name, row in rows.items():
        if name == FP32 and arguments.device == "cpu":
            continue  # once more below, by its own name
        shown = {name: row}
        if len(row.get("variants", {})) > 1:
            shown |= {f"  {each}": {**row, **tried} for each, tried in row["variants"].items()}
        for label, each in shown.items():
            lines.append(f"  {label:34}{each['seconds']:9.4f}{each['fastest']:9.4f}"
                         f"{each['peak_mib']:10.0f}{spread(each['over_pytorch']):>23}{spread(each['over_own']):>23}"
                         f"{each['memory_over_own']:7.2f}x  {check_text(each)}")
    if setting.draws > 1 and "Opacus, ghost" in rows:
        lines.append("  Opacus, ghost: clips each draw of an image: another mechanism, for its cost "
                     "alone")
    if arguments.device == "cpu":
        lines.append(f"  x PyTorch: over {rows[FP32]['variant']}, its fastest in fp32")
    else:
        lines.append("  sfumato: deterministic algorithms, a replayed CUDA graph; PyTorch and Opacus: "
                     "kernels\n  launched anew, any algorithm unless it says deterministic")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=sorted(CASES),
                        help="default: all; with --device cuda, cifar10")
    parser.add_argument("--batch", type=int, help="images (default: the case's)")
    parser.add_argument("--draws", type=int, help="noise draws of each (default: the case's)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", help="fp32 and bf16, or one (default: fp32,bf16); with "
                                            "--device cuda one of fp32, tf32 and bf16 (bf16)")
    parser.add_argument("--packages", type=Path,
                        help="folder with Opacus and diffusers, instead of installing them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7, help="turns that are measured")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--without-sfumato", action="store_true", help="PyTorch and Opacus only")
    parser.add_argument("--without-check", dest="check", action="store_false",
                        help="do not compare norms")
    parser.add_argument("--without-cudnn-attention", action="store_true",
                        help="PyTorch and Opacus take another attention than cuDNN's")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/opacus-bench",
                        help="where networks are saved for sfumato")
    parser.add_argument("--list-packages", action="store_true",
                        help="print what --packages needs, as pip takes it, and end")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.precision = (arguments.precision or ("bf16" if on_gpu else "fp32,bf16")).split(",")
    arguments.case = arguments.case or (["cifar10"] if on_gpu else list(CASES))
    known = {"fp32", "tf32", "bf16"} if on_gpu else {"fp32", "bf16"}
    if not set(arguments.precision) <= known or (on_gpu and len(arguments.precision) > 1):
        parser.error(f"--precision takes {', '.join(sorted(known))}" +
                     (", one of them" if on_gpu else ""))
    for pair in (case for case in arguments.case if "pair" in CASES[case]):
        if arguments.precision == ["bf16"]:
            parser.error(f"networks of {pair} compute in float32: --precision fp32")
        if arguments.draws == 1:
            parser.error(f"{pair} needs an image and a fake: --draws 2 or more")
    return arguments


def main() -> int:
    arguments = parse()
    if arguments.list_packages:
        print(*PACKAGES, *BROUGHT_ALONG)
        return 0
    if arguments.child:
        child_main(arguments)
        return 0
    python = (Path(sys.executable) if arguments.packages
              else make_environment(ROOT / "build/opacus-venv"))
    results = {}
    for case in arguments.case:
        results[case] = measure(case, python, arguments)
        print(table(case, results[case], arguments), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
