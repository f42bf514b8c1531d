#!/usr/bin/env python3
"""How fast images are drawn: sfumato beside diffusers, the same network, sampler, steps, batch and threads.

    tests/compare/sampling.py                                  # the public glyphs, two threads
    tests/compare/sampling.py --batch 16 --steps 20 --threads 1 --json result.json
    tests/compare/sampling.py --bf16 --processor-time          # also in bfloat16, on a busy machine

Both draw batches by DDIM in float32, in turns in one run: `sfumato bench sample`, whose network has
random weights (time does not depend on them), and the loop of diffusers' DDIMPipeline around its
UNet2DModel and DDIMScheduler, from noise to 8-bit pixels, in inference mode and in both memory formats,
NCHW and channels_last. With --bf16 both draw in bfloat16 too: ours as performance.precision = bf16,
diffusers' pipeline as torch_dtype=torch.bfloat16. Seconds of a batch are the least of --repeat, which
other load disturbs least; with --processor-time they are those that the process computed, of which
other load takes none (for one thread: waiting threads count). Ratios are to diffusers' faster format.
Run it by a Python that has torch and diffusers.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def of_diffusers(arguments, precision: str) -> dict:
    """Least seconds of a batch, by memory format."""
    import torch
    from diffusers import DDIMScheduler, UNet2DModel
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    clock = time.process_time if arguments.processor_time else time.perf_counter
    config = json.loads((arguments.network / "config.json").read_text())
    network = UNet2DModel.from_config(config).eval().to(dtype)
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=True)
    size, channels, classes = config["sample_size"], config["in_channels"], config.get("num_class_embeds")
    labels = torch.arange(arguments.batch) % classes if classes else None
    found = {}
    for name, layout in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        network.to(memory_format=layout)

        def draw() -> None:
            x = torch.randn(arguments.batch, channels, size, size, dtype=dtype).to(memory_format=layout)
            scheduler.set_timesteps(arguments.steps)
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t, class_labels=labels).sample, t, x).prev_sample
            (x / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)

        with torch.inference_mode():
            draw()
            found[name] = []
            for _ in range(arguments.repeat):
                start = clock()
                draw()
                found[name].append(clock() - start)
    return {name: min(seconds) for name, seconds in found.items()}


def of_sfumato(arguments, precision: str) -> float:
    command = [arguments.sfumato, "bench", "sample", "--network", arguments.network, "--batch", arguments.batch,
               "--steps", arguments.steps, "--repeat", arguments.repeat, "--threads", arguments.threads,
               "--precision", precision, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(done.stderr)
    seconds = "batch_processor_seconds" if arguments.processor_time else "batch_seconds"
    return json.loads(done.stdout)[seconds]["min_s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--network", type=Path, default=ROOT / "models/public/glyphs",
                        help="folder with a config.json of a UNet2DModel")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2, help="of both; the least counts")
    parser.add_argument("--bf16", action="store_true", help="in bfloat16 too")
    parser.add_argument("--processor-time", action="store_true", help="seconds of the processor")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    precisions = ["fp32", "bf16"] if arguments.bf16 else ["fp32"]
    ours, theirs = {}, {}
    for _ in range(arguments.turns):
        for precision in precisions:
            ours[precision] = min(of_sfumato(arguments, precision), ours.get(precision, float("inf")))
            for layout, seconds in of_diffusers(arguments, precision).items():
                theirs[precision, layout] = min(seconds, theirs.get((precision, layout), seconds))
    print(f"{arguments.batch} images of {arguments.steps} DDIM steps, {arguments.threads} threads"
          f"{', seconds of the processor' if arguments.processor_time else ''}")
    rows = [(f"sfumato, {p}", s) for p, s in ours.items()]
    rows += [(f"diffusers, {p}, {layout}", s) for (p, layout), s in theirs.items()]
    for name, seconds in rows:
        print(f"{name:<32}{seconds:8.3f} s {arguments.batch / seconds:8.1f} images/s")
    fastest = {p: min(s for (of, _), s in theirs.items() if of == p) for p in precisions}
    ratios = {f"{p} to {q}": fastest[q] / ours[p] for p in precisions for q in precisions if (p, q) != ("fp32", "bf16")}
    for name, ratio in ratios.items():
        print(f"ratio to the faster, {name}: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(
            {"sfumato_s": ours, "diffusers_s": {f"{p}, {layout}": s for (p, layout), s in theirs.items()},
             "ratio": ratios["fp32 to fp32"], "ratios": ratios}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
