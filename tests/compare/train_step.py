#!/usr/bin/env python3
"""Times the steps of a real training beside `sfumato bench step`, and what padding costs it.

    tests/compare/train_step.py                          # small and cifar10, two threads
    tests/compare/train_step.py --case small --precision bf16 --json result.json

First a store of as many images as a physical batch, all of which join every step (sample rate 1), so
that a step is one whole pass: `train` and `bench step --examples B` take turns, each a process, and a
ratio is of the medians of the same turn, without the first --skip steps: prefetching, logging, the
average of the weights and the ledger on a real disk are in it. Its median over turns and quartiles;
the goal is at most 1.03.

Then Poisson batches of --expected images on average with the physical batch that training chooses by
itself: how many images a second by their expected number, beside whole passes of that size (of
`bench step`, the gradient alone), and the padding: expected by the binomial law, and that of the
batches that were drawn. The goal is at most 12 %. Images are noise of no meaning; nothing is kept.
"""
import argparse
import gzip
import json
import math
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from step_cases import CASES, ROOT

SIZES_OF_A_PASS = 8  # pass_sizes of include/sfumato/train/physical_batch.h, on the CPU


def run(arguments, *words) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, (arguments.sfumato, *words))), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sfumato {' '.join(map(str, words))} failed ({done.returncode}):\n{done.stderr}")
    return done


def write_images(path: Path, case: dict, count: int) -> None:
    """Noise, as MNIST's files or CIFAR-10's."""
    size, channels = case["network"]["sample_size"], case["network"]["in_channels"]
    noise = random.Random(count)
    if channels == 1:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(struct.pack(">IIII", 2051, count, size, size) +
                       noise.randbytes(count * size * size))
        return
    with path.open("wb") as file:
        for i in range(count):
            file.write(bytes([i % 10]) + noise.randbytes(channels * size * size))


def prepared(arguments, case_name: str, count: int, folder: Path) -> list:
    """The settings of a store of so many images."""
    case = CASES[case_name]
    grey = case["network"]["in_channels"] == 1
    source = folder / (f"images-{count}.gz" if grey else f"images-{count}/data_batch_1.bin")
    source.parent.mkdir(parents=True, exist_ok=True)
    write_images(source, case, count)
    settings = [f"data.store={folder / f'store-{count}'}", f"data.image_size={case['network']['sample_size']}",
                f"data.channels={case['network']['in_channels']}"]
    run(arguments, "prepare", f"data.source={source if grey else source.parent}", *settings)
    return settings


