#!/usr/bin/env python3
"""How fast images are drawn: sfumato beside diffusers, the same network, sampler, steps, batch and threads.

    tests/compare/sampling.py                                  # the public glyphs, two threads
    tests/compare/sampling.py --batch 16 --steps 20 --threads 1 --json result.json

Both draw batches by DDIM in float32, in turns in one run: `sfumato bench sample`, whose network has
random weights (time does not depend on them), and the loop of diffusers' DDIMPipeline around its
UNet2DModel and DDIMScheduler, from noise to 8-bit pixels, in inference mode and in both memory formats,
NCHW and channels_last. Seconds of a batch are the least of --repeat, which other load disturbs least;
the ratio is to diffusers' faster format. Run it by a Python that has torch and diffusers.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def of_diffusers(arguments) -> dict:
    """Least seconds of a batch, by memory format."""
    import torch
    from diffusers import DDIMScheduler, UNet2DModel
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = json.loads((arguments.network / "config.json").read_text())
    network = UNet2DModel.from_config(config).eval()
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=True)
    size, channels, classes = config["sample_size"], config["in_channels"], config.get("num_class_embeds")
    labels = torch.arange(arguments.batch) % classes if classes else None
    found = {}
    for name, layout in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        network.to(memory_format=layout)

        def draw() -> None:
            x = torch.randn(arguments.batch, channels, size, size).to(memory_format=layout)
            scheduler.set_timesteps(arguments.steps)
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t, class_labels=labels).sample, t, x).prev_sample
            (x / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)

        with torch.inference_mode():
            draw()
            found[name] = []
            for _ in range(arguments.repeat):
                start = time.perf_counter()
                draw()
                found[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in found.items()}


def of_sfumato(arguments) -> float:
    command = [arguments.sfumato, "bench", "sample", "--network", arguments.network, "--batch", arguments.batch,
               "--steps", arguments.steps, "--repeat", arguments.repeat, "--threads", arguments.threads, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["batch_seconds"]["min_s"]


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
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    ours, theirs = [], {}
    for _ in range(arguments.turns):
        ours.append(of_sfumato(arguments))
        for name, seconds in of_diffusers(arguments).items():
            theirs[name] = min(seconds, theirs.get(name, seconds))
    rate = arguments.batch / min(ours)
    print(f"{arguments.batch} images of {arguments.steps} DDIM steps, {arguments.threads} threads")
    print(f"sfumato {min(ours):8.3f} s {rate:8.1f} images/s")
    for name, seconds in theirs.items():
        print(f"diffusers, {name:<14}{seconds:8.3f} s {arguments.batch / seconds:8.1f} images/s: "
              f"sfumato draws {seconds / min(ours):.2f} times as many")
    ratio = min(theirs.values()) / min(ours)
    print(f"ratio to the faster: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"sfumato_s": min(ours), "diffusers_s": theirs,
                                              "ratio": ratio}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
