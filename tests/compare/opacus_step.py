#!/usr/bin/env python3
"""Times one training step of PyTorch, Opacus and sfumato on the same network, batch and threads.

    tests/compare/opacus_step.py                     # all cases, two threads
    tests/compare/opacus_step.py --case cifar10 --threads 8 --json result.json
    tests/compare/opacus_step.py --device cuda       # cifar10, B = 16, K = 8, bf16

Cases (B images, K noise draws of each; a step sees B*K network inputs):
    small    1.6 M-parameter UNet, 28x28 grey, B = 32, K = 1
    cifar10  the network of google/ddpm-cifar10-32, 35.7 M parameters, B = 4, K = 4
    dcgan28  the norm-free DCGAN of configs/networks, whose discriminator of 1.7 M parameters
             trains, 28x28 grey with ten classes, B = 64, K = 2: an image and K - 1 fakes

A discriminator's step includes the generator's fakes, but not the generator's own steps. PyTorch
sees images and fakes in one pass; Opacus sees them in two, each with its backward pass, whose
per-example gradients add up before one clip, which is what sfumato computes.

Each engine's memory is the peak resident set of a fresh process; seconds of a step, optimizer
included, are the median and the minimum over --steps steps after --warmup ones; ratios are of the
minima, which other load on the machine disturbs least. Opacus and diffusers are installed from PyPI
into build/opacus-venv, which borrows torch from .venv; nothing else is touched. The K draws of an
image are one example: Opacus gets B*K inputs, and their gradients are averaged in groups of K
before the clip.

With --device cuda the clock is read when the GPU is done, for PyTorch and sfumato after 4 steps;
memory is that of tensors at the peak, and bf16 is autocast for PyTorch and Opacus. PyTorch runs in
channels_last and in NCHW, with cuDNN's search for the fastest algorithm, and held to cuDNN's
deterministic ones; its row is its fastest variant, and the others stand below it. Opacus runs in NCHW
alone: of channels_last inputs Opacus 1.6.0 computes wrong per-example gradients of convolutions.
sfumato's steps, the plain one too, always take deterministic algorithms, and replay a CUDA graph,
while PyTorch and Opacus launch every kernel anew.
On a machine without a network, bring the packages:
    pip install --no-deps --target peers $(tests/compare/opacus_step.py --list-packages)
    tests/compare/opacus_step.py --packages peers --device cuda
which runs with the Python that runs this script; torch and what else they import is its own.
"""
import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["opacus==1.6.0", "diffusers==0.42.1"]
# What they import beside torch and that a machine with torch may lack.
BROUGHT_ALONG = ["opt_einsum==3.4.0"]
CASES = {
    "small": {
        "batch": 32,
        "draws": 1,
        "network": {
            "sample_size": 28, "in_channels": 1, "out_channels": 1,
            "block_out_channels": [32, 64, 64], "layers_per_block": 2, "norm_num_groups": 8,
            "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        },
    },
    "cifar10": {
        "batch": 4,
        "draws": 4,
        "network": {
            "sample_size": 32, "in_channels": 3, "out_channels": 3,
            "block_out_channels": [128, 256, 256, 256], "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False,
            "freq_shift": 1, "norm_eps": 1e-6,
        },
    },
    "dcgan28": {
        "batch": 64,
        "draws": 2,
        "pair": {network: ROOT / f"configs/networks/dcgan_28_{network}.json"
                 for network in ("generator", "discriminator")},
    },
}


GPU_SIZES = {"batch": 16, "draws": 8}  # of cifar10, where a GPU has something to do


class Variant(NamedTuple):
    """How PyTorch may run a network; what is measured on a GPU for each engine."""
    name: str
    channels_last: bool = False
    search: bool = False         # cuDNN tries its algorithms and takes the fastest
    deterministic: bool = False  # cuDNN takes deterministic algorithms alone


IN_A_ROW = 4  # PyTorch's steps on a GPU between two looks at the clock, as in `sfumato bench step`
ON_CPU = (Variant("NCHW"),)
ON_GPU = {
    "plain": (Variant("channels_last", channels_last=True), Variant("NCHW"),
              Variant("channels_last, search", channels_last=True, search=True),
              Variant("channels_last, deterministic", channels_last=True, deterministic=True)),
    "opacus": ON_CPU,  # wrong gradients in channels_last, see above
}


def sizes_of(case_name: str, arguments) -> tuple:
    case = CASES[case_name]
    if arguments.device == "cuda" and case_name == "cifar10":
        case = GPU_SIZES
    return arguments.batch or case["batch"], arguments.draws or case["draws"]


# In the virtual environment ----------------------------------------------------------------------


def peak_rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def make_network(case: dict):
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(**case["network"])


def make_pair(case: dict) -> tuple:
    """Generator and discriminator as PyTorch's networks."""
    import torch

    sys.path.insert(0, str(ROOT / "tests/python"))
    import gan_networks_in_torch as networks

    torch.manual_seed(0)
    generator, discriminator = (json.loads(path.read_text()) for path in case["pair"].values())
    return (networks.DCGANGenerator(generator).eval(),
            networks.DCGANDiscriminator(discriminator).train())


def private_parts(network, optimizer, batch: int) -> tuple:
    """Both as Opacus wraps them."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    network = GradSampleModule(network, batch_first=True, loss_reduction="mean")
    return network, DPOptimizer(optimizer, noise_multiplier=1.0, max_grad_norm=1.0,
                                expected_batch_size=batch)


def make_pair_step(engine: str, case: dict, layout, sizes: tuple, device: str):
    import torch

    batch, fakes = sizes[0], sizes[1] - 1
    generator, network = (each.to(device).to(memory_format=layout) for each in make_pair(case))
    parameters = sum(p.numel() for p in network.parameters())
    classes = network.class_embedding.num_embeddings
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    if engine == "opacus":
        network, optimizer = private_parts(network, optimizer, batch)

    def step() -> None:
        with torch.no_grad():
            labels = torch.randint(0, classes, (batch * (1 + fakes),), device=device)
            latents = torch.randn(batch * fakes, generator.latent_size, device=device)
            made = generator(latents, labels[batch:])
            real = torch.randn(batch, *made.shape[1:], device=device)
            real, made = (each.to(memory_format=layout) for each in (real, made))
        optimizer.zero_grad(set_to_none=True)
        if engine == "plain":
            scores = network(torch.cat([real, made]), labels)
            ((1 - scores[:batch]).relu().mean() + (1 + scores[batch:]).relu().mean()).backward()
        else:
            (1 - network(real, labels[:batch])).relu().mean().backward()
            (1 + network(made, labels[batch:])).relu().mean().backward()
            for p in network.parameters():
                of_real, of_fakes = p.grad_sample
                p.grad_sample = of_real + of_fakes.view(batch, fakes, *p.shape).mean(dim=1)
        optimizer.step()

    return step, parameters


def make_step(engine: str, case_name: str, variant: Variant, arguments):
    """A function that takes one step, and the number of parameters."""
    import torch

    case = CASES[case_name]
    batch, draws = sizes_of(case_name, arguments)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    if "pair" in case:
        return make_pair_step(engine, case, layout, (batch, draws), arguments.device)
    network = make_network(case).train().to(arguments.device).to(memory_format=layout)
    parameters = sum(p.numel() for p in network.parameters())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    if engine == "opacus":
        network, optimizer = private_parts(network, optimizer, batch)
    inputs, size = batch * draws, case["network"]["sample_size"]
    shape = (inputs, case["network"]["in_channels"], size, size)

    def step() -> None:
        sample, target = (torch.randn(shape, device=arguments.device).to(memory_format=layout)
                          for _ in range(2))
        timestep = torch.randint(0, 1000, (inputs,), device=arguments.device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(arguments.device, torch.bfloat16,
                            enabled=arguments.precision == "bf16"):
            out = network(sample, timestep).sample.float()
        torch.nn.functional.mse_loss(out, target).backward()
        if engine == "opacus" and draws > 1:
            for p in network.parameters():
                p.grad_sample = p.grad_sample.view(batch, draws, *p.shape).mean(dim=1)
        optimizer.step()

    return step, parameters


def measure_variant(engine: str, case_name: str, variant: Variant, arguments) -> dict:
    import torch

    on_gpu = arguments.device == "cuda"
    torch.backends.cudnn.benchmark = variant.search
    torch.backends.cudnn.deterministic = variant.deterministic
    if on_gpu:
        gc.collect()  # the variant before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step, parameters = make_step(engine, case_name, variant, arguments)
    # As sfumato's steps: the host prepares the next one while the GPU computes. Opacus' take too
    # long for that to matter.
    in_a_row = IN_A_ROW if on_gpu and engine == "plain" else 1

    def seconds_of(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    for _ in range(arguments.warmup):
        seconds_of(1)
    seconds = [seconds_of(in_a_row) for _ in range(arguments.steps)]
    return {"seconds": statistics.median(seconds), "fastest": min(seconds),
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_rss_mib(),
            "parameters": parameters}


def measure(engine: str, case_name: str, arguments) -> dict:
    """The fastest variant's row, with all of them in it."""
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.without_cudnn_attention:
        torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_tf32 = arguments.precision != "fp32"
    torch.backends.cudnn.allow_tf32 = arguments.precision != "fp32"
    tried = ON_GPU[engine] if arguments.device == "cuda" else ON_CPU
    variants = {variant.name: measure_variant(engine, case_name, variant, arguments)
                for variant in tried}
    name = min(variants, key=lambda each: variants[each]["fastest"])
    return {**variants[name], "variant": name, "variants": variants}


def save(case: dict, folder: Path) -> None:
    """What `sfumato bench step --network` takes."""
    if "pair" not in case:
        make_network(case).save_pretrained(folder)
        return
    for network, path in case["pair"].items():
        (folder / network).mkdir(parents=True, exist_ok=True)
        (folder / network / "config.json").write_text(path.read_text())


def child_main(arguments) -> None:
    case_name, = arguments.case
    if arguments.child == "save":
        save(CASES[case_name], arguments.folder)
        result = {}
    else:
        result = measure(arguments.child, case_name, arguments)
    print("RESULT " + json.dumps(result))


# Outside -----------------------------------------------------------------------------------------


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


def environment(arguments) -> dict:
    threads = str(arguments.threads)
    packages = {"PYTHONPATH": str(arguments.packages.resolve())} if arguments.packages else {}
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **packages}


