#!/usr/bin/env python3
"""Numbers of `sfumato evaluate` beside those of other programs, from the same feature matrices.

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install torch torchvision torch-fidelity==0.4.0 pytorch-fid==0.3.0 \\
        clean-fid==0.1.35 torchmetrics prdc==0.2
    /tmp/peers/bin/python tests/compare/evaluate.py build/release/sfumato
    /tmp/peers/bin/python tests/compare/evaluate.py build/release/sfumato --speed

Peers that cannot be imported are left out, and named. Every number must agree to 1e-4 of itself, shares
to one image. --speed: Frechet distance, and precision and recall, of 10,000 x 2048 features, by turns
with torch-fidelity: seconds and peak memory of one process each, from the features' files on.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    import numpy
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

TOLERANCE = 1e-4


def features(count: int, dimension: int, seed: int, shift: float) -> numpy.ndarray:
    """Correlated, non-negative and sparse, as those after a rectifier are."""
    draw = numpy.random.RandomState(seed)
    mix = numpy.random.RandomState(7).randn(dimension, dimension) / dimension**.5
    decay = numpy.arange(1, dimension + 1) ** -.5
    values = (draw.randn(count, dimension) * decay) @ mix + .1 * draw.randn(count, dimension) + shift
    return numpy.maximum(values, 0).astype(numpy.float32)


def ours(program: Path, corpus: Path, reference: Path, *options: str) -> dict:
    call = [program, "evaluate", "--features-of", corpus, reference, "--reference-is-public", "--json",
            *options]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def by_torch_fidelity(x, y, logits) -> dict:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    fid = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False)
    # In double: sums of a million kernels in float32 move the spread by a hundredth where it is small.
    kid = kid_features_to_metric(a.double(), b.double(), verbose=False)
    prc = prc_features_to_metric(a, b, verbose=False)
    return {"frechet_distance": fid["frechet_inception_distance"],
            "kid_mean": kid["kernel_inception_distance_mean"],
            "kid_std": kid["kernel_inception_distance_std"],
            "precision": prc["precision"], "recall": prc["recall"],
            "inception_score_mean":
                isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"]}


def moments(x):
    return numpy.mean(x, axis=0), numpy.cov(x.astype(numpy.float64), rowvar=False)


def by_pytorch_fid(x, y, _) -> dict:
    from pytorch_fid.fid_score import calculate_frechet_distance
    return {"frechet_distance": calculate_frechet_distance(*moments(x), *moments(y))}


def by_clean_fid(x, y, _) -> dict:
    from cleanfid.fid import frechet_distance, kernel_distance
    numpy.random.seed(0)  # its subsets are others
    return {"frechet_distance": frechet_distance(*moments(x), *moments(y)),
            "kid_mean~": kernel_distance(x, y)}


def by_torchmetrics(x, y, _) -> dict:
    from torchmetrics.image.fid import _compute_fid
    (a, s), (b, t) = ([torch.from_numpy(one).double() for one in moments(x.astype(numpy.float64))],
                      [torch.from_numpy(one).double() for one in moments(y.astype(numpy.float64))])
    return {"frechet_distance": _compute_fid(a, s, b, t).item()}


def by_prdc(x, y, _) -> dict:
    from prdc import compute_prdc
    three, five = (compute_prdc(real_features=y, fake_features=x, nearest_k=k) for k in (3, 5))
    return {"precision": three["precision"], "recall": three["recall"], "density": five["density"],
            "coverage": five["coverage"]}


PEERS = {"torch-fidelity": by_torch_fidelity, "pytorch-fid": by_pytorch_fid, "clean-fid": by_clean_fid,
         "torchmetrics": by_torchmetrics, "prdc": by_prdc}


def agrees(key: str, mine: dict, theirs: float, images: int) -> bool:
    value = mine[key.rstrip("~")]
    if key in ("precision", "recall", "coverage", "density"):
        return abs(value - theirs) <= 1.5 / images
    if key.endswith("~"):  # a mean over 100 other subsets
        return abs(value - theirs) <= 5 * mine["kid_std"] / 10
    return abs(value - theirs) <= TOLERANCE * abs(theirs)


def compare(program: Path, folder: Path) -> bool:
    fine = True
    # More rows than dimensions; fewer; one side of each.
    for n, m, d, shift in ((3000, 2500, 256, .01), (1200, 1100, 1500, .001), (1000, 2600, 1400, .01)):
        x, y = features(n, d, 1, shift), features(m, d, 2, 0)
        logits = (numpy.random.RandomState(3).randn(n, 20) * 2).astype(numpy.float32)
        from_file = folder / "x.safetensors"
        write_safetensors(from_file, {"features": x, "logits": logits})
        numpy.save(folder / "y.npy", y)
        write_safetensors(folder / "y.safetensors", {"features": y})
        mine = ours(program, from_file, folder / "y.safetensors")
        numpy.save(folder / "x.npy", x)
        again = ours(program, folder / "x.npy", folder / "y.npy")
        fine &= again["frechet_distance"] == mine["frechet_distance"]
        for name, peer in PEERS.items():
            try:
                theirs = peer(x, y, logits)
            except ImportError as error:
                print(f"{name}: left out ({error})")
                continue
            for key, value in theirs.items():
                same = agrees(key, mine, value, min(n, m))
                fine &= same
                print(f"{n} and {m} x {d}  {name:<15} {key:<21} {value:.9g}  ours "
                      f"{mine[key.rstrip('~')]:.9g}  {'agrees' if same else 'DIFFERS'}")
    return fine


def write_safetensors(path: Path, tensors: dict) -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


THEIRS = """
import sys, numpy, torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
torch.set_num_threads(int(sys.argv[4]))
x, y = (torch.from_numpy(numpy.load(name)) for name in sys.argv[2:4])
if sys.argv[1] == "frechet_distance":
    print(fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False))
