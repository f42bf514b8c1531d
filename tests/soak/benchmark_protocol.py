#!/usr/bin/env python3
"""Fashion-MNIST or MNIST at DPImageBench's protocol, as far as a time budget goes, beside published numbers.

    tests/soak/benchmark_protocol.py --set fashion --budget-minutes 60                       # a night on two cores
    tests/soak/benchmark_protocol.py --set mnist --data FOLDER --budget-minutes 60
    tests/soak/benchmark_protocol.py --set fashion --budget-minutes 20 --device cuda \\
        --settings model.config=configs/networks/dpimagebench_28.json sample.steps=50

For every --epsilon and seed: measures a step on made-up images and takes as many as fit --budget-minutes (of training
alone; drawing and measuring come on top), trains, draws --count images, and measures their Frechet distance to the
training images and the accuracy on the test images of classifiers trained on them alone. OUT/table.md has the means and
spreads of the seeds, published rows and what differs from DPImageBench; OUT/<run>/result.json has each run.

The same command again goes on where it stopped: finished runs are skipped, an unfinished training or corpus is continued.
A changed budget, batch or number of images needs another --out. Both sets are declared public (--reference-is-public):
give no folder of private images. --classifiers protocol trains the three of DPImageBench besides the small one; on a few
cores they take days for 60,000 images (--classifier-count takes some of them).
"""
import argparse
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from protocol_table import DPIMAGEBENCH, SMALL, table

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = {"fashion": Path("/usr/share/datasets/fashion-mnist")}
EPOCHS, BATCH, RATE = 150, 4096, 3e-4    # of DPImageBench's diffusion models
LEAST_STEPS = 200                        # more draws of an image only where so many steps are left
TRAINING_SHARE = 0.9                     # of the budget; the rest is warm-up, previews and checkpoints
HIGHEST_RATE = 3e-3
INTERRUPTED = 130


def delta_of(records: int) -> float:
    """1 / (N ln N), rounded down."""
    value = 1 / (records * math.log(records))
    unit = 10.0 ** (math.floor(math.log10(value)) - 4)
    return math.floor(value / unit) * unit


def rate_for(steps: int, records: int) -> float:
    """DPImageBench's learning rate at its number of steps; fewer take larger ones, as Adam's walk is their root."""
    theirs = EPOCHS * records / BATCH
    return min(HIGHEST_RATE, RATE * max(1.0, math.sqrt(theirs / steps)))


def write_json(path: Path, value) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


class Program:
    """The program, which is asked to stop at a step's end where this script is."""

    def __init__(self, binary: Path, log: Path):
        self.binary, self.log = binary.resolve(), log

    def __call__(self, *words, log: Path | None = None) -> str:
        command = [str(self.binary), *map(str, words)]
        with (log or self.log).open("a") as errors:
            errors.write(f"$ {shlex.join(command)}\n")
            errors.flush()
            process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=errors,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                said = process.communicate()[0]
            except KeyboardInterrupt:
                process.send_signal(signal.SIGTERM)
                process.communicate()
                raise
        if process.returncode == INTERRUPTED:
            raise KeyboardInterrupt
        if process.returncode != 0:
            sys.exit(f"`{shlex.join(command)}` ended with {process.returncode}; see {log or self.log}")
        return said

    def json(self, *words, **options):
        return json.loads(self(*words, "--json", **options))


