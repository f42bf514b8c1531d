"""One call of verify-gpu: where its files are, what is known of the machine, what goes to OUT."""
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from runner import Unmet, write_atomically

ROOT = Path(__file__).resolve().parents[2]
PRETENDED = "(pretended)"  # in the name of a device that executes no kernels
MOST_FILES, MOST_BYTES = 8, 16 << 20
KEPT_OF_A_LOG = 4 << 20


@dataclass
class Call:
    kind: str  # correct or speed
    archive: Path
    out: Path
    work: Path
    memory: Path  # temporary files of the programs, in memory where the machine has such a folder
    python: str
    quick: bool = False
    gpu: str = ""
    driver: str = ""
    kept: dict = field(default_factory=dict)  # name in run.tar.xz -> file
    left_out: list = field(default_factory=list)
    limit_s: float = 0  # of the step that is about to start

    @property
    def dry_run(self) -> bool:
        return PRETENDED in self.gpu

    @property
    def patience(self) -> int:
        """How many times a step's limit it may take: nothing is learned from the time of a dry run, which
        runs on the processor, beside whatever else it has to do."""
        return 4 if self.dry_run else 1

    def dressed(self, headline: str) -> str:
        return f"dry run: {headline}" if self.dry_run else headline

    def few(self, many: int, quick: int) -> int:
        return quick if self.quick else many

    @property
    def bundle(self) -> Path:
        folders = [path.parent for path in (self.work / "bundle").glob("*/bundle.txt")]
        if len(folders) != 1:
            raise Unmet(f"no bundle was unpacked from {self.archive}")
        return folders[0]

    def facts_of_bundle(self) -> dict:
        try:
            lines = (self.bundle / "bundle.txt").read_text().splitlines()
        except Unmet:
            return {}
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def program(self, name: str, *arguments) -> list:
        return [self.bundle / "run", name, *arguments]

    def sfumato(self, *arguments) -> list:
        return [self.bundle / "sfumato", *arguments]

    def environment(self) -> dict:
        # Where NVIDIA's installers put compute-sanitizer and ncu, which not every PATH names.
        tools = ["/usr/local/cuda/bin", *sorted(glob("/opt/nvidia/nsight-compute/*/"), reverse=True)]
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *tools])
        return {**os.environ, "PATH": path, "TMPDIR": str(self.memory), "SFUMATO_PYTHON": self.python,
                "SFUMATO_CACHE_DIR": str(self.work / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def facts(self) -> dict:
        """What summary.json says besides the steps."""
        bundle = self.facts_of_bundle()
        return {"call": self.kind, "dry_run": self.dry_run, "quick": self.quick,
                "version": bundle.get("version"), "commit": bundle.get("commit"),
                "gpu": self.gpu or None, "driver": self.driver or None, "left_out": self.left_out}

    def put(self, name: str, key: str, value) -> None:
        """Adds an entry to the JSON object OUT/name."""
        path = self.out / name
        content = json.loads(path.read_text()) if path.exists() else {}
        content[key] = value
        self.write(name, content)

    def write(self, name: str, content) -> None:
        write_atomically(self.out / name, json.dumps(content, indent=1) + "\n")

    def pack_sanitizer_logs(self) -> None:
        logs = sorted((self.work / "sanitize").glob("*.log"))
        with lzma.open(self.out / "sanitize.log.xz", "wb", preset=1) as packed:
            for log in logs:
                packed.write(f"===== {log.stem}\n".encode() + log.read_bytes())

    def pack_run(self) -> None:
        """Logs of all steps, and what steps named; a long log loses its beginning."""
        with tarfile.open(self.out / "run.tar.xz", "w:xz", preset=1) as packed:
            logs = self.work / "logs"
            for log in sorted(logs.iterdir()) if logs.is_dir() else []:
                if log.stat().st_size > KEPT_OF_A_LOG:
                    with log.open("rb+") as file:
                        file.seek(-KEPT_OF_A_LOG, os.SEEK_END)
                        end = file.read()
                    log.write_bytes(end)
                packed.add(log, f"logs/{log.name}")
            for name, file in self.kept.items():
                if file.is_file():
                    packed.add(file, name)

    def fit(self) -> None:
        """Only so many files of such a size can be carried away."""
        for path in sorted(self.out.iterdir()):
            if path.stat().st_size > MOST_BYTES:
                self.left_out.append(f"{path.name}: {path.stat().st_size} bytes")
                path.unlink()
        if len(list(self.out.iterdir())) > MOST_FILES:
            self.left_out.append(f"more than {MOST_FILES} files in {self.out}")

    def clean(self) -> None:
        for folder in (self.work, self.memory):
            shutil.rmtree(folder, ignore_errors=True)


def make_call(kind: str, archive: Path, out: Path) -> Call:
    work = Path(tempfile.mkdtemp(prefix="verify-gpu-"))
    in_memory = Path("/dev/shm")
    if in_memory.is_dir() and os.access(in_memory, os.W_OK):
        memory = Path(tempfile.mkdtemp(prefix="verify-gpu-", dir=in_memory))
    else:
        memory = work / "tmp"
    for folder in (memory, *(work / name for name in ("bundle", "logs", "cache", "run"))):
        folder.mkdir(exist_ok=True)
    return Call(kind, archive, out, work, memory, os.environ["SFUMATO_PYTHON"],
                quick=bool(os.environ.get("VERIFY_GPU_QUICK")))
