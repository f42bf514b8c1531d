#!/usr/bin/env python3
"""A wheel of the given program's build, installed in a fresh environment: training and sampling on the
smallest configuration, the corpus and its card in Python, and what is said where torch is missing.

torch is not installed twice: its folder follows the environment's own on its path.
"""
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import INTERRUPTED, ROOT, USAGE, check, complete_checkpoints, main, write_idx

LIMIT_BYTES = 60_000_000
STEPS = 12
LIBRARIES = """
import json, sfumato
corpus = sfumato.load_corpus({corpus!r})
print(json.dumps([[str(path) for path in corpus.paths], corpus.labels, corpus.class_names,
                  corpus.card == sfumato.privacy_card({run!r}), sfumato.privacy_card({run!r}),
                  sfumato.__version__, str(sfumato.share)]))
"""


def run(*command, expect: int = 0, cwd: Path = ROOT, **environment) -> subprocess.CompletedProcess:
    """Nothing of the caller's environment reaches the command."""
    environment = {"PATH": "/usr/bin:/bin", **{name: str(value) for name, value in environment.items()}}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, text=True,
                          capture_output=True, timeout=600)
    check(done.returncode == expect, f"{command} ended with {done.returncode}, expected {expect}\n"
          f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def make_wheel(sfumato, work: Path) -> Path:
    done = subprocess.run([ROOT / "scripts/wheel", "--build-folder", sfumato.binary.parent, "--output", work],
                          env={**os.environ, "SFUMATO_PYTHON": sys.executable}, capture_output=True, text=True)
    check(done.returncode == 0, f"scripts/wheel failed:\n{done.stdout}{done.stderr}")
    wheel, = work.glob("*.whl")
    check(re.fullmatch(r"sfumato-[\d.]+-py3-none-manylinux_2_\d+_x86_64\.whl", wheel.name), wheel.name)
    size = wheel.stat().st_size
    check(1_000_000 < size <= LIMIT_BYTES, f"the wheel has {size} bytes")
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    return wheel


def check_content(wheel: Path, sfumato) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        facts = archive.read("sfumato/bundle.txt").decode()
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    expected = {"sfumato/bin/sfumato", "sfumato/bin/sfumato-torch", "sfumato/bin/sfumato-lab",
                "sfumato/launcher.py", "sfumato/configs/smoke.yaml", "sfumato/licenses/packages.txt"}
    if sfumato.binary.with_name("libsfumato_cuda.so").exists():
        expected.add("sfumato/lib/libsfumato_cuda.so")
    check(expected <= names, f"the wheel lacks {expected - names}")
    torch = [name for name in names if re.search(r"lib(torch|c10|gomp|cudart|stdc\+\+|c\.so)", name)]
    check(not torch, f"the wheel brings what torch or the system has: {torch}")
    needed = re.search(r"^torch=(.+)$", facts, re.M)[1]
    check(f"Requires-Dist: torch=={needed}" in metadata.splitlines(), metadata)
    check(f"\nVersion: {re.search('^version=(.+)$', facts, re.M)[1]}\n" in metadata, metadata)


def install(wheel: Path, folder: Path, torch_site: Path) -> Path:
    """A fresh environment's Python; pip finds the torch that the wheel asks for on its path."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    (Path(site) / "torch.pth").write_text(f"{torch_site}\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
        "--disable-pip-version-check", wheel)
    return python


def check_runs(python: Path, work: Path) -> Path:
    """From images to a corpus through both ways to start; SIGTERM reaches the program."""
    module, command = (python, "-m", "sfumato"), (python.with_name("sfumato"),)
    check(run(*module, "--version").stdout == run(*command, "--version").stdout, "two versions")
    said = run(*module, "--help").stdout
    check("Usage: python -m sfumato " in said, said)
    images, labels = write_idx(work, 40)
    store, trained, corpus = work / "store", work / "run", work / "corpus"
    common = ("--config", "configs/smoke.yaml", f"data.store={store}")
    run(*command, "prepare", *common, f"data.source={images}", f"data.labels={labels}")
    small = (*common, f"run.dir={trained}", f"mechanism.steps={STEPS}", "mechanism.sample_rate=0.08",
             "mechanism.expected_batch_size=32", "performance.threads=1")
    stopped_with_a_checkpoint(module, small, trained)
    said = run(*module, "train", *small, "--resume", "--json").stdout
    check(json.loads(said)["steps"] == STEPS, said)
    run(*command, "sample", trained, "--out", corpus, "--count", "20", "sample.steps=5")
    return corpus


def stopped_with_a_checkpoint(module, arguments, trained: Path) -> None:
    """The launcher's process is the program's: what is sent to it stops training at a step."""
    process = subprocess.Popen([*map(str, module), "train", *arguments], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = ""
    for line in process.stdout:
        said += line
        if (trained / "ledger.jsonl").exists():
            break
    process.terminate()
    said += process.communicate(timeout=120)[0]
    check(process.returncode == INTERRUPTED, f"ended with {process.returncode}\n{said}")
    check(complete_checkpoints(trained), f"no checkpoint\n{said}")


def check_library(python: Path, work: Path, corpus: Path) -> None:
    source = LIBRARIES.format(corpus=str(corpus), run=str(work / "run"))
    paths, labels, names, same, card, said_version, share = json.loads(run(python, "-c", source).stdout)
    check(len(paths) == 20 == len(set(paths)) and all(Path(path).is_file() for path in paths), f"{paths}")
    for path, label in zip(paths, labels):
        check(Path(path).parent.name == str(label), f"{path} has label {label}")
    check(sorted(labels) == sorted(list(range(10)) * 2), f"{labels}")
    check(names == [str(number) for number in range(10)], f"{names}")
    written = json.loads((work / "run/release/privacy_card.json").read_text())
    check(card == written and 0 < card["epsilon"] <= 10, f"{card}")
    check(same, "the corpus' card is another than the run's")
    check(re.fullmatch(r"[\d.]+", said_version), said_version)
    check((Path(share) / "models/public").is_dir(), share)
    (corpus / "metadata.csv").rename(corpus / "metadata.lost")
    for call, message in ((f"load_corpus({str(corpus)!r})", "no metadata.csv"),
                          (f"privacy_card({str(work / 'store')!r})", "no privacy card")):
        said = run(python, "-c", f"import sfumato; sfumato.{call}", expect=1).stderr
        check(message in said and "FileNotFoundError" in said, said)


def check_torch_is_found(python: Path, work: Path) -> None:
    """What is said where torch is missing or another; a folder of its name is not the package."""
    pth = next((python.parents[1] / "lib").glob("python3*/site-packages/torch.pth"))
    site = Path(pth.read_text().strip())
    (work / "elsewhere/torch").mkdir(parents=True)
    (work / "elsewhere/torch/__init__.py").touch()
    run(python, "-m", "sfumato", "--version", cwd=work / "elsewhere")
    pth.unlink()
    said = run(python, "-m", "sfumato", "--version", expect=USAGE, cwd=work / "elsewhere").stderr
    check("has no torch: pip install torch==2.11.0" in said, said)
    run(python, "-m", "sfumato", "--version", SFUMATO_TORCH_DIR=site / "torch")
    other = work / "other/lib"
    other.mkdir(parents=True)
    said = run(python, "-m", "sfumato", expect=USAGE, SFUMATO_TORCH_DIR=other.parent).stderr
    check("no lib/libtorch_cpu.so" in said, said)
    (other / "libtorch_cpu.so").touch()
    (other.parent / "version.py").write_text("__version__ = '2.10.1+cu128'\n")
    said = run(python, "-m", "sfumato", expect=USAGE, SFUMATO_TORCH_DIR=other.parent).stderr
    check("is 2.10.1, and 2.11.0 is needed" in said, said)


def check_wheel(sfumato, work: Path, _):
    torch = importlib.util.find_spec("torch")
    try:
        version("scikit-build-core")
    except PackageNotFoundError:
        return "this Python has no scikit-build-core (tests/python/requirements.txt)"
    if torch is None or torch.origin is None:
        return "this Python has no torch"
    wheel = make_wheel(sfumato, work)
    check_content(wheel, sfumato)
    python = install(wheel, work / "fresh", Path(torch.origin).parents[1])
    corpus = check_runs(python, work)
    check_library(python, work, corpus)
    check_torch_is_found(python, work)


if __name__ == "__main__":
    main(check_wheel, __doc__.splitlines()[0])