def train(arguments, settings: list, folder: Path, **mechanism) -> tuple:
    """Lines of metrics, one a step, and what the program said."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run_folder = Path(place) / "run"
        said = run(arguments, "train", *settings, f"run.dir={run_folder}", "run.checkpoint_every=1000000",
                   "mechanism.noise_multiplier=1.0",
                   *(f"mechanism.{name}={value}" for name, value in mechanism.items())).stderr
        lines = (run_folder / "private/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], said


def bench(arguments, network: Path, examples: int, draws: int) -> dict:
    words = ("bench", "step", "--network", network, "--examples", examples, "--draws", draws, "--threads",
             arguments.threads, "--precision", arguments.precision, "--repeat", arguments.repeat, "--json")
    case, = json.loads(run(arguments, *words).stdout)["cases"]
    return case["private"]


def settings_of(arguments, network: Path, draws: int) -> list:
    return [f"model.config={network}", f"diffusion.draws={draws}", "performance.device=cpu",
            f"performance.threads={arguments.threads}", f"performance.precision={arguments.precision}"]


def quartiles(values: list) -> dict:
    each = sorted(values)
    last = len(each) - 1
    return {"low": each[last // 4], "median": statistics.median(each), "high": each[last - last // 4]}


def whole_passes(arguments, case_name: str, network: Path, folder: Path) -> dict:
    case = CASES[case_name]
    batch, draws = arguments.batch or case["batch"], case["draws"]
    settings = settings_of(arguments, network, draws) + prepared(arguments, case_name, batch, folder)
    trained, benched = [], []
    for turn in range(arguments.turns):
        for what in ("train", "bench") if turn % 2 == 0 else ("bench", "train"):
            if what == "bench":
                benched.append(bench(arguments, network, batch, draws)["whole_step"]["median_s"])
                continue
            metrics, _ = train(arguments, [*settings, f"performance.physical_batch={batch}"], folder,
                               sample_rate=1, steps=arguments.repeat + arguments.skip,
                               expected_batch_size=batch)
            sizes = {line["batch_size"] for line in metrics}
            if sizes != {batch}:
                sys.exit(f"steps of {sizes} images, not of {batch}")
            trained.append(statistics.median(line["seconds"] for line in metrics[arguments.skip:]))
    ratio = quartiles([a / b for a, b in zip(trained, benched, strict=True)])
    print(f"{case_name}: {batch} images of {draws} draws, {arguments.precision}: train "
          f"{statistics.median(trained):.4f} s a step, bench step {statistics.median(benched):.4f} s, "
          f"ratio {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", flush=True)
    return {"batch": batch, "draws": draws, "train_s": trained, "bench_s": benched, "ratio": ratio}


def computed(records: int, physical: int) -> int:
    """Images that pass through the network for so many records, padding included."""
    step = math.ceil(physical / SIZES_OF_A_PASS)
    whole, rest = divmod(records, physical)
    return whole * physical + min(physical, math.ceil(rest / step) * step)


def expected_padding(expected: float, rate: float, physical: int) -> float:
    """By the binomial law, term by term."""
    records = round(expected / rate)
    total = mean = 0.0
    for n in range(records + 1):
        p = math.exp(math.lgamma(records + 1) - math.lgamma(n + 1) - math.lgamma(records - n + 1) +
                     n * math.log(rate) + (records - n) * math.log1p(-rate))
        total += p * computed(n, physical)
        mean += p * n
    return total / mean - 1


def poisson_batches(arguments, case_name: str, network: Path, folder: Path) -> dict:
    draws, rate = CASES[case_name]["draws"], arguments.rate
    expected = arguments.expected or (64 if case_name == "small" else 16)
    settings = settings_of(arguments, network, draws) + prepared(
        arguments, case_name, round(expected / rate), folder)
    metrics, said = train(arguments, settings, folder, sample_rate=rate,
                          steps=arguments.poisson_steps + arguments.skip, expected_batch_size=expected)
    physical = int(re.search(r"physical batch: (\d+) images", said)[1])
    steps = metrics[arguments.skip:]
    seconds = sum(line["seconds"] for line in steps)
    drawn = [round(line["batch_size"]) for line in steps]
    whole = physical / bench(arguments, network, physical, draws)["gradient"]["median_s"]
    result = {"expected": expected, "rate": rate, "physical": physical,
              "nominal_images_per_s": expected * len(steps) / seconds,
              "images_per_s": sum(drawn) / seconds, "whole_passes_images_per_s": whole,
              "expected_padding": expected_padding(expected, rate, physical),
              "drawn_padding": sum(computed(n, physical) for n in drawn) / sum(drawn) - 1}
    print(f"{case_name}: Poisson batches of {expected} in passes of {physical}: "
          f"{result['images_per_s']:.1f} images/s ({result['nominal_images_per_s']:.1f} by the expected "
          f"number), {whole:.1f} in whole passes without noise and update: "
          f"{whole / result['images_per_s'] - 1:.1%} more; padding {result['expected_padding']:.1%} "
          f"expected, {result['drawn_padding']:.1%} drawn", flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=["small", "cifar10"])
    parser.add_argument("--batch", type=int, help="physical batch of the first part (the case's)")
    parser.add_argument("--expected", type=int, help="images of a Poisson batch (64; cifar10: 16)")
    parser.add_argument("--rate", type=float, default=0.02, help="sample rate of the second part")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=7, help="steps of a turn that count")
    parser.add_argument("--skip", type=int, default=2, help="first steps that do not")
    parser.add_argument("--poisson-steps", type=int, default=30)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    results = {}
    for case in arguments.case or ["small", "cifar10"]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            network = folder / "config.json"
            network.write_text(json.dumps({"_class_name": "UNet2DModel", **CASES[case]["network"]}))
            results[case] = {"whole_passes": whole_passes(arguments, case, network, folder),
                             "poisson": poisson_batches(arguments, case, network, folder)}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
