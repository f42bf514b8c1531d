#!/usr/bin/env python3
"""The emulated kernels' tests notice the faults of tests/emulation/faults/*.json.

A fault is one change to a kernel. The changed copy is compiled with the flags of the emulated kernels,
linked before them into a test_emulation of its own, and the tests that `filter` names must fail. A
fault that does not compile, or never ends, proves nothing and is an error of the list. All faults are
applied; built and run are those of noise and norms and the first of each file, --all of them (three times
as long), or those whose file, kernel or description contains one of the names:

    tests/system/emulation_faults.py --all
    tests/system/emulation_faults.py chacha
"""
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, CheckFailed, check, main

JOBS = 2
COMPILE_TIMEOUT_S = 300
TEST_TIMEOUT_S = 120
# What a claim of epsilon rests on: every fault of these lists is run.
NOISE_AND_NORMS = ("chacha_gaussian", "clip_factors", "private_update")


@dataclass(frozen=True)
class Fault:
    list: str
    file: str
    before: str
    after: str
    filter: str
    what: str
    compile: str | None

    def __str__(self) -> str:
        return f"{self.list}: {self.what}"


def read_faults() -> list[Fault]:
    faults = []
    for path in sorted((ROOT / "tests/emulation/faults").glob("*.json")):
        for entry in json.loads(path.read_text()):
            known = {"file", "from", "to", "filter", "what", "compile"}
            check(known - {"compile"} <= set(entry) <= known,
                  f"{path.name}: an entry has {sorted(entry)}, not {sorted(known)}")
            faults.append(Fault(path.stem, entry["file"], entry["from"], entry["to"],
                                entry["filter"], entry["what"], entry.get("compile")))
    return faults


def includes(path: Path) -> set[str]:
    """Headers of kernels/ that a file includes, through others too."""
    found, open_files = set(), [path]
    while open_files:
        for name in re.findall(r'#include "(kernels/[^"]+)"', open_files.pop().read_text()):
            if name not in found and (ROOT / name).exists():
                found.add(name)
                open_files.append(ROOT / name)
    return found


def sources_of(fault: Fault) -> list[str]:
    """The .cu files that the fault changes."""
    if fault.compile:
        check(fault.compile == fault.file or fault.file in includes(ROOT / fault.compile),
              f"{fault}: {fault.compile} does not include {fault.file}")
        return [fault.compile]
    if fault.file.endswith(".cu"):
        return [fault.file]
    users = [f"kernels/{path.name}" for path in sorted((ROOT / "kernels").glob("*.cu"))
             if fault.file in includes(path)]
    check(users, f"{fault}: no kernel includes {fault.file}")
    return users


def check_the_list(faults: list[Fault]) -> None:
    """Every fault applies."""
    for fault in faults:
        check((ROOT / fault.file).exists(), f"{fault}: no file {fault.file}")
        count = (ROOT / fault.file).read_text().count(fault.before)
        check(count == 1, f"{fault}: 'from' is found {count} times in {fault.file}")
        check(fault.before != fault.after, f"{fault}: 'to' changes nothing")


def check_every_kernel_has_one(faults: list[Fault]) -> None:
    covered = {source for fault in faults for source in sources_of(fault)}
    kernels = {f"kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu")
               if "__global__" in path.read_text()}
    check(kernels <= covered, f"no fault for {sorted(kernels - covered)}")


def usual(faults: list[Fault]) -> list[Fault]:
    first_of_each_file = {fault.file: fault for fault in reversed(faults)}.values()
    return [fault for fault in faults if fault.list in NOISE_AND_NORMS or fault in first_of_each_file]


