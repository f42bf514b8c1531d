#!/usr/bin/env python3
"""Builds an image with all stages of docker/Dockerfile, as `docker build` does: packages, torch, NVIDIA's
compiler, the programs, and what is collected of them; then measures it and runs it.

    tests/soak/image_from_source.py --target cuda

buildah on a system of debootstrap's, for which this machine's settings for apt, pip and certificates
are lent. Takes half an hour on two cores and 40 GB of disk.
"""
import json
import os
import shutil
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "support"), str(TESTS / "system")]
from container import LIMITS_MB, Buildah, make_system, megabytes, reason_to_skip
from sfumato_cli import ROOT, check, main

LENT = ("/etc/pip.conf", "/etc/ssl/certs", "/usr/local/share/ca-certificates", "/etc/apt/apt.conf.d", "/etc/apt/sources.list.d")
VARIABLES = ("PIP_", "SSL_CERT", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def copied(path: Path, work: Path) -> Path:
    """A copy to lend: packages that are installed write there, as that of certificates does."""
    copy = work / "lent" / path.relative_to("/")
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)
    return copy


def build(sfumato, work: Path, arguments):
    reason = reason_to_skip()
    if reason:
        return reason
    system = make_system(work, None)
    if isinstance(system, str):
        return system
    buildah = Buildah(work, timeout_s=5400)
    buildah.image_of(system, "/", "system")
    lent = [word for path in LENT if Path(path).exists()
            for word in ("--volume", f"{copied(Path(path), work)}:{path}")]
    variables = [word for name, value in os.environ.items() if name.startswith(VARIABLES)
                 for word in ("--env", f"{name}={value}")]
    # In two steps: buildah 1.28 does not find a stage whose name stands in `FROM ${ARG}`, as docker does.
    def build_stage(stage: str, tag: str, *more: str) -> None:
        buildah("bud", "--format", "docker", "--layers=false", *lent, *variables, "--file", ROOT / "docker/Dockerfile",
                "--target", stage, "--build-arg", "SYSTEM=localhost/system", *more, "--tag", tag, ROOT)

    build_stage(f"build-{arguments.target}", "programs")
    build_stage(arguments.target, f"sfumato:{arguments.target}", "--build-arg",
                f"{arguments.target.upper()}_PROGRAMS=localhost/programs")
    container = buildah("from", f"sfumato:{arguments.target}")
    root = Path(buildah("mount", container))
    size = megabytes(root)
    print(f"image for {arguments.target}: {size:.0f} MB")
    check(100 < size <= LIMITS_MB[arguments.target], f"the image has {size:.0f} MB")
    check((root / "opt/sfumato/lib/libsfumato_cuda.so").exists() == (arguments.target == "cuda"), "the kernels")
    said = buildah("run", container, "--", "/opt/sfumato/bin/sfumato", "--version")
    print(said)
    # A command that loads LibTorch, and with it all libraries of the image.
    report = json.loads(buildah("run", container, "--", "/opt/sfumato/bin/sfumato", "inspect",
                                "models/public/glyphs", "--json"))
    check(report, "inspect says nothing")
    return None


if __name__ == "__main__":
    main(build, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--target", choices=LIMITS_MB, default="cuda"))