else:
    print(prc_features_to_metric(x, y, verbose=False, save_cpu_ram=sys.argv[1] == "precision_recall_part"))
"""


def measured(call: list) -> tuple[float, float, float, str]:
    """Seconds of wall clock and of processors, peak memory in MiB, what was printed."""
    start = time.monotonic()
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{call[0]} ended with {status}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said


def speed(program: Path, folder: Path, rounds: int) -> None:
    names = [folder / "x.npy", folder / "y.npy"]
    # In a process of its own: the peak of a child begins with that of its parent.
    subprocess.run([sys.executable, __file__, "-", "--write", *names], check=True)
    threads = str(os.cpu_count())
    for metric, theirs in (("frechet_distance", ("frechet_distance",)),
                           ("precision_recall", ("precision_recall", "precision_recall_part"))):
        calls = {"sfumato": [program, "evaluate", "--features-of", *names, "--reference-is-public",
                             "--json", "--metrics", metric]}
        for peer in theirs:
            calls[f"torch-fidelity {peer}"] = [sys.executable, "-c", THEIRS, peer, *names, threads]
        runs = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                runs[name].append(measured(call)[:3])
        mine = [min(column) for column in zip(*runs["sfumato"])]
        for name, results in runs.items():
            best = [min(column) for column in zip(*results)]
            ratio = "  ".join(f"{a / b:.2f}" for a, b in zip(mine, best))
            print(f"{metric:<18} {name:<40} wall {best[0]:7.1f} s  processor {best[1]:7.1f} s  peak "
                  f"{best[2]:7.0f} MiB   ours / theirs: {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.write:
        for name, seed in zip(arguments.write, (1, 2)):
            numpy.save(name, features(10_000, 2048, seed, .02 * (2 - seed)))
        return
    program = arguments.program.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.speed:
            speed(program, Path(folder), arguments.rounds)
        elif not compare(program, Path(folder)):
            sys.exit("some numbers differ")


if __name__ == "__main__":
    main()
