#!/usr/bin/env python3
"""ε of random phases, and of corners, by `sfumato account` against Google's dp_accounting package.

The package's pessimistic value (connect-the-dots) errs with the square of its grid's spacing, so two
grids tell where the truth lies: below the smaller value by a third of the difference. For each case
the claim is not below that, less as much again, and not above the smaller value by more than 1e-3;
the lower end of the bracket is not above it, and within 1 % of the claim. By replace-one too, and
compositions of several phases. Their delta is taken as known to ROUNDING alone.
"""
import os
import random
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import Sfumato, check, main

try:
    from dp_accounting.pld import privacy_loss_distribution as pld
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

# What their Fourier transform's rounding makes of delta, absolutely: at delta 1e-11 epsilon moved by
# 2e-3 to 4e-3, which is 4e-14 to 8e-14 of delta, with the truncation of tails and the processor.
ROUNDING = 1e-13
COUNT = int(os.environ.get("SFUMATO_RANDOM_PHASES", "50"))
# (phases, delta, adjacency): one step and many, rates near 0 and 1, small and large noise and deltas.
CORNERS = [
    ([(0.3, 0.5, 1)], 1e-6, "zero_out"),
    ([(0.999, 1.3, 4)], 1e-5, "add_remove"),
    ([(0.02, 0.42, 60)], 1e-5, "zero_out"),
    ([(1e-5, 0.6, 20_000)], 1e-9, "zero_out"),
    ([(0.001, 0.8, 30_000)], 1e-8, "add_remove"),
    ([(0.5, 12.0, 1500)], 1e-11, "replace_one"),
    ([(0.001, 1.0, 500)], 1e-9, "replace_one"),
    ([(0.01, 40.0, 100)], 1e-7, "zero_out"),
    ([(0.1, 1.0, 3)], 1e-1, "zero_out"),
    ([(0.01, 1.0, 300), (0.3, 5.0, 40), (0.001, 0.6, 900)], 1e-6, "zero_out"),
]
RELATION = {"zero_out": pld.NeighborRel.REPLACE_SPECIAL,
            "add_remove": pld.NeighborRel.ADD_OR_REMOVE_ONE,
            "replace_one": pld.NeighborRel.REPLACE_ONE}


def pessimistic(phases, delta: float, adjacency: str, grid: float) -> tuple[float, float]:
    """Their epsilon were delta larger by ROUNDING, and were it smaller."""
    total = None
    for rate, noise, steps in phases:
        one = pld.from_gaussian_mechanism(
            noise, sampling_prob=rate, neighboring_relation=RELATION[adjacency],
            value_discretization_interval=grid, pessimistic_estimate=True, use_connect_dots=True)
        many = one.self_compose(steps) if steps > 1 else one
        total = many if total is None else total.compose(many)
    return tuple(total.get_epsilon_for_delta(delta + r) for r in (ROUNDING, -ROUNDING))


def theirs(case) -> tuple[tuple[float, float], tuple[float, float]]:
    """On a fine grid, and on one twice as coarse."""
    phases, delta, adjacency = case
    steps = sum(count for _, _, count in phases)
    loss = min(max(rate / noise for rate, noise, _ in phases), 1.0)  # of a step, roughly
    grid = max(min(1e-3, 0.02 / steps ** 0.5, 0.1 * loss), 2e-5)
    return tuple(pessimistic(phases, delta, adjacency, g) for g in (grid, 2 * grid))


def random_case(generator: random.Random):
    adjacency = generator.choice(["zero_out", "zero_out", "add_remove", "replace_one"])
    phases = []
    for _ in range(generator.choice([1, 1, 1, 1, 2])):
        rate = 10 ** generator.uniform(-3.5, -0.3)
        noise = generator.uniform(0.6, 6)
        steps = round(10 ** generator.uniform(0, 3.3))
        phases.append((rate, noise, steps))
    return phases, 10 ** generator.uniform(-9, -3), adjacency


def run(sfumato: Sfumato, work: Path, arguments) -> None:
    generator = random.Random(20_240_607)
    cases = CORNERS + [random_case(generator) for _ in range(COUNT)]

    def ours(case):
        phases, delta, adjacency = case
        options = ["--delta", repr(delta), "--adjacency", adjacency]
        for rate, noise, steps in phases:
            options += ["--phase", f"{rate!r}:{noise!r}:{steps}"]
        return sfumato.json("account", *options)

    with ProcessPoolExecutor(2) as references, ThreadPoolExecutor(2) as pool:
        known = references.map(theirs, cases)
        worst = 0.0
        for case, answer, (fine, coarse) in zip(cases, pool.map(ours, cases), known):
            phases, delta, adjacency = case
            claim, floor = answer["epsilon"], answer["epsilon_lower"]
            name = f"{phases} delta {delta:.3g} {adjacency}: claim {claim}, bracket from {floor}"
            # Where delta is tiny, rounding can make the finer value the larger one.
            low, high = (min(pair) for pair in zip(fine, coarse))
            least = low - 2 / 3 * abs(coarse[0] - fine[0]) - 1e-6
            check(claim >= least, f"{name}, below {least} ({low} on their grid)")
            check(claim <= high + 1e-3, f"{name}, above their {high}")
            check(floor <= high + 1e-9, f"{name}, lower end above their {high}")
            check(0.99 * claim <= floor <= claim or claim < 1e-6, f"{name}, not within 1 %")
            worst = max(worst, claim - high)
    print(f"{len(cases)} cases; largest excess over their value {worst:.2g}")


if __name__ == "__main__":
    main(run, __doc__)
