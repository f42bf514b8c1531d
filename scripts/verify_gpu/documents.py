"""Sections of kernels/MEASURED.md and README.md from the results of two calls."""
from typing import Callable

from results import CallResult

STEPS_SHOWN = {"step_cifar10_bf16": "google/ddpm-cifar10-32, 16 images of 8 draws, bf16",
               "step_cifar10_tf32": "the same, tf32",
               "step_dpdm_mnist_bf16": "1.76 M-parameter 28x28 UNet, 64 images of 32 draws, bf16"}
ENGINES = {"PyTorch": "PyTorch, not private", "sfumato, not private": "sfumato, not private",
           "sfumato, private": "**sfumato, private**", "Opacus": "Opacus, private"}


def of_what(results: dict[str, CallResult]) -> str:
    call = results["speed"]
    return (f"{call['gpu']}, driver {call['driver']}, {call['date'][:10]}, "
            f"sfumato {call['version']} at commit {call['commit']}")


def rows(head: tuple, lines: list[tuple]) -> str:
    return "\n".join("| " + " | ".join(map(str, line)) + " |"
                     for line in (head, ("---",) * len(head), *lines))


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def ratio_of(step: dict) -> float:
    return step["private"]["whole_step"]["min_s"] / step["plain"]["whole_step"]["min_s"]


def case_of(figures: dict, step: str) -> dict:
    return figures[step]["cases"][0]


def update_share(figures: dict) -> float:
    """The most expensive form: Adam, average and noise."""
    row, = (each for each in figures["kernels"]["rows"]
            if each["kernel"] == "private_update" and each["shape"].endswith("Adam, average"))
    return row["share_of_limit"] or 0.0  # no limit is known for this GPU


def weight_gradient_rate(figures: dict) -> float:
    total, = (each for each in figures["kernels"]["totals"] if each["element"] == "bf16")
    return total["library_summed_s"] / total["seconds"]


def fastest(figures: dict, engine: str) -> float:
    return figures["opacus"][engine]["fastest"]


def memory(figures: dict, engine: str) -> float:
    return figures["opacus"][engine]["peak_mib"]


# goal, step it needs, figure, form, whether it is reached
GOALS = (
    ("private / plain step ≤ 1.10, google/ddpm-cifar10-32, 16 images of K = 8, bf16",
     "step_cifar10_bf16",
     lambda f: ratio_of(case_of(f, "step_cifar10_bf16")), "{:.3f}".format, lambda v: v <= 1.10),
    ("peak memory ≤ 1.15 of the plain step's", "step_cifar10_bf16",
     lambda f: case_of(f, "step_cifar10_bf16")["ratio"]["peak_whole_step"], "{:.3f}".format,
     lambda v: v <= 1.15),
    ("≥ 3 times as fast as Opacus", "opacus",
     lambda f: fastest(f, "Opacus") / fastest(f, "sfumato, private"), "{:.2f}".format,
     lambda v: v >= 3),
    ("≤ 1/4 of Opacus' memory", "opacus",
     lambda f: memory(f, "sfumato, private") / memory(f, "Opacus"), "{:.3f}".format,
     lambda v: v <= 0.25),
    ("≥ 30,000 noise draws/s: 1.76 M-parameter 28x28 UNet, 64 images of K = 32",
     "step_dpdm_mnist_bf16",
     lambda f: case_of(f, "step_dpdm_mnist_bf16")["draws_per_s"]["private"], "{:,.0f}".format,
     lambda v: v >= 30_000),
    ("`private_update` of 100 M ≥ 70 % of the memory's rate", "kernels", update_share, percent,
     lambda v: v >= 0.7),
    ("`conv_weight_grad` and `linear_weight_grad`, bf16, ≥ 50 % of the library's summed gradient",
     "kernels",
     weight_gradient_rate, percent, lambda v: v >= 0.5),
)


def goals(speed: CallResult) -> str:
    lines = []
    for goal, step, figure, form, reached in GOALS:
        if step in speed.figures:
            value = figure(speed.figures)
            lines.append((goal, form(value), "yes" if reached(value) else "no"))
        else:
            lines.append((goal, f"not measured: step `{step}` {speed.steps()[step]['status']}", ""))
    return rows(("goal", "measured", "reached?"), lines)