class Protocol:
    def __init__(self, arguments: argparse.Namespace):
        self.a, self.out = arguments, arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.program = Program(arguments.sfumato, self.out / "program.log")
        self.check_same_question()

    def check_same_question(self) -> None:
        """What decides the numbers must not change while runs are added."""
        a = self.a
        asked = {"set": a.set, "data": str(a.data.resolve()), "config": a.config.stem, "settings": a.settings,
                 "device": a.device, "budget_minutes": a.budget_minutes, "batch": a.batch, "draws": a.draws,
                 "most_steps": a.most_steps, "records": a.records, "count": a.count,
                 "classifier_count": a.classifier_count, "keep_rate": a.keep_rate}
        file = self.out / "question.json"
        before = json.loads(file.read_text()) if file.exists() else asked
        changed = [key for key in asked if asked[key] != before.get(key)]
        if changed:
            sys.exit(f"{file} says otherwise of {', '.join(changed)}; name another --out")
        write_json(file, asked)

    def files(self, part: str) -> tuple[Path, Path]:
        found = []
        for kind in ("images-idx3", "labels-idx1"):
            names = [self.a.data / f"{part}-{kind}-ubyte{end}" for end in (".gz", "")]
            found.append(next((path.resolve() for path in names if path.exists()), None))
            if found[-1] is None:
                sys.exit(f"no {names[0].name} in {self.a.data}; name the folder of IDX files by --data")
        return found[0], found[1]

    def settings(self, **own) -> list[str]:
        """Of every run; what the user gives counts last."""
        a = self.a
        images, labels = self.files("train")
        chosen = {"data.source": images, "data.labels": labels, "data.store": self.out / "store",
                  "mechanism.sample_rate": f"{a.batch / a.records:.10g}",
                  "mechanism.expected_batch_size": a.batch, "mechanism.delta": f"{delta_of(a.records):.5g}",
                  "performance.device": a.device, **{k.replace("__", "."): v for k, v in own.items()}}
        chosen |= dict(text.split("=", 1) for text in a.settings)
        return [f"{key}={value}" for key, value in chosen.items()]

    def prepare(self) -> None:
        done = self.out / "prepared.json"
        if not done.exists():
            self.program("prepare", "--config", self.a.config, *self.settings())
            write_json(done, {})

    def choose_steps(self) -> dict:
        """Draws and steps that fit the budget, by a few steps on made-up images."""
        file, a = self.out / "steps.json", self.a
        if file.exists():
            return json.loads(file.read_text())
        most = max(1, round(EPOCHS * a.records / a.batch))
        for draws in sorted(a.draws, reverse=True):
            epsilon = max(a.epsilon)  # which one takes no time of a step
            plan = self.program.json("plan", "--epsilons", epsilon, "--config", a.config, *self.settings(
                mechanism__steps=LEAST_STEPS, mechanism__target_epsilon=epsilon, diffusion__draws=draws))
            row = next(row for row in plan["rows"] if row["is_configured"])
            seconds = row["seconds"] / row["steps"]
            steps = int(a.budget_minutes * 60 * TRAINING_SHARE / seconds)
            if steps >= min(LEAST_STEPS, most):
                break
        steps = max(1, min(steps, most, a.most_steps or most))
        chosen = {"draws": draws, "steps": steps, "step_seconds": seconds, "parameters": plan["trainable"]}
        write_json(file, chosen)
        print(f"{steps} steps of {a.batch} images x {draws} draws, {seconds:.2f} s each", flush=True)
        return chosen

    def timed(self, folder: Path, what: str, work) -> None:
        """Adds the seconds to those of earlier attempts."""
        file = folder / "seconds.json"
        seconds = json.loads(file.read_text()) if file.exists() else {}
        start = time.monotonic()
        try:
            work()
        finally:
            seconds[what] = seconds.get(what, 0) + time.monotonic() - start
            write_json(file, seconds)

    def train(self, folder: Path, epsilon: float, seed: int, chosen: dict) -> None:
        own = {"mechanism__steps": chosen["steps"], "mechanism__target_epsilon": epsilon,
               "diffusion__draws": chosen["draws"], "run__dir": folder / "run", "run__seed": seed,
               "sample__seed": seed}
        if not self.a.keep_rate:
            own["optimizer__learning_rate"] = f"{rate_for(chosen['steps'], self.a.records):.4g}"
        if not (folder / "trained.json").exists():
            done = self.program.json("train", "--config", self.a.config, "--resume=auto", *self.settings(**own),
                                     log=folder / "train.log")
            write_json(folder / "trained.json", done)

    def draw(self, folder: Path) -> None:
        corpus = folder / "corpus"
        if not (corpus / "lineage.json").exists():
            self.program("sample", folder / "run", "--out", corpus, "--count", self.a.count,
                         log=folder / "sample.log")

    def measure(self, folder: Path, name: str, seed: int, *words) -> list[dict]:
        """The measurements of one call of evaluate, which are kept."""
        file = folder / f"{name}.json"
        if not file.exists():
            images, labels = self.files("train")
            said = self.program("evaluate", folder / "corpus", "--reference", images, "--reference-labels", labels,
                                "--split", "train", "--reference-is-public", "--seed", seed, "--json", *words,
                                log=folder / "evaluate.log")
            write_json(file, json.loads(said))
        return json.loads(file.read_text())["measurements"]

    def distances(self, folder: Path, seed: int) -> dict:
        weights = ("--weights", self.a.inception.resolve()) if self.a.inception else ()
        networks = "lenet,inception" if self.a.inception else "lenet"
        found = self.measure(folder, f"distance-{networks.replace(',', '-')}", seed, "--features", networks,
                             "--metrics", "frechet_distance", "--count", 0, *weights)
        return {one["title"]: one["value"] for one in found if one["key"] == "frechet_distance"}

    def accuracies(self, folder: Path, seed: int) -> dict:
        images, labels = self.files("t10k")
        found = {}
        for name in self.a.classifiers:
            count = 0 if name == SMALL else self.a.classifier_count
            device = ("--device", self.a.device) if self.a.device != "cpu" else ()
            for one in self.measure(folder, f"accuracy-{name}", seed, "--metrics", "accuracy", "--classifier", name,
                                    "--no-ceiling", "--count", count, "--test", images, "--test-labels", labels,
                                    *device):
                if one["key"] == "accuracy":
                    found[name] = 100 * one["value"]
        return found

    def run(self, epsilon: float, seed: int) -> dict:
        chosen = self.choose_steps()
        folder = self.out / f"epsilon-{epsilon:g}-seed-{seed}"
        folder.mkdir(exist_ok=True)
        file = folder / "result.json"
        asked = {"classifiers": list(self.a.classifiers), "inception": self.a.inception is not None}
        if file.exists() and (found := json.loads(file.read_text()))["asked"] == asked:
            return found
        self.timed(folder, "training", lambda: self.train(folder, epsilon, seed, chosen))
        self.timed(folder, "drawing", lambda: self.draw(folder))
        found = {}
        self.timed(folder, "measuring", lambda: found.update(distances=self.distances(folder, seed),
                                                             accuracies=self.accuracies(folder, seed)))
        trained = json.loads((folder / "trained.json").read_text())
        result = {"epsilon": epsilon, "seed": seed, "asked": asked, **found, **chosen,
                  "epsilon_spent": trained["epsilon"], "delta": trained["delta"], "images": self.a.count,
                  "batch": self.a.batch, "seconds": json.loads((folder / "seconds.json").read_text())}
        write_json(file, result)
        return result

    def all(self) -> None:
        self.prepare()
        results = []
        for seed in self.a.seeds:
            for epsilon in self.a.epsilon:
                print(f"epsilon {epsilon:g}, seed {seed}", flush=True)
                results.append(self.run(epsilon, seed))
                text = table(self.a.set, results, json.loads((self.out / "question.json").read_text()))
                (self.out / "table.md").write_text(text)
        print(text, end="")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("fashion", "mnist"), required=True)
    parser.add_argument("--data", type=Path, help="folder of the four IDX files; default of fashion: Debian's")
    parser.add_argument("--budget-minutes", type=float, required=True, help="training of one run")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/protocol-edm.yaml")
    parser.add_argument("--settings", nargs="*", default=[], metavar="section.setting=value",
                        help="for all runs; files in them are named from the top of the checkout")
    parser.add_argument("--batch", type=int, help=f"images of a step; default 1024, on a GPU {BATCH}")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 4],
                        help=f"the largest that leaves {LEAST_STEPS} steps is taken")
    parser.add_argument("--most-steps", type=int, help=f"default: {EPOCHS} epochs")
    parser.add_argument("--keep-rate", action="store_true",
                        help="the learning rate of the configuration, not that which follows from the steps")
    parser.add_argument("--records", type=int, default=55000, help="public number of private training images")
    parser.add_argument("--count", type=int, default=60000, help="images drawn")
    parser.add_argument("--classifiers", nargs="+", help="'protocol': small and the three of DPImageBench; "
                        "default: small on a CPU, protocol on a GPU", default=[],
                        choices=(SMALL, *DPIMAGEBENCH, "protocol"))
    parser.add_argument("--classifier-count", type=int, default=0,
                        help="images that each of the three trains on; 0: all")
    parser.add_argument("--inception", type=Path, help="weights of Inception, for FID (scripts/feature-weights)")
    parser.add_argument("--out", type=Path, help="default: runs/protocol/SET")
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    arguments = parser.parse_args()
    gpu = arguments.device == "cuda"
    arguments.batch = arguments.batch or (BATCH if gpu else 1024)
    arguments.config = arguments.config.resolve()
    arguments.out = arguments.out or ROOT / "runs/protocol" / arguments.set
    arguments.data = arguments.data or DEBIAN.get(arguments.set)
    names = arguments.classifiers or (["protocol"] if gpu else [SMALL])
    arguments.classifiers = (SMALL, *DPIMAGEBENCH) if "protocol" in names else tuple(dict.fromkeys(names))
    for text in arguments.settings:
        if text.startswith(("mechanism.target_epsilon=", "mechanism.noise_multiplier=")):
            parser.error(f"--settings {text}: rows are named by the epsilon that was asked for; say --epsilon")
    if arguments.data is None:
        parser.error("--set mnist needs --data FOLDER")
    if not arguments.sfumato.exists():
        parser.error(f"no program at {arguments.sfumato}; run scripts/build")
    return arguments


def main() -> int:
    def stop(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    try:
        Protocol(parsed()).all()
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