def device_words(arguments) -> list:
    return ["--device", arguments.device, "--precision", arguments.precision]


def run_child(python: Path, what: str, case: str, arguments, folder: Path) -> dict:
    command = [python, "-W", "ignore", __file__, "--child", what, "--case", case, "--threads",
               str(arguments.threads), "--steps", str(arguments.steps), "--warmup",
               str(arguments.warmup), "--folder", folder, *device_words(arguments)]
    if arguments.without_cudnn_attention:
        command.append("--without-cudnn-attention")
    for name in ("batch", "draws"):
        if getattr(arguments, name):
            command += [f"--{name}", getattr(arguments, name)]
    done = subprocess.run(list(map(str, command)), env=environment(arguments),
                          capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    sys.exit(f"{what} failed on {case} (status {done.returncode}):\n{done.stderr[-4000:]}")


def run_sfumato(arguments, case: str, folder: Path) -> dict:
    """Rows as of run_child, 'plain' and 'private', as measured by `sfumato bench step`."""
    batch, draws = sizes_of(case, arguments)
    command = [arguments.sfumato, "bench", "step", "--network", folder, "--examples", batch,
               "--draws", draws, "--threads", arguments.threads, "--repeat", arguments.steps,
               "--json", *device_words(arguments)]
    done = subprocess.run(list(map(str, command)), env=environment(arguments),
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sfumato bench step failed on {case} (status {done.returncode}):\n{done.stderr}")
    measured, = json.loads(done.stdout)["cases"]
    return {kind: {"seconds": measured[kind]["whole_step"]["median_s"],
                   "fastest": measured[kind]["whole_step"]["min_s"],
                   "peak_mib": measured[kind]["peak_bytes_whole_step"] / 2**20,
                   "parameters": measured["parameters"]} for kind in ("plain", "private")}


def table(case: str, rows: dict, arguments) -> str:
    batch, draws = sizes_of(case, arguments)
    lines = [f"{case}: {rows['PyTorch']['parameters']:,} parameters, B = {batch}, K = {draws}, "
             f"{arguments.device}, {arguments.precision}",
             f"  {'':30}{'s/step':>9}{'fastest':>9}{'peak MiB':>10}{'x PyTorch':>11}"
             f"{'x own ordinary step':>22}"]
    for name, row in rows.items():
        plain = rows["PyTorch" if name in ("PyTorch", "Opacus") else "sfumato, not private"]
        tried = row.get("variants", {})
        for line_name, each in {name: row, **(tried if len(tried) > 1 else {})}.items():
            label = name if each is row else f"  {line_name}"
            lines.append(f"  {label:30}{each['seconds']:9.4f}{each['fastest']:9.4f}"
                         f"{each['peak_mib']:10.0f}"
                         f"{each['fastest'] / rows['PyTorch']['fastest']:10.2f}x"
                         f"{each['fastest'] / plain['fastest']:8.2f}x time,"
                         f"{each['peak_mib'] / plain['peak_mib']:5.2f}x memory")
    if arguments.device == "cuda":
        lines.append("  sfumato: deterministic algorithms, a replayed CUDA graph; PyTorch and Opacus: "
                     "kernels\n  launched anew, any algorithm unless it says deterministic")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=sorted(CASES),
                        help="default: all; with --device cuda, cifar10")
    parser.add_argument("--batch", type=int, help="images (default: the case's)")
    parser.add_argument("--draws", type=int, help="noise draws of each (default: the case's)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"],
                        help="tf32, bf16: with --device cuda (default there: bf16)")
    parser.add_argument("--packages", type=Path,
                        help="folder with Opacus and diffusers, instead of installing them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--without-sfumato", action="store_true", help="PyTorch and Opacus only")
    parser.add_argument("--without-cudnn-attention", action="store_true",
                        help="PyTorch and Opacus take another attention than cuDNN's")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/opacus-bench",
                        help="where networks are saved for sfumato")
    parser.add_argument("--list-packages", action="store_true",
                        help="print what --packages needs, as pip takes it, and end")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list_packages:
        print(*PACKAGES, *BROUGHT_ALONG)
        return 0
    on_gpu = arguments.device == "cuda"
    arguments.precision = arguments.precision or ("bf16" if on_gpu else "fp32")
    arguments.case = arguments.case or (["cifar10"] if on_gpu else list(CASES))
    if arguments.child:
        child_main(arguments)
        return 0
    if arguments.device == "cpu" and arguments.precision != "fp32":
        parser.error("--precision needs --device cuda")
    for pair in (case for case in arguments.case if "pair" in CASES[case]):
        if arguments.precision == "bf16":
            parser.error(f"networks of {pair} compute in float32: --precision tf32 or fp32")
        if arguments.draws == 1:
            parser.error(f"{pair} needs an image and a fake: --draws 2 or more")
    python = (Path(sys.executable) if arguments.packages
              else make_environment(ROOT / "build/opacus-venv"))
    results = {}
    for case in arguments.case:
        folder = arguments.folder / case
        rows = {"PyTorch": run_child(python, "plain", case, arguments, folder),
                "Opacus": run_child(python, "opacus", case, arguments, folder)}
        if not arguments.without_sfumato:
            run_child(python, "save", case, arguments, folder)
            measured = run_sfumato(arguments, case, folder)
            if measured["plain"]["parameters"] != rows["PyTorch"]["parameters"]:
                sys.exit(f"{case}: {rows['PyTorch']['parameters']:,} parameters in PyTorch, "
                         f"{measured['plain']['parameters']:,} in sfumato: other networks")
            rows["sfumato, not private"] = measured["plain"]
            rows["sfumato, private"] = measured["private"]
        results[case] = rows
        print(table(case, rows, arguments), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
