#!/usr/bin/env python3
"""What needs no LibTorch starts without it; for all else the program becomes another beside it."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, DEVICE, USAGE, Sfumato, check, main

# What takes long to load, and what only other subcommands need.
HEAVY = re.compile(r"lib(torch|c10|gomp|opencv|cuda|cu)\w*", re.I)
ACCOUNT = ("account", "--phase", "0.01:1.1:100", "--delta", "1e-5", "--accountant", "rdp", "--json")
CALIBRATE = ("calibrate", "--target-epsilon", "3", "--delta", "1e-5", "--sample-rate", "0.01",
             "--steps", "100", "--accountant", "rdp", "--json")


def check_libraries(sfumato) -> None:
    said = subprocess.run(["ldd", sfumato.binary], capture_output=True, text=True, check=True).stdout
    heavy = sorted(set(match[0] for match in HEAVY.finditer(said)))
    check(not heavy, f"{sfumato.binary.name} loads {heavy}:\n{said}")


def check_alone(sfumato, work: Path) -> None:
    """Without the other programs it does its own, and says what is missing for the rest."""
    (work / "alone").mkdir()
    alone = Sfumato(shutil.copy(sfumato.binary, work / "alone"))
    for arguments in (ACCOUNT, CALIBRATE, ("--version",)):
        check(alone.run(*arguments).stdout == sfumato.run(*arguments).stdout, f"{arguments}")
    said = alone.run("ledger", "verify", work / "none", expect=DATA).stderr
    check("does not exist" in said, said)
    said = alone.run("compare", work / "none", expect=USAGE).stderr
    check("is no run directory" in said, said)
    said = alone.run("--help").stdout
    served = {"sfumato-torch": ("init", "prepare", "train", "sample", "release"),
              "sfumato-lab": ("plan", "probe", "inspect", "doctor", "bench", "evaluate",
                              "audit")}
    for program, names in served.items():
        for name in names:
            check(f"\n  {name} " in said, said)
            missing = alone.run(name, "--help", expect=DEVICE).stderr
            check(f"/alone/{program}'" in missing and "scripts/build" in missing, missing)
    said = alone.run("acount", expect=USAGE).stderr
    check("did you mean 'account'?" in said, said)
    alone.run(expect=USAGE)


def check_together(sfumato, work: Path) -> None:
    """The other programs are told nothing of the first: neither in their texts nor in their status."""
    linked = work / "linked"
    linked.symlink_to(sfumato.binary)
    said = Sfumato(linked).run("--help").stdout
    check(f"Usage: {linked} " in said and "sfumato-" not in said, said)
    for name in ("train", "inspect"):
        said = Sfumato(linked).run(name, "--help").stdout
        check(f"Usage: {linked} {name} " in said, said)
    sfumato.run("train", "--config", work / "none.yaml", expect=USAGE)


def check_light_program(sfumato, work: Path, _):
    check_libraries(sfumato)
    check_alone(sfumato, work)
    check_together(sfumato, work)


if __name__ == "__main__":
    main(check_light_program, __doc__.splitlines()[0])
