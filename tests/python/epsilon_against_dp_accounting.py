#!/usr/bin/env python3
"""ε of 300 random phases by `sfumato account` against Google's dp_accounting package.

For each phase: the claim is not below the package's optimistic value, and not above its pessimistic
one by more than 1e-3; the lower end of the bracket is not above the pessimistic value. By
replace-one too, and a few compositions of several phases.
"""
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import Sfumato, check, main

try:
    from dp_accounting.pld import privacy_loss_distribution as pld
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

COUNT = int(os.environ.get("SFUMATO_RANDOM_PHASES", "300"))
GRID = 1e-4
RELATION = {"zero_out": pld.NeighborRel.REPLACE_SPECIAL,
            "add_remove": pld.NeighborRel.ADD_OR_REMOVE_ONE,
            "replace_one": pld.NeighborRel.REPLACE_ONE}


def distribution(phases, adjacency: str, pessimistic: bool):
    total = None
    for rate, noise, steps in phases:
        one = pld.from_gaussian_mechanism(
            noise, sampling_prob=rate, neighboring_relation=RELATION[adjacency],
            value_discretization_interval=GRID, pessimistic_estimate=pessimistic,
            use_connect_dots=pessimistic)
        many = one.self_compose(steps) if steps > 1 else one
        total = many if total is None else total.compose(many)
    return total


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
    cases = [random_case(generator) for _ in range(COUNT)]

    def ours(case):
        phases, delta, adjacency = case
        options = ["--delta", repr(delta), "--adjacency", adjacency]
        for rate, noise, steps in phases:
            options += ["--phase", f"{rate!r}:{noise!r}:{steps}"]
        return sfumato.json("account", *options)

    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(ours, cases)
        worst = 0.0
        for case, answer in zip(cases, answers):
            phases, delta, adjacency = case
            upper = distribution(phases, adjacency, True).get_epsilon_for_delta(delta)
            lower = distribution(phases, adjacency, False).get_epsilon_for_delta(delta)
            claim, floor = answer["epsilon"], answer["epsilon_lower"]
            name = f"{phases} delta {delta:.3g} {adjacency}: claim {claim}, bracket from {floor}"
            check(claim >= lower - 1e-9, f"{name}, below the optimistic {lower}")
            check(claim <= upper + 1e-3, f"{name}, above the pessimistic {upper}")
            check(floor <= upper + 1e-9, f"{name}, lower end above the pessimistic {upper}")
            check(floor <= claim, name)
            worst = max(worst, claim - upper)
    print(f"{len(cases)} cases; largest excess over the pessimistic value {worst:.2g}")


if __name__ == "__main__":
    main(run, __doc__)