class Build:
    """The build folder that the program under test comes from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.test = folder / "test_emulation"
        check(self.test.exists(), f"no {self.test}; run scripts/build")
        commands = json.loads((folder / "compile_commands.json").read_text())
        self._compile = {str(Path(entry["file"]).relative_to(ROOT)): shlex.split(entry["command"])
                         for entry in commands if "-DSFUMATO_EMULATION" in entry["command"]
                         and Path(entry["file"]).is_relative_to(ROOT)}
        listed = subprocess.run(["ninja", "-C", folder, "-t", "commands", "test_emulation"],
                                capture_output=True, text=True, check=True).stdout
        link = listed.strip().splitlines()[-1]
        self._link = shlex.split(link.removeprefix(": && ").removesuffix(" && :"))
        check("-o" in self._link and "test_emulation" in self._link, f"not a link command: {link}")

    def compile_command(self, source: str, copies: Path, out: Path) -> list[str]:
        """Headers below `copies` come before those of the checkout."""
        check(source in self._compile, f"{self.folder} does not emulate {source}")
        command, kept = iter(self._compile[source]), []
        for word in command:
            if word in ("-o", "-c", "-MT", "-MF"):
                next(command)
            elif word != "-MD":
                kept.append(word)
        copy = copies / source
        return [*kept, "-w", "-iquote", str(copies), "-o", str(out), "-c",
                str(copy if copy.exists() else ROOT / source)]

    def link_command(self, objects: list[Path], out: Path) -> list[str]:
        """The changed objects come first, so that what they define is not taken from the archive."""
        words = list(self._link)
        first = next(i for i, word in enumerate(words) if word.endswith(".o"))
        words[words.index("-o") + 1] = str(out)
        return [*words[:first], *map(str, objects), *words[first:]]


def run(command: list[str], what: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True,
                          timeout=COMPILE_TIMEOUT_S)
    check(done.returncode == 0, f"{what}\n{done.stderr[-3000:]}")


def outcome(fault: Fault, build: Build, work: Path) -> str:
    """CAUGHT, SURVIVED or what went wrong."""
    copy = work / fault.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / fault.file).read_text().replace(fault.before, fault.after))
    objects = []
    try:
        for source in sources_of(fault):
            objects.append(work / (Path(source).name + ".o"))
            run(build.compile_command(source, work, objects[-1]), f"{source} does not compile",
                build.folder)
        run(build.link_command(objects, work / "test"), "does not link", build.folder)
        done = subprocess.run([work / "test", f"--gtest_filter={fault.filter}",
                               "--gtest_fail_fast", "--gtest_brief=1"],
                              capture_output=True, timeout=TEST_TIMEOUT_S)
        (work / "test").unlink()
    except CheckFailed as failure:
        return f"BROKEN: {failure}"
    except subprocess.TimeoutExpired:
        return "BROKEN: no end"
    return "CAUGHT" if done.returncode != 0 else "SURVIVED"


def check_without_faults(faults: list[Fault], build: Build) -> None:
    filters = sorted({fault.filter for fault in faults})
    for name in filters:
        listed = subprocess.run([build.test, "--gtest_list_tests", f"--gtest_filter={name}"],
                                capture_output=True, text=True).stdout
        check("\n  " in listed, f"no test is named {name}")
    done = subprocess.run([build.test, f"--gtest_filter={':'.join(filters)}", "--gtest_brief=1"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"tests fail without any fault:\n{done.stdout[-3000:]}")


def emulation_faults(sfumato, work: Path, arguments):
    faults = read_faults()
    check_every_kernel_has_one(faults)
    check_the_list(faults)
    if arguments.names:
        wanted = [fault for fault in faults
                  if any(name in f"{fault.file} {fault}" for name in arguments.names)]
        check(wanted, f"no fault matches {arguments.names}")
    else:
        wanted = faults if arguments.all else usual(faults)
    build = Build(sfumato.binary.parent)
    check_without_faults(wanted, build)
    # As scripts/build: objects of an earlier check are found in the compiler cache.
    os.environ.update(CCACHE_BASEDIR=str(ROOT), CCACHE_NOHASHDIR="1")
    with ThreadPoolExecutor(JOBS) as pool:
        outcomes = list(pool.map(lambda pair: outcome(pair[1], build, work / f"{pair[0]:03}"),
                                 enumerate(wanted)))
    for fault, result in zip(wanted, outcomes):
        print(f"{result.splitlines()[0]:8} {fault}")
    missed = [f"{fault}\n  {result}" for fault, result in zip(wanted, outcomes)
              if result != "CAUGHT"]
    check(not missed, f"{len(missed)} of {len(wanted)} faults not caught:\n" + "\n".join(missed))


def add_arguments(parser) -> None:
    parser.add_argument("--all", action="store_true", help="every fault, not the usual ones alone")
    parser.add_argument("names", nargs="*", help="faults whose file, kernel or description has one")


if __name__ == "__main__":
    main(emulation_faults, __doc__.splitlines()[0], add_arguments)
