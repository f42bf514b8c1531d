#!/usr/bin/env python3
"""Hydra composes the settings, and its launcher calls `sfumato train` with them. PUBLIC images for --multirun.

    python examples/hydra/train.py --multirun optimizer.learning_rate=1e-3,2e-3 diffusion.draws=1,4
"""
import json
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf


def overrides(settings: dict, path: str = "") -> list[str]:
    words = []
    for name, value in settings.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            words += overrides(value, key)
        else:
            words.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return words


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config: DictConfig) -> None:
    settings = OmegaConf.to_container(config, resolve=True)
    program, base = settings.pop("program"), to_absolute_path(settings.pop("base"))
    run = Path(HydraConfig.get().runtime.output_dir) / "run"
    done = subprocess.run([program, "train", "--resume-or-start", "--config", base, *overrides(settings),
                           f"run.dir={run}"])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
