#!/usr/bin/env python3
"""A privacy card's ε, recomputed from the card's fields alone by Google's dp_accounting package.

Two small runs are made: with a label histogram, a declared stage and two candidates, claimed by
PLD; and a plain one, claimed by RDP. Other cards can be given with --card.
"""
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (PRIVACY, CheckFailed, check, main, prepare_small_store, smoke_arguments)

try:
    import dp_accounting
    from dp_accounting import rdp
    from dp_accounting.pld import privacy_loss_distribution as pld
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

# Spacing of the privacy losses. Connect-the-dots errs with its square: what a grid twice as coarse
# says more tells how far above the truth the fine one is.
FINE, COARSE = 1e-4, 2e-4
# Both relations have the same pair of worst-case outputs under Poisson sampling; dp_accounting's
# replace-one is another matter and not needed here.
RELATIONS = ("add_remove", "zero_out")


def times_of(card: dict, stage: dict) -> int:
    """How often the claim counts a stage's releases."""
    return 1 if stage["declared"] else card["candidates"]


def approximate_dp(epsilon: float, delta: float, grid: float):
    """The worst (ε, δ) mechanism, its losses rounded up."""
    masses = {math.ceil(epsilon / grid): (1 - delta) / (1 + math.exp(-epsilon)),
              math.ceil(-epsilon / grid): (1 - delta) / (1 + math.exp(epsilon))}
    return pld.PrivacyLossDistribution.create_from_rounded_probability(
        masses, delta, grid, pessimistic_estimate=True)


def loss_distribution(card: dict, grid: float):
    check("selection_law" not in card, "dp_accounting composes no selections by PLD")
    total = None
    for stage in card["stages"]:
        options = {"value_discretization_interval": grid}
        if stage["mechanism"] == "sampled_gaussian":
            check(stage["records_per_unit"] == 1, "this check knows units of one record only")
            one = pld.from_gaussian_mechanism(stage["noise_multiplier"],
                                              sampling_prob=stage["sample_rate"], **options)
            count = stage["steps"]
        elif stage["mechanism"] == "gaussian":
            one = pld.from_gaussian_mechanism(stage["noise_stddev"],
                                              sensitivity=stage["sensitivity_l2"], **options)
            count = stage["count"]
        else:
            one = approximate_dp(stage["epsilon"], stage["delta"], grid)
            count = stage["count"]
        composed = one.self_compose(count * times_of(card, stage))
        total = composed if total is None else total.compose(composed)
    return total


def rounded_up(card: dict) -> float:
    """What rounding the losses of (ε, δ) mechanisms up may add on the fine grid."""
    return FINE * sum(stage["count"] * times_of(card, stage) for stage in card["stages"]
                      if stage["mechanism"] not in ("sampled_gaussian", "gaussian"))


def rdp_epsilon(card: dict) -> float:
    accountant = rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for stage in card["stages"]:
        if stage["mechanism"] == "sampled_gaussian":
            event, count = dp_accounting.PoissonSampledDpEvent(
                stage["sample_rate"],
                dp_accounting.GaussianDpEvent(stage["noise_multiplier"])), stage["steps"]
        else:
            check(stage["mechanism"] == "gaussian", f"no RDP of a stage {stage}")
            event, count = dp_accounting.GaussianDpEvent(
                stage["noise_stddev"] / stage["sensitivity_l2"]), stage["count"]
        accountant.compose(event, count * times_of(card, stage))
    return accountant.get_epsilon(card["delta"])


def highest_rate(distribution, rate: float) -> float:
    """The true positive rate at which no (ε, δ(ε)) is violated, at that rate of false alarms."""
    best = 1.0
    for epsilon in (0.1 * i for i in range(120)):
        delta = distribution.get_delta_for_epsilon(epsilon)
        best = min(best, math.exp(epsilon) * rate + delta,
                   1 - math.exp(-epsilon) * (1 - delta - rate))
    return best


class Theirs:
    """What dp_accounting makes of a card's stages."""

    def __init__(self, card: dict):
        self.above = loss_distribution(card, FINE)
        self.pessimistic = self.above.get_epsilon_for_delta(card["delta"])
        coarse = loss_distribution(card, COARSE).get_epsilon_for_delta(card["delta"])
        self.optimistic = (self.pessimistic - 2 / 3 * max(0.0, coarse - self.pessimistic) -
                           rounded_up(card) - 1e-6)


