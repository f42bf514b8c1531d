#!/usr/bin/env python3
"""A bundle runs from any folder with nothing but the system's C and C++ libraries and a torch.

Packs the build of the given program, unpacks it elsewhere and runs it with an empty environment.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, USAGE, check, main

# The limit of 60 MB is for the default level; what it makes of 60 MB has 73 MB at the level used here.
LIMIT_BYTES = 73_000_000
# What may come from the system: glibc, g++'s run-time libraries, the GPU's driver.
SYSTEM = re.compile(r"(linux-vdso|ld-linux-x86-64|lib(c|m|mvec|pthread|dl|rt|util|resolv|anl)|"
                    r"libstdc\+\+|libgcc_s|libcuda)\.so(\.\d+)?$")


class Bundle:
    """An unpacked bundle; nothing of the caller's environment reaches its programs."""

    def __init__(self, folder: Path, torch: Path):
        self.folder = folder
        self.torch = torch

    def run(self, *command, expect: int = 0, cwd: Path | None = None, **environment):
        environment = {"PATH": "/usr/bin:/bin", **{name: str(value) for name, value
                                                   in environment.items()}}
        done = subprocess.run([str(part) for part in command], cwd=cwd or self.folder, text=True,
                              env=environment, capture_output=True, timeout=300)
        check(done.returncode == expect, f"{command} ended with {done.returncode}, expected "
              f"{expect}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done

    def launch(self, launcher: str, *arguments, **options) -> str:
        return self.run(self.folder / launcher, *arguments, SFUMATO_TORCH_DIR=self.torch,
                        **options).stdout


def torch_of(sfumato: Path) -> Path:
    program = sfumato.with_name("sfumato-torch")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libtorch_cpu\.so => (/\S+)", said)
    check(found, f"{program} does not find its LibTorch:\n{said}")
    return Path(found[1]).parents[1]


def make_bundle(sfumato, work: Path) -> Path:
    """Packs at the lowest level, for speed."""
    archive = work / "bundle.tar.xz"
    done = subprocess.run([ROOT / "scripts/bundle", "--build-folder", sfumato.binary.parent,
                           "--level", "0", "--output", archive], capture_output=True, text=True)
    check(done.returncode == 0, f"scripts/bundle failed:\n{done.stdout}{done.stderr}")
    size = archive.stat().st_size
    check(1_000_000 < size <= LIMIT_BYTES, f"the archive has {size} bytes")
    # As README.txt says it for machines without xz.
    subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, work / "unpacked"], check=True)
    folder, = (work / "unpacked").iterdir()
    check(re.fullmatch(r"sfumato-[\d.]+-\w+(-dirty)?-linux-x86_64", folder.name), folder.name)
    return folder


def check_programs(bundle: Bundle, sfumato) -> None:
    plain = sfumato.run("--version").stdout
    check(bundle.launch("sfumato", "--version") == plain, "the bundle is of another version")
    phase = ("account", "--phase", "0.01:1.1:1000", "--delta", "1e-5", "--json")
    check(bundle.launch("sfumato", *phase) == sfumato.run(*phase).stdout, "another epsilon")
    said = bundle.launch("sfumato", "doctor", "--config", "configs/smoke.yaml")
    check("OpenCV writes and reads PNG" in said and "conv_out.weight" in said, said)
    said = bundle.launch("run", "test_kernels", "--gtest_brief=1")
    check(re.search(r"PASSED  \] \d+ tests", said), f"test_kernels says:\n{said}")


def check_libraries(bundle: Bundle) -> None:
    """Every library is the bundle's, LibTorch's or of the few that every system has."""
    ours = [*(bundle.folder / "bin").iterdir(), *(bundle.folder / "lib").iterdir()]
    beside_torch = (bundle.torch, bundle.torch.parent / "nvidia")
    for name in {file.name for file in ours}:
        check(not SYSTEM.match(name), f"{name} must be the system's and is bundled")
    said = bundle.launch("run", "--", "ldd", *ours)
    for line in said.splitlines():
        found = re.match(r"\s+(\S+) => (not found|/\S+)", line)
        if not found or SYSTEM.match(found[1]):
            continue
        folders = (bundle.folder / "lib", *beside_torch)
        check(any(Path(os.path.normpath(found[2])).is_relative_to(folder) for folder in folders),
              f"not in the bundle nor beside LibTorch:{line}")
    for file in ours:
        dynamic = subprocess.run(["readelf", "-d", file], capture_output=True, text=True).stdout
        check("/" not in "".join(re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic)) or
              not file.name.startswith(("sfumato", "test_", "bench_", "libsfumato")),
              f"{file.name} looks for libraries in a folder of this machine:\n{dynamic}")


