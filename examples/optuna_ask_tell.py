#!/usr/bin/env python3
"""Optuna over `sfumato train`, by ask and tell, on PUBLIC images.

    optuna_ask_tell.py --trials 8 --runs runs/optuna --config configs/quickstart.yaml [section.setting=value ...]

The value of a trial is the mean loss of its last steps: an exact number of the images, which is why they must be public.
"""
import argparse
import json
import subprocess
from pathlib import Path

import optuna


def last_loss(run: Path, steps: int = 10) -> float:
    lines = (run / "private/metrics.jsonl").read_text().splitlines()[-steps:]
    losses = [json.loads(line)["loss"] for line in lines]
    return sum(losses) / len(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="sfumato")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("settings", nargs="*", help="section.setting=value for all trials")
    arguments = parser.parse_args()
    study = optuna.create_study(direction="minimize", study_name="sfumato", load_if_exists=True,
                                storage=f"sqlite:///{arguments.runs}.db")
    for _ in range(arguments.trials):
        trial = study.ask()
        run = arguments.runs / f"{trial.number:03}"
        chosen = {"optimizer.learning_rate": trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-2, log=True),
                  "diffusion.draws": trial.suggest_int("diffusion.draws", 1, 4)}
        done = subprocess.run([arguments.program, "train", "--config", arguments.config, *arguments.settings,
                               f"run.dir={run}", *(f"{key}={value}" for key, value in chosen.items())])
        if done.returncode == 130:
            break
        if done.returncode:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, last_loss(run))
    print(f"best: {study.best_params} ({study.best_value:.4f})")


if __name__ == "__main__":
    main()