def check_card(card: dict, theirs: Theirs) -> None:
    """CheckFailed unless the claim lies where dp_accounting puts the truth."""
    check(card["status"] == "private", f"the card is {card['status']}")
    check(card["adjacency"] in RELATIONS, f"adjacency {card['adjacency']}")
    claimed, optimistic, pessimistic = card["epsilon"], theirs.optimistic, theirs.pessimistic
    print(f"claimed {claimed:.6f} by {card['accountant']}; dp_accounting: PLD "
          f"[{optimistic:.6f}, {pessimistic:.6f}]")
    check(claimed >= optimistic, f"claimed {claimed} is below the truth, at least {optimistic}")
    if card["accountant"] == "pld":
        check(abs(claimed - pessimistic) <= 1e-2,
              f"claimed {claimed}, dp_accounting's PLD says {pessimistic}")
        check(card["epsilon_lower"] <= pessimistic + 1e-9,
              f"the lower end {card['epsilon_lower']} is above dp_accounting's {pessimistic}")
    else:
        renyi = rdp_epsilon(card)
        print(f"dp_accounting: RDP {renyi:.6f}")
        # Ours searches all orders, theirs a list of them.
        check(renyi * 0.98 <= claimed <= renyi * (1 + 1e-6),
              f"claimed {claimed}, dp_accounting's RDP says {renyi}")
    for point in card["epsilon_at_delta"]:
        if 1e-9 <= point["delta"] <= 1e-3 and card["accountant"] == "pld":
            epsilon = theirs.above.get_epsilon_for_delta(point["delta"])
            check(abs(point["epsilon"] - epsilon) <= 1e-2,
                  f"at delta {point['delta']} the card says {point['epsilon']}, not {epsilon}")
    for bound in card["largest_true_positive_rate"]:
        rate = bound["false_positive_rate"]
        best = highest_rate(theirs.above, rate)
        check(bound["true_positive_rate"] >= best - 1e-2, f"{bound}: {best} is possible")
        if card["accountant"] == "pld":
            check(bound["true_positive_rate"] <= best + 0.1, f"{bound} is far above {best}")
        check(rate <= bound["true_positive_rate"] <= 1, f"impossible rates {bound}")


def check_refuses(card: dict, theirs: Theirs) -> None:
    """This check itself must notice a claim that the stages do not bear."""
    try:
        check_card(card, theirs)
    except CheckFailed:
        return
    raise CheckFailed(f"the claim {card['epsilon']} passes for {theirs.pessimistic}")


def recomputed_by_us(sfumato, path: Path, card: dict) -> None:
    said = sfumato.json("account", "--card", path)
    ours = {line["accountant"]: line["epsilon"] for line in said["recomputed"]}
    check(said["holds"], f"`account --card` says {said}")
    check(abs(ours[card["accountant"]] - card["epsilon"]) <= 1e-6 * card["epsilon"],
          f"`account --card` says {ours}, the card {card['epsilon']}")
    low = path.parent / "too_low.json"
    low.write_text(json.dumps({**card, "epsilon": card["epsilon"] * (1 - 1e-4)}))
    sfumato.run("account", "--card", low, expect=PRIVACY)
    low.unlink()


def check_all(sfumato, work: Path, arguments):
    if arguments.card:
        for path in arguments.card:
            card = json.loads(path.read_text())
            check_card(card, Theirs(card))
        return
    store = prepare_small_store(sfumato, work)
    runs = {
        "with_stages": ("mechanism.steps=12", "mechanism.candidates=2",
                        "mechanism.stages.label_histogram.noise_multiplier=20",
                        "mechanism.stages.accuracy.noise_multiplier=15",
                        "mechanism.stages.frechet_distance.noise_multiplier=40",
                        'mechanism.declared=["gaussian:1:30:2", "approximate:0.05:1e-9"]'),
        "plain": ("mechanism.steps=6", "mechanism.accountant=rdp", "mechanism.adjacency=add_remove"),
    }
    for name, overrides in runs.items():
        sfumato.run("train", *smoke_arguments(store, work / name, *overrides))
        path = work / name / "release/privacy_card.json"
        card = json.loads(path.read_text())
        theirs = Theirs(card)
        check_card(card, theirs)
        recomputed_by_us(sfumato, path, card)
        check_refuses({**card, "epsilon": card["epsilon"] * 0.95}, theirs)
        if name == "with_stages":
            check(len(card["stages"]) == 6, f"{len(card['stages'])} stages on the card")
            check_refuses(card, Theirs({**card, "stages": card["stages"] + card["stages"][-1:]}))


if __name__ == "__main__":
    main(check_all, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--card", type=Path, nargs="*",
                                            help="check these cards instead"))
