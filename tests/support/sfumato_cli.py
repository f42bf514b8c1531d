"""What the checks of the whole program share: running it, small data, small configurations.

A check is a script that takes --sfumato PROGRAM and --work FOLDER (empty, its own), exits with 0 if
all is well, 77 with a reason if it cannot run here, and anything else if it failed.
"""
import argparse
import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = 77

# Exit statuses of the program.
USAGE, DATA, PRIVACY, DEVICE, INTERRUPTED = 2, 3, 4, 5, 130


class CheckFailed(Exception):
    """A check that did not hold; the message says what was expected."""


def check(condition, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def run_import(*arguments, expect=0) -> str:
    """What scripts/import-checkpoint says."""
    done = subprocess.run([sys.executable, ROOT / "scripts/import-checkpoint", *map(str, arguments)],
                          capture_output=True, text=True)
    check(done.returncode == expect, f"import-checkpoint {arguments} ended with {done.returncode}:\n"
          f"{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Sfumato:
    """The program under test, run from the top of the checkout."""

    def __init__(self, binary: Path):
        self.binary = binary
        self._started: list[subprocess.Popen] = []

    def _command(self, arguments) -> list[str]:
        return [str(self.binary), *map(str, arguments)]

    def run(self, *arguments, expect: int = 0, timeout: float = 300, **options):
        """Runs to the end; CheckFailed unless it ends with status `expect`."""
        done = subprocess.run(self._command(arguments), cwd=ROOT, capture_output=True, text=True,
                              timeout=timeout, **options)
        check(done.returncode == expect,
              f"`sfumato {' '.join(map(str, arguments))}` ended with {done.returncode}, "
              f"expected {expect}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done

    def json(self, *arguments, **options):
        """The JSON that a subcommand prints with --json."""
        done = self.run(*arguments, "--json", **options)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise CheckFailed(f"{arguments} --json printed no JSON ({error}):\n{done.stdout}")

    def start(self, *arguments, log: Path, environment: dict[str, str] | None = None):
        """Starts in the background; output is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(self._command(arguments), cwd=ROOT, env=environment, stdout=output,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self._started.append(process)
        return process

    def kill_started(self) -> None:
        """Ends what start() left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()


def write_idx(folder: Path, per_class: int, classes: int = 10, size: int = 16,
              seed: int = 7) -> tuple[Path, Path]:
    """A small IDX set of distinct images: class c has a bright bar whose place depends on c."""
    draw = random.Random(seed)
    pixels, labels = bytearray(), bytearray()
    for _ in range(per_class):
        for label in range(classes):
            for y in range(size):
                for x in range(size):
                    bar = abs((y if label % 2 else x) - (label * size) // classes) < 2
                    pixels.append((200 if bar else 20) + draw.randrange(40))
            labels.append(label)
    count = per_class * classes
    images_path, labels_path = folder / "images-idx3-ubyte.gz", folder / "labels-idx1-ubyte.gz"
    with gzip.open(images_path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">IIII", 0x803, count, size, size) + pixels)
    with gzip.open(labels_path, "wb") as file:
        file.write(struct.pack(">II", 0x801, count) + labels)
    return images_path, labels_path


def prepare_small_store(sfumato: Sfumato, work: Path, *overrides: str, per_class: int = 40) -> Path:
    """A record store of generated images that fits configs/smoke.yaml."""
    images, labels = write_idx(work, per_class)
    store = work / "store"
    sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                f"data.labels={labels}", f"data.store={store}", *overrides)
    return store


def smoke_arguments(store: Path, run: Path, *overrides: str) -> list[str]:
    """Arguments of train for a run on the small store: about 32 of its 400 records a step."""
    return ["--config", "configs/smoke.yaml", f"data.store={store}", f"run.dir={run}",
            "mechanism.sample_rate=0.08", "mechanism.expected_batch_size=32",
            "performance.threads=1", *overrides]


def ledger_charges(run: Path) -> list[dict]:
    """What a run's ledger charges, read without the program; a torn last line is left out."""
    charges = []
    path = run / "ledger.jsonl"
    if not path.exists():
        return charges
    for line in path.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        if entry["kind"] in ("charge", "recovered"):
            charges.append(entry)
    return charges


def metric_lines(run: Path) -> list[dict]:
    """The whole lines of a run's private metrics: with run.log_every=1, one for each step that
    counts, in order."""
    path = run / "private" / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


def steps_taken(run: Path) -> dict[str, int]:
    """Every line of metrics that a run ever wrote and the step in it: also of steps that were lost."""
    lines = {}
    for name in ("metrics_lost.jsonl", "metrics.jsonl"):
        path = run / "private" / name
        text = path.read_text() if path.exists() else ""
        lines |= {line: json.loads(line)["step"] for line in text.split("\n")[:-1] if line}
    return lines


def complete_checkpoints(run: Path) -> list[int]:
    """Steps of the checkpoints that carry DONE, in ascending order."""
    folder = run / "private" / "checkpoints"
    return sorted(int(done.parent.name.removeprefix("step_"))
                  for done in folder.glob("step_*/DONE"))


def main(run_check, description: str, extra_arguments=lambda parser: None) -> None:
    """Runs run_check(sfumato, work, arguments) as a script and exits with its outcome."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--work", type=Path, help="empty folder; default: a temporary one")
    extra_arguments(parser)
    arguments = parser.parse_args()
    if not arguments.sfumato.exists():
        sys.exit(f"no program at {arguments.sfumato}; run scripts/build")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="sfumato-check-"))
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sfumato = Sfumato(arguments.sfumato.resolve())
    try:
        reason = run_check(sfumato, work.resolve(), arguments)
    except CheckFailed as failure:
        sys.exit(f"FAILED: {failure}\n(files are in {work})")
    finally:
        sfumato.kill_started()
    if not arguments.work:
        shutil.rmtree(work, ignore_errors=True)
    if reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    print("ok")
