"""The table of benchmark_protocol.py: means and spreads of seeds beside published numbers (published.json), and what
differs from how those were made."""
import json
import statistics
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published.json")
SMALL = "small"
DPIMAGEBENCH = ("resnet-110", "wrn-40-4", "resnext-29")  # the three of DPImageBench
NAMES = {"fashion": "Fashion-MNIST", "mnist": "MNIST"}
COLUMNS = ("FD-LeNet", "FID", "small CNN", "mean of three", "max of three")


def numbers_of(result: dict) -> dict:
    """Of one run, by column; what was not measured is missing."""
    accuracies = result["accuracies"]
    found = {name: result["distances"][name] for name in ("FD-LeNet", "FID") if name in result["distances"]}
    if SMALL in accuracies:
        found["small CNN"] = accuracies[SMALL]
    if all(name in accuracies for name in DPIMAGEBENCH):
        three = [accuracies[name] for name in DPIMAGEBENCH]
        found |= {"mean of three": statistics.mean(three), "max of three": max(three)}
    return found


def with_spread(values: list[float]) -> str:
    """Mean and standard deviation of the seeds; one alone has none."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def own_rows(results: list[dict], epsilon: float) -> list[str]:
    chosen = [result for result in results if result["epsilon"] == epsilon]
    each = [numbers_of(result) for result in chosen]
    cells = [with_spread([numbers[column] for numbers in each if column in numbers]) for column in COLUMNS]
    seeds = ", ".join(str(result["seed"]) for result in chosen)
    return ["| " + " | ".join([f"**sfumato**, seeds {seeds}", f"{epsilon:g}", *cells]) + " |"]


def published_rows(data: str, epsilon: float) -> list[str]:
    keys = {"FID": "fid", "small CNN": "small", "mean of three": "mean", "max of three": "max"}
    rows = []
    for row in json.loads(PUBLISHED.read_text())["rows"]:
        numbers = row[data].get(f"{epsilon:g}")
        if numbers:
            cells = [f"{numbers[keys[c]]:g}" if keys.get(c) in numbers else "-" for c in COLUMNS]
            rows.append("| " + " | ".join([f"{row['method']} [{row['source']}]", f"{epsilon:g}", *cells]) + " |")
    return rows


def minutes(results: list[dict], what: str) -> str:
    return f"{statistics.mean(result['seconds'][what] / 60 for result in results):.1f}"


def differences(results: list[dict], question: dict) -> list[str]:
    one = results[-1]
    accuracies = sorted({name for result in results for name in result["accuracies"]})
    lines = [
        f"Time: {minutes(results, 'training')} minutes of training a run ({question['device']}), "
        f"{minutes(results, 'drawing')} of drawing, {minutes(results, 'measuring')} of measuring. DPImageBench: some "
        "17 hours on four GPUs for DP-FETA on MNIST (its log), and hours more to measure.",
        f"Steps: {one['steps']} of {one['batch']} images x {one['draws']} draws "
        f"({one['steps'] * one['batch'] / question['records']:.0f} epochs). DPImageBench: 4,096 x 32 draws, 150 epochs. "
        f"The number follows from the time of a step ({one['step_seconds']:.2f} s) and the budget alone.",
        f"Network: {one['parameters']:,} trained parameters, started and warmed up as the configuration says (stages are "
        "part of epsilon); DPImageBench's has 1.49 million. Nothing was tuned for it; unless it was kept, the learning "
        "rate grows as steps become fewer.",
        "Privacy: epsilon by privacy loss distributions, stages included, for sets in which one image is blanked out (their number is public); most rows "
        "of DPImageBench by RDP, for one added or removed, which asks for 5 to 8 % more noise at the same epsilon, and DP-LDM and DP-LoRA by PRV. "
        f"Delta is {one['delta']:g}, its 1 / (N ln N) for N = {question['records']:,}. Noise is cryptographic; there it "
        "follows from a seed.",
        f"Private images: {question['records']:,} train, as a public hash of their places chooses (about as many as "
        "that). There 5,000 images are set apart by a seed and choose the epoch of classifiers without noise; here "
        "those apart are not used.",
        f"Images drawn: {one['images']:,}, of 8 bits, labels in equal parts. There 60,000, of floats.",
        "Distances: to all training images of the set, those set apart included; there to the 55,000 of training. "
        "FD-LeNet is by a network trained on public glyphs and compares with nothing but itself; FID, where it "
        "stands, is by Inception's weights and TensorFlow's resizing as there.",
        "Classifiers (" + ", ".join(accuracies) + "): the epoch is chosen by synthetic images set apart. DPImageBench "
        "reports the largest of three by test accuracy, which looks at the test images, so means are the fairer "
        "column; statistics of batch normalisation are averaged with the weights here, without which some of its "
        "networks end at 10 %.",
        f"Seeds: {len({result['seed'] for result in results})} here, of training, drawing and classifiers, with the "
        "standard deviation of a sample; published rows are one run each.",
    ]
    if question["classifier_count"] and len(accuracies) > 1:
        lines.append(f"The three classifiers: trained on {question['classifier_count']:,} of the images drawn and tested "
                     "on at most as many real ones.")
    return lines


def table(data: str, results: list[dict], question: dict) -> str:
    head = ("method", "ε", *COLUMNS)
    lines = [f"# {NAMES[data]} at DPImageBench's protocol, {question['budget_minutes']:g} minutes of training a run", "",
             f"Configuration `{question['config']}`"
             + (f", {' '.join(question['settings'])}" if question["settings"] else "")
             + ". Accuracy in %, on the test images, of classifiers trained on drawn images alone; distances: less is "
             "better.", "",
             "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for epsilon in sorted({result["epsilon"] for result in results}):
        lines += own_rows(results, epsilon) + published_rows(data, epsilon)
    sources = json.loads(PUBLISHED.read_text())["sources"]
    lines += ["", *(f"- [{name}] {text}." for name, text in sources.items()), "", "What differs from DPImageBench:", "",
              *(f"- {line}" for line in differences(results, question))]
    return "\n".join(lines) + "\n"