def steps(speed: CallResult) -> str:
    lines = []
    for step, title in STEPS_SHOWN.items():
        if step in speed.figures:
            case = case_of(speed.figures, step)
            private, plain = (case[kind]["whole_step"]["min_s"] for kind in ("private", "plain"))
            peaks = [case[kind]["peak_bytes_whole_step"] / 2**30 for kind in ("private", "plain")]
            lines.append((title, f"{private * 1e3:.2f}", f"{plain * 1e3:.2f}", f"{private / plain:.3f}",
                          f"{peaks[0]:.2f} / {peaks[1]:.2f}", f"{case['draws_per_s']['private']:,.0f}"))
    return rows(("step, fastest of 20", "private ms", "plain ms",
                "ratio", "peak GiB", "draws/s"), lines)


def span(values: list[float], form: Callable) -> str:
    if not values:
        return ""
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def kernels(speed: CallResult) -> str:
    lines = []
    all_rows = speed.figures["kernels"]["rows"]
    for name, element in dict.fromkeys((row["kernel"], row["element"]) for row in all_rows):
        of_kernel = [row for row in all_rows if (row["kernel"], row["element"]) == (name, element)]
        lines.append((f"`{name}`", element, len(of_kernel),
                      span([row["min_s"] * 1e3 for row in of_kernel], "{:.3f}".format),
                      span([row["share_of_limit"]
                           for row in of_kernel if row["share_of_limit"]], percent),
                      span([row["rate_over_library_summed"] for row in of_kernel
                            if "rate_over_library_summed" in row], "{:.2f}".format)))
    return rows(("kernel", "", "shapes", "ms", "share of the limit", "x summed"), lines)


def engines(speed: CallResult) -> str:
    measured = speed.figures["opacus"]
    lines = []
    for name, title in ENGINES.items():
        row = measured[name]
        variant = f" ({row['variant']})" if "variant" in row else ""
        lines.append((title + variant, f"{row['fastest'] * 1e3:.2f} ms",
                      f"{row['fastest'] / fastest(speed.figures, 'PyTorch'):.2f}",
                      f"{row['peak_mib']:,.0f} MiB"))
    return rows(("one step", "fastest", "×PyTorch", "peak memory"), lines)


def outcomes(results: dict[str, CallResult]) -> str:
    lines = [(f"`{call['call']}`: {step['step']}", step["status"], step["headline"].replace("|", "/"))
             for call in results.values() for step in call["steps"]]
    return rows(("step", "outcome", "in short"), lines)


def measured_section(results: dict[str, CallResult]) -> str:
    speed = results["speed"]
    seconds = " and ".join(f"{call['total_seconds']:.0f}" for call in results.values())
    parts = [f"On {of_what(results)}, by the two calls of `scripts/verify-gpu` ({seconds} s).",
             goals(speed), steps(speed)]
    bad = [f"`{step['step']}` ({step['status']})"
           for call in results.values() for step in call.not_ok()]
    if bad:
        parts.insert(1, f"**Not green**: {', '.join(bad)}; the last table says why.")
    if "kernels" in speed.figures:
        parts.append(kernels(speed))
    if "opacus" in speed.figures:
        parts.append(engines(speed))
    return "\n\n".join([*parts, outcomes(results)])


def dry_run_section(results: dict[str, CallResult]) -> str:
    correct, speed = results["correct"], results["speed"]
    repeats = ", with least repeats" if correct["quick"] or speed["quick"] else ""
    return (f"Run dry on {speed['date'][:10]} at {speed['commit']}{repeats}: both calls end green in "
            f"{correct['total_seconds']:.0f} s and {speed['total_seconds']:.0f} s. Nothing was measured: "
            f"the device ({speed['gpu']}) executes no kernels, so that this says how the programs behave "
            "around them and nothing of what they compute or how fast.")


def readme_section(results: dict[str, CallResult]) -> str:
    speed = results["speed"]
    parts = ["The same on a GPU, the 35.7 M-parameter UNet with 16 images of 8 draws in bf16 "
             f"({of_what(results)}):"]
    if "opacus" in speed.figures:
        parts.append(engines(speed))
    said = []
    if "step_cifar10_bf16" in speed.figures:
        ratio = ratio_of(case_of(speed.figures, "step_cifar10_bf16"))
        said.append(f"Its private step takes {ratio:.2f} plain ones.")
    if "step_dpdm_mnist_bf16" in speed.figures:
        draws = case_of(speed.figures, "step_dpdm_mnist_bf16")["draws_per_s"]["private"]
        said.append(f"A 1.76 M-parameter 28x28 UNet trains on {draws:,.0f} noise draws/s.")
    bad = [step["step"] for call in results.values() for step in call.not_ok()]
    if bad:
        said.append(f"Not everything was green: {', '.join(bad)}.")
    said.append("All figures, and what was projected: [kernels/MEASURED.md](kernels/MEASURED.md).")
    return "\n\n".join([*parts, " ".join(said)])
