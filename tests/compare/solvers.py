#!/usr/bin/env python3
"""How good images are for the network calls that they take: every solver on one release.

    tests/compare/solvers.py --run runs/quickstart --reference /usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz

For each solver and number of calls, `sfumato sample` draws --count images with one seed, and
`sfumato evaluate` takes their Frechet distance to the reference: by LeNet's features
(`--features convolution` for colour). A Markdown table goes to stdout, one row a
solver; heun takes two calls a step but the last, so that where its column is even it has one call less, which
stands in brackets. What is drawn and measured is kept in --work and not done again; another question (run,
reference, features, weights, seed, settings) finds nothing of it.

The reference is declared public: give real images that are public anyway, and prepared to the
release's size. A choice of solver by private images is a use of them that no epsilon covers.
"""
import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALLS = (5, 10, 20, 50)
CHURN = ("sample.s_churn=10", "sample.s_min=0.025", "sample.s_max=50", "sample.s_noise=1")
# Name, sampler, settings, whether for vp, for edm, and calls a step.
SOLVERS = (
    ("ddpm", "ddpm", (), True, False, 1),
    ("ddim", "ddim", (), True, False, 1),
    ("ddim, eta 1", "ddim", ("sample.eta=1",), True, False, 1),
    ("euler", "euler", (), False, True, 1),
    ("euler, churn", "euler", CHURN, False, True, 1),
    ("heun", "heun", (), False, True, 2),
    ("heun, churn", "heun", CHURN, False, True, 2),
    ("dpmpp_1", "dpmpp_1", (), True, True, 1),
    ("dpmpp_2m", "dpmpp_2m", (), True, True, 1),
    ("dpmpp_2m, karras", "dpmpp_2m", ("sample.sigma_schedule=karras",), True, False, 1),
    ("dpmpp_3m", "dpmpp_3m", (), True, True, 1),
    ("dpmpp_3m, karras", "dpmpp_3m", ("sample.sigma_schedule=karras",), True, False, 1),
    ("sde_dpmpp_2m", "sde_dpmpp_2m", (), True, True, 1),
    ("sde_dpmpp_2m, karras", "sde_dpmpp_2m", ("sample.sigma_schedule=karras",), True, False, 1),
    ("unipc", "unipc", (), True, True, 1),
    ("unipc, karras", "unipc", ("sample.sigma_schedule=karras",), True, False, 1),
)
# Settings of other solvers that the run's configuration may hold, at their defaults.
NEUTRAL = ("sample.s_churn=0", "sample.s_min=0", "sample.s_max=null", "sample.s_noise=1", "sample.eta=0",
           "sample.sigma_schedule=auto", "sample.final_sigmas_type=zero", "sample.solver_type=auto",
           "sample.variance=fixed_small", "sample.use_clipped_model_output=false",
           "sample.euler_at_final=false", "sample.solver_order=2")


def is_edm(run: Path) -> bool:
    """By the scheduler of the release, or of a folder with a network."""
    for folder in (run / "release", run):
        for path in folder.rglob("scheduler_config.json"):
            text = json.loads(path.read_text())
            return "sigma_data" in text or str(text.get("_class_name", "")).startswith("EDM")
    sys.exit(f"no scheduler_config.json in {run}: name a run with a release, or a diffusers folder")


def called(program: Path, *words) -> str:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sfumato {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def digest(*parts) -> str:
    """Of what a kept result is an answer to."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


class Comparison:
    def __init__(self, arguments: argparse.Namespace, work: Path):
        self.arguments, self.work, self.title = arguments, work, ""
        self.sampled = self.measured = 0.0

    def distance(self, name: str, sampler: str, settings: tuple, steps: int) -> float:
        a = self.arguments
        drawn = (a.run.resolve(), a.seed, a.set, sampler, settings, NEUTRAL)
        measured = (a.reference.resolve(), a.features, a.weights and a.weights.resolve())
        words = re.sub(r"\W+", "-", f"{name}-{steps}-{a.count}")
        place = self.work / f"{words}-{digest(*drawn)}"
        result = self.work / f"{words}-{digest(*drawn, *measured)}.json"
        if not result.exists():
            start = time.perf_counter()
            if not (place / "lineage.json").exists():
                called(a.sfumato, "sample", a.run, "--out", place, "--count", a.count, *NEUTRAL, *a.set,
                       f"sample.sampler={sampler}", f"sample.steps={steps}", f"sample.seed={a.seed}",
                       *settings)
            middle = time.perf_counter()
            weights = ("--weights", a.weights) if a.weights else ()
            text = called(a.sfumato, "evaluate", place, "--reference", a.reference, *weights,
                          "--no-classes", "--reference-is-public", "--features", a.features, "--metrics",
                          "frechet_distance", "--count", a.count, "--json")
            self.sampled += middle - start
            self.measured += time.perf_counter() - middle
            result.write_text(text)
        found = json.loads(result.read_text())
        self.title = found["measurements"][0]["title"]
        return found["frechet_distance"]

    def row(self, name: str, sampler: str, settings: tuple, calls_a_step: int) -> str:
        cells = []
        for calls in self.arguments.calls:
            # Two calls but for the last step: 2 n - 1, at most the column's.
            steps = calls if calls_a_step == 1 else (calls + 1) // 2
            actual = steps if calls_a_step == 1 else 2 * steps - 1
            value = f"{self.distance(name, sampler, settings, steps):.4g}"
            cells.append(value if actual == calls else f"{value} ({actual})")
            print(f"{name}, {actual} calls: {value}", file=sys.stderr, flush=True)
        return f"| {name} | " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--run", type=Path, required=True, help="a run with a release, or a network's folder")
    parser.add_argument("--reference", type=Path, required=True, help="public real images")
    parser.add_argument("--features", default="lenet", help="convolution for colour")
    parser.add_argument("--weights", type=Path, help="of the features' network")
    parser.add_argument("--count", type=int, default=2000, help="images of each side")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="solvers whose name begins with one of these")
    parser.add_argument("--set", nargs="*", default=[], help="settings for all: sample.guidance=1")
    parser.add_argument("--work", type=Path, help="folder for corpora; default: a temporary one")
    arguments = parser.parse_args()
    edm = is_edm(arguments.run)
    rows = [row for row in SOLVERS if row[4 if edm else 3] and
            (not arguments.only or row[0].startswith(tuple(arguments.only)))]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        comparison = Comparison(arguments, work)
        lines = [comparison.row(name, sampler, settings, calls)
                 for name, sampler, settings, _, _, calls in rows]
    print(f"{comparison.title} of {arguments.count} images to as many of {arguments.reference.name} by "
          f"network calls, seed {arguments.seed}{', ' + ' '.join(arguments.set) if arguments.set else ''} "
          f"(in brackets: calls where they differ from the column's).\n")
    print("| solver | " + " | ".join(map(str, arguments.calls)) + " |")
    print("|---" * (len(arguments.calls) + 1) + "|")
    print("\n".join(lines))
    print(f"drawing {comparison.sampled:.0f} s, measuring {comparison.measured:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