def check_licences(bundle: Bundle) -> None:
    folder = bundle.folder / "licenses"
    rows = [line.split() for line in (folder / "packages.txt").read_text().splitlines()[1:]]
    named = {row[0] for row in rows}
    shipped = {file.name for file in (bundle.folder / "lib").iterdir()
               if not file.name.startswith(("libsfumato_cuda.so", "libgdal.so."))}
    check(shipped == named, f"libraries and licenses/packages.txt differ in {shipped ^ named}")
    for library, package, version, source in rows:
        text = folder / f"{package}.txt"
        check(text.is_file() and text.stat().st_size > 100, f"{library}: no {text.name}")
        check(version[0].isdigit() and "=" in source, f"{library}: no version or source")


def check_stand_in(bundle: Bundle) -> None:
    """OpenCV's reader of maps is a stand-in: small, and none of what the real one needs is there."""
    for file in (bundle.folder / "lib").glob("libgdal.so.*"):
        check(file.stat().st_size < 100_000, f"{file.name} is the real one")
    lost = [name for name in ("libpoppler*", "libhdf5*", "libx265*", "libpq.*")
            if list((bundle.folder / "lib").glob(name))]
    check(not lost, f"libraries of GDAL's: {lost}")


def check_torch_is_found(bundle: Bundle, work: Path) -> None:
    """Through a Python, which must not see the bundle's libraries; and what is said otherwise."""
    python = work / "python"
    python.write_text(f'#!/bin/sh\necho "${{LD_LIBRARY_PATH-unset}}" > {work}/seen\n'
                      f'PYTHONPATH={bundle.torch.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    elsewhere = work / "elsewhere"
    (elsewhere / "torch").mkdir(parents=True)
    (elsewhere / "torch/__init__.py").touch()  # where the caller is; not the torch of his Python
    program = bundle.folder / "sfumato"
    if (bundle.torch / "__init__.py").exists():
        bundle.run(program, "--version", cwd=elsewhere, SFUMATO_PYTHON=python)
        check((work / "seen").read_text() == "unset\n", "Python runs with the bundle's libraries")
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    said = bundle.run(program, "--version", expect=USAGE, SFUMATO_PYTHON=python).stderr
    check("has no torch: pip install torch==2.11.0" in said, said)
    said = bundle.run(program, "--version", expect=USAGE, SFUMATO_PYTHON=work / "none").stderr
    check("there is no" in said, said)
    said = bundle.run(program, "--version", expect=USAGE, SFUMATO_TORCH_DIR=elsewhere).stderr
    check("no lib/libtorch_cpu.so" in said, said)


def check_versions(bundle: Bundle, work: Path) -> None:
    other = work / "other"
    (other / "lib").mkdir(parents=True)
    (other / "lib/libtorch_cpu.so").touch()
    program = bundle.folder / "sfumato"
    for name, text in (("build-version", "2.10.0+cu130\n"), ("version.py", "__version__ = '2.11.1'\n")):
        (other / name).write_text(text)
        said = bundle.run(program, "--version", expect=USAGE, SFUMATO_TORCH_DIR=other).stderr
        wrong = re.search(r"2\.\d+\.\d+", text)[0]
        check(f"is {wrong}, and 2.11.0 is needed" in said, said)
    facts = bundle.folder / "bundle.txt"
    text = facts.read_text()
    needed = re.search(r"^glibc=(2\.\d+)$", text, re.M)
    check(needed and needed[1] in (bundle.folder / "README.txt").read_text(), text)
    facts.write_text(text.replace(needed[0], "glibc=2.999"))
    said = bundle.run(program, "--version", expect=USAGE, SFUMATO_TORCH_DIR=bundle.torch).stderr
    check("2.999 or newer is needed" in said, said)
    facts.write_text(text)


def check_moving(bundle: Bundle, work: Path) -> None:
    (work / "another place").mkdir()
    moved = Bundle(work / "another place/sfumato", bundle.torch)
    shutil.move(bundle.folder, moved.folder)
    (work / "link").symlink_to(moved.folder / "sfumato")
    said = moved.run(work / "link", "--version", cwd=work, SFUMATO_TORCH_DIR=moved.torch).stdout
    check(re.match(r"\d+\.\d+", said), said)
    moved.launch("sfumato", "doctor")


def check_bundle(sfumato, work: Path, _):
    if not shutil.which("dpkg-query"):
        return "bundles are made on Debian or Ubuntu"
    bundle = Bundle(make_bundle(sfumato, work), torch_of(sfumato.binary))
    check_programs(bundle, sfumato)
    check_libraries(bundle)
    check_licences(bundle)
    check_stand_in(bundle)
    check_torch_is_found(bundle, work)
    check_versions(bundle, work)
    check_moving(bundle, work)


if __name__ == "__main__":
    main(check_bundle, __doc__.splitlines()[0])
