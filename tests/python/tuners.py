#!/usr/bin/env python3
"""Tuners of others drive the program as examples/ says: Optuna by ask and tell, Hydra's launcher, and the command line
that a W&B agent builds from examples/wandb.yaml. Optuna and Hydra come from PyPI into an environment of this check.
"""
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, check, main, metric_lines, prepare_small_store
from sweep_files import write_sweep

STEPS = 3
PACKAGES = ("optuna==4.*", "hydra-core==1.3.*")


def make_environment(work: Path) -> Path | None:
    """Its Python; nothing where PyPI is out of reach."""
    environment = work / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin/python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
                          capture_output=True, text=True)
    return python if done.returncode == 0 else None


def call(*command, work: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=work, capture_output=True, text=True, timeout=600)
    check(done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr[-3000:]}")
    return done.stdout


def check_optuna(python: Path, sfumato, base: Path, work: Path) -> None:
    said = call(python, ROOT / "examples/optuna_ask_tell.py", "--program", sfumato.binary, "--trials", 2, "--runs",
                work / "optuna", "--config", base, work=work)
    check("best:" in said, f"said {said}")
    for trial in ("000", "001"):
        check(len(metric_lines(work / "optuna" / trial)) == STEPS, f"trial {trial}")


def check_hydra(python: Path, sfumato, base: Path, work: Path) -> None:
    call(python, ROOT / "examples/hydra/train.py", "--multirun", "optimizer.learning_rate=1e-3,2e-3",
         f"program={sfumato.binary}", f"base={base}", f"hydra.sweep.dir={work / 'hydra'}", work=work)
    import yaml
    rates = set()
    for run in sorted((work / "hydra").glob("*/run")):
        check(len(metric_lines(run)) == STEPS, f"{run}")
        rates.add(float(yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["learning_rate"]))
    check(rates == {1e-3, 2e-3}, f"rates {rates}")


def check_agent(sfumato, base: Path, work: Path) -> None:
    """As `wandb agent` does: ${program}, then --name=value in place of ${args}."""
    import yaml
    sweep = yaml.safe_load((ROOT / "examples/wandb.yaml").read_text())
    chosen = {name: each["values"][-1] for name, each in sweep["parameters"].items()}
    arguments = [f"--{name}={value}" for name, value in chosen.items()]
    words = []
    for word in sweep["command"]:
        words += {"${program}": [str(sfumato.binary)], "${args}": arguments}.get(word, [word])
    words[words.index("--config") + 1] = str(base)
    call(*words, f"--run.dir={work / 'agent'}", work=work)
    text = (work / "agent/config.yaml").read_text()
    check("learning_rate: 0.002  # from command line" in text and "draws: 4  # from command line" in text, text)


def check_tuners(sfumato, work: Path, _):
    os.environ["OMP_NUM_THREADS"] = "1"
    base = write_sweep(work, prepare_small_store(sfumato, work), "tuned", "", STEPS).with_name("tuned-base.yaml")
    check_agent(sfumato, base, work)
    python = make_environment(work)
    if python is None:
        return "PyPI is out of reach: " + " and ".join(PACKAGES) + " were not tried"
    check_optuna(python, sfumato, base, work)
    check_hydra(python, sfumato, base, work)


if __name__ == "__main__":
    main(check_tuners, __doc__.splitlines()[0])
