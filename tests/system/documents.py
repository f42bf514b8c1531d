#!/usr/bin/env python3
"""The documents agree with the code: maps name every file, links lead somewhere, the README lists
every subcommand, and every configuration is accepted."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import ROOT, check, main


def check_maps() -> None:
    text = (ROOT / "src/README.md").read_text()
    areas = [path for path in (ROOT / "src").iterdir() if path.is_dir()]
    for area in sorted(areas) + [ROOT / "models"]:
        section = re.search(rf"^## {area.name}\b.*?(?=^## |\Z)", text, re.M | re.S)
        check(section, f"src/README.md has no section on {area.name}")
        files = [*area.rglob("*.cpp"), *area.rglob("*.h"),
                 *(ROOT / "include/sfumato" / area.name).rglob("*.h")]
        # Stubs of another library's headers have its names.
        files = [file for file in files if "gloo_stubs" not in file.parts]
        missing = {file.stem for file in files if not re.search(rf"[`/]{file.stem}`", section[0])}
        check(not missing, f"src/README.md, {area.name}: no line on {sorted(missing)}")
    kernels = (ROOT / "kernels/README.md").read_text()
    for header in [*(ROOT / "kernels").glob("*.h"), *(ROOT / "kernels/device").glob("*.cuh")]:
        names = [header.stem, header.name, f"device/{header.name}",
                 *re.findall(r"\b(\w+)\(", header.read_text())]
        check(any(f"`{name.removesuffix('_cpu')}`" in kernels for name in names),
              f"kernels/README.md has no row for {header.stem}")


def check_named_tests() -> None:
    """Every test that tests/README.md names for a law exists."""
    sources = "".join(path.read_text() for path in (ROOT / "tests").glob("*/*_test.cpp"))
    for suite, name in re.findall(r"`(\w+)\.([A-Z]\w+)`", (ROOT / "tests/README.md").read_text()):
        check(re.search(rf"\(\s*{suite},\s*{name}\b", sources), f"no test {suite}.{name}")


# What the privacy argument rests on is said in one place each: the only files of src and include
# that may hold these words.
WALLS = {
    r"\bNoisyGradient::release\(": ["src/grad/noisy_gradient.cpp", "src/mechanism/session.cpp"],
    r"\bPublicGradient( \w+)?[({]": [
        "include/sfumato/grad/public_gradient.h", "src/bench/step_benchmark.cpp",
        "src/grad/public_gradient.cpp", "src/train/training_mechanism.cpp", "src/train/warm_up.cpp"],
    r"\bpublic_gradient_by_autograd\(": [
        "include/sfumato/grad/public_gradient.h", "src/generate/gan/public_steps.cpp",
        "src/grad/public_gradient.cpp", "src/train/embedded_images.cpp"],
    r"\bapply_(update|without_noise)\(": [
        "src/grad/apply_update.h", "src/grad/noisy_gradient.cpp", "src/grad/optimizer.cpp",
        "src/grad/public_gradient.cpp"],
    r"\brelease_statistic\(": [
        "include/sfumato/mechanism/private_statistics.h", "src/mechanism/private_statistics.cpp",
        "src/mechanism/session.cpp"],
    r"\bClippedSumInspector::": ["src/audit/conformance_ranks.cpp", "src/audit/mechanism_under_test.cpp",
                                 "src/cli/lab/probe.cpp"],
}


def check_walls() -> None:
    sources = [path for folder in ("src", "include", "models")
               for path in (ROOT / folder).rglob("*") if path.suffix in (".h", ".cpp")]
    for pattern, allowed in WALLS.items():
        found = sorted(str(path.relative_to(ROOT)) for path in sources
                       if re.search(pattern, path.read_text()))
        check(found == allowed, f"'{pattern}' is in {found}, and belongs in {allowed} alone")


def check_links() -> None:
    folders = ("", "src", "kernels", "tests", "configs", "models/public", "docker", "deploy/kubernetes",
               "python")
    for page in [path for folder in folders for path in (ROOT / folder).glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not re.match(r"https?://", target):
                check((page.parent / target).exists(), f"{page.name}: no {target}")


def check_subcommands(sfumato) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M))
    shown = sfumato.run("--help").stdout.split("ubcommands:")[-1]
    real = set(re.findall(r"^  (\w+) {2,}", shown, re.M))
    check(real == listed, f"the README lists {sorted(listed)}, the program has {sorted(real)}")
    for name in real:
        check(sfumato.run(name, "--help").stdout, f"{name} --help is empty")


def check_configurations(sfumato) -> None:
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        # A store that is not there is found after the settings are read. A share needs its target.
        given = () if re.search(r"^ *share: \d", path.read_text(), re.M) else (
            "mechanism.noise_multiplier=1", "mechanism.target_epsilon=null")
        said = sfumato.run("train", "--config", path, "data.store=/nowhere", "run.dir=/nowhere/run", *given,
                           expect=3).stderr
        check("/nowhere" in said, f"{path.name}: {said}")


def check_documents(sfumato, _, __):
    check_maps()
    check_named_tests()
    check_walls()
    check_links()
    check_subcommands(sfumato)
    check_configurations(sfumato)
    check("@@" not in (ROOT / "README.md").read_text(), "README.md has numbers to fill in (@@)")


if __name__ == "__main__":
    main(check_documents, __doc__.splitlines()[0])
