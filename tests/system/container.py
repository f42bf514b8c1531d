#!/usr/bin/env python3
"""The image for CPUs: built by buildah from a system that debootstrap makes, measured, and run through
docker/compose.yaml's services from images to a corpus: read-only, without root, stopped by SIGTERM.

The given program's build takes the place of the build stage. Needs root, buildah and debootstrap.
"""
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from containers import Container, Volume, first_process, in_container
from sfumato_cli import INTERRUPTED, ROOT, check, complete_checkpoints, main, metric_lines, write_idx

LIMITS_MB = {"cpu": 900, "cuda": 5000}
SUITE = "bookworm"
# As the distribution's own slim images are: packages' lists and documentation left out.
LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "usr/share/man", "usr/share/locale")
ADJUST = """\
mechanism: {sample_rate: 0.08, expected_batch_size: 32, steps: 20}
performance: {threads: 1}
sample: {steps: 5}
"""


class Buildah:
    """Images and containers in a folder of the check, without a daemon and without layers."""

    def __init__(self, work: Path, timeout_s: float = 900):
        self.timeout_s = timeout_s
        self.common = ["buildah", "--root", work / "storage", "--runroot", work / "run-storage",
                       "--storage-driver", "vfs"]

    def __call__(self, *arguments) -> str:
        command = list(map(str, [*self.common, *arguments]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout_s,
                              env={**os.environ, "BUILDAH_ISOLATION": "chroot"})
        check(done.returncode == 0, f"{command} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def image_of(self, folder: Path, target: str, name: str) -> None:
        container = self("from", "scratch")
        self("add", "--quiet", container, folder, target)
        self("commit", "--quiet", container, name)
        self("rm", container)


def reason_to_skip() -> str | None:
    if os.geteuid() != 0:
        return "needs root, for debootstrap and chroot"
    for tool in ("buildah", "debootstrap", "unshare", "nsenter"):
        if not shutil.which(tool):
            return f"no {tool} here: apt-get install buildah debootstrap util-linux"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "proc", "proc",
                            "/proc"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def mirror() -> str:
    """Where this machine's own packages come from."""
    for file in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("debian*")]:
        found = re.search(rf"https?://\S+/debian/?(?=\s.*\b{SUITE}\b|\s*\nSuites: {SUITE}\b)",
                          file.read_text() if file.exists() else "")
        if found:
            return found[0]
    return "http://deb.debian.org/debian"


def make_system(work: Path, ready_made: Path | None) -> Path | str:
    """A minimal Debian; or why there is none."""
    folder = work / "system"
    if ready_made:
        subprocess.run(["cp", "-a", ready_made, folder], check=True)
        return folder
    done = subprocess.run(["debootstrap", "--variant=minbase", SUITE, folder, mirror()], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
    if done.returncode:
        return f"debootstrap cannot make a system here: {done.stdout[-500:]}"
    for name in LEFT_OUT:
        shutil.rmtree(folder / name, ignore_errors=True)
    # As Debian's slim images: of documentation copyright files alone, also of packages to come.
    (folder / "etc/dpkg/dpkg.cfg.d/slim").write_text(
        "path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n")
    for file in (folder / "usr/share/doc").rglob("*"):
        if file.name != "copyright" and (file.is_symlink() or not file.is_dir()):
            file.unlink()
    return folder


def megabytes(folder: Path) -> float:
    """Of the files' contents, each counted once, as image sizes are."""
    seen, total = set(), 0
    for file in folder.rglob("*"):
        info = file.lstat()
        if not file.is_dir() and (info.st_dev, info.st_ino) not in seen:
            seen.add((info.st_dev, info.st_ino))
            total += info.st_size
    return total / 1e6


def collect(sfumato, kind: str, folder: Path) -> None:
    done = subprocess.run([ROOT / "scripts/collect", "--build-folder", sfumato.binary.parent, "--with-torch",
                           kind, folder], capture_output=True, text=True)
    check(done.returncode == 0, f"scripts/collect failed:\n{done.stdout}{done.stderr}")


def build_image(sfumato, buildah: Buildah, work: Path, system: Path) -> float:
    """Both stages of the image for CPUs; returns the size of its system."""
    buildah.image_of(system, "/", "system")
    size = megabytes(system)
    shutil.rmtree(system)
    collect(sfumato, "cpu", work / "cpu")
    buildah.image_of(work / "cpu", "/opt/sfumato", "programs")
    shutil.rmtree(work / "cpu")
    buildah("bud", "--quiet", "--format", "docker", "--layers=false", "--file", ROOT / "docker/Dockerfile",
            "--target", "cpu", "--build-arg", "SYSTEM=localhost/system",
            "--build-arg", "CPU_PROGRAMS=localhost/programs", "--tag", "sfumato:cpu", ROOT / "docker/..")
    return size


def check_sizes(sfumato, root: Path, work: Path, system_mb: float) -> None:
    sizes = {"cpu": megabytes(root)}
    # Its parts are those of the other image and what torch has for GPUs: measured, not built.
    if sfumato.binary.with_name("libsfumato_cuda.so").exists():
        collect(sfumato, "cuda", work / "cuda")
        sizes["cuda"] = system_mb + megabytes(work / "cuda")
        plugin = work / "cuda/lib/libsfumato_cuda.so"
        check(plugin.exists(), "the image for GPUs has no kernels")
        shutil.rmtree(work / "cuda")
    for kind, size in sizes.items():
        print(f"image for {kind}: {size:.0f} MB")
        check(100 < size <= LIMITS_MB[kind], f"the image for {kind} has {size:.0f} MB")
    check(not (root / "opt/sfumato/lib/libsfumato_cuda.so").exists(), "kernels in the image for CPUs")


def check_configuration(image: dict) -> None:
    config = image["config"]
    check(config["Entrypoint"] == ["/opt/sfumato/bin/sfumato"], f"{config}")
    check(config["User"] == "sfumato" and config["StopSignal"] == "SIGTERM", f"{config}")
    check(config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/sfumato-health"], f"{config}")
    check("/opt/sfumato/bin" not in str(config.get("Volumes")), "the program is in a volume")


def check_image(container: Container) -> None:
    """Only what is needed is there, nothing of it can be changed, and all libraries are found."""
    root = container.root
    for name in ("usr/bin/python3", "usr/bin/gcc", "src", "opt/sfumato/torch/lib/libtorch_python.so",
                 "opt/sfumato/torch/lib/libtorch_cuda.so"):
        check(not (root / name).exists(), f"the image holds {name}")
    shell = Container(root, {**container.config, "Entrypoint": ["/bin/sh", "-c"]})
    said = shell.run("id -u; touch /opt/sfumato/x /usr/x 2>&1; ldd /opt/sfumato/bin/*").stdout
    check(said.startswith("10001\n"), said)
    check(said.count("touch: cannot touch") == 2, f"files can be written:\n{said}")
    check("not found" not in said, said)
    version = container.run("--version").stdout
    check(re.match(r"\d+\.\d+", version), version)
    said = container.run("doctor", "--config", "configs/smoke.yaml", "run.dir=/tmp/run").stdout
    check("OpenCV writes and reads PNG" in said and "conv_out.weight" in said, said)


class Services:
    """docker/compose.yaml, its volumes as folders."""

    def __init__(self, container: Container, work: Path, uid: int):
        self.container = container
        self.environment = {"CONFIG": work / "config.yaml", "IMAGES": work / "images", "COUNT": 20,
                            "SFUMATO_IMAGE": "sfumato:cpu"}
        self.volumes = {name: work / "volumes" / name for name in ("private", "release")}
        for name, folder in self.volumes.items():
            folder.mkdir(parents=True, mode=0o700 if name == "private" else 0o755)
            os.chown(folder, uid, uid)
        text = (ROOT / "docker/compose.yaml").read_text()
        text = re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", lambda name: str(self.environment[name[1]]), text)
        self.compose = yaml.safe_load(text)
        check(set(self.compose["volumes"]) == set(self.volumes), "volumes of compose.yaml")

    def of(self, name: str) -> tuple[Container, list[str]]:
        service = self.compose["services"][name]
        check(service["read_only"] is True and service["tmpfs"] == ["/tmp"], f"{name} is not read-only")
        check(service["image"] == "sfumato:cpu" and service["cap_drop"] == ["ALL"], f"{service}")
        volumes = []
        for line in service["volumes"]:
            source, target, *options = line.split(":")
            volumes.append(Volume(self.volumes.get(source, Path(source)), target, options == ["ro"]))
        return Container(self.container.root, self.container.config, volumes), service["command"]


def check_services(container: Container, work: Path) -> None:
    """Prepares, trains with a SIGTERM in between, samples: only the corpus is in `release`."""
    uid = int(container.ids().split(":")[0])
    services = Services(container, work, uid)
    (work / "images").mkdir()
    for path, name in zip(write_idx(work, 40), ("images", "labels")):
        (work / "images" / f"{name}.idx").write_bytes(gzip.decompress(path.read_bytes()))
    config = yaml.safe_load((ROOT / "configs/smoke.yaml").read_text())
    for section, settings in yaml.safe_load(ADJUST).items():
        config.setdefault(section, {}).update(settings)
    config["data"]["labels"] = "/images/labels.idx"
    (work / "config.yaml").write_text(yaml.safe_dump(config))

    prepare, command = services.of("prepare")
    # One file of several in the folder; people's folders of pictures need no such override.
    prepare.run(*[part.replace("=/images", "=/images/images.idx") for part in command])
    train, command = services.of("train")
    run = services.volumes["private"] / "run"
    stop_training(train, command, run, work / "train.log")
    train.run(*command)
    check(complete_checkpoints(run)[-1] == 20, f"checkpoints {complete_checkpoints(run)}")
    check(not list(services.volumes["release"].iterdir()), "training wrote into the release volume")
    sample, command = services.of("sample")
    sample.run(*command)
    card = json.loads((services.volumes["release"] / "corpus/privacy_card.json").read_text())
    check(0 < card["epsilon"] <= 10, f"{card}")
    check([path.name for path in services.volumes["release"].iterdir()] == ["corpus"], "release volume")
    pictures = list((services.volumes["release"] / "corpus/images").rglob("*.png"))
    check(len(pictures) == 20 and pictures[0].stat().st_uid == uid, f"{len(pictures)} pictures")
    owners = {path.stat().st_uid for path in services.volumes["private"].rglob("*")}
    check(owners == {uid}, f"files in the private volume belong to {owners}")


def stop_training(train: Container, command: list[str], run: Path, log: Path) -> None:
    """Process 1 is the program: SIGTERM ends it at a step. Until then it is healthy, stopped it is not."""
    process = train.start(*command, log=log)
    program = first_process(process, "sfumato-torch")
    deadline = time.monotonic() + 120
    while not metric_lines(run):
        check(process.poll() is None and time.monotonic() < deadline, f"no steps; see {log}")
        time.sleep(0.01)
    os.kill(program, signal.SIGSTOP)
    health = (program, train.ids(), "/usr/local/bin/sfumato-health")
    first, second = in_container(*health), in_container(*health)
    os.kill(program, signal.SIGTERM)
    os.kill(program, signal.SIGCONT)
    status = process.wait(timeout=120)
    check((first, second) == (0, 1), f"health says {first}, and of a stopped program {second}")
    check(status == INTERRUPTED, f"status {status} after SIGTERM; see {log}:\n{log.read_text()[-2000:]}")
    check(complete_checkpoints(run), "no checkpoint after SIGTERM")


def check_container(sfumato, work: Path, arguments):
    reason = reason_to_skip()
    if reason:
        return reason
    system = make_system(work, arguments.system)
    if isinstance(system, str):
        return system
    buildah = Buildah(work)
    system_mb = build_image(sfumato, buildah, work, system)
    name = buildah("from", "localhost/sfumato:cpu")
    image = json.loads(buildah("inspect", "--type", "image", "localhost/sfumato:cpu"))["Docker"]
    root = Path(buildah("mount", name))
    try:
        check_configuration(image)
        container = Container(root, image["config"])
        check_sizes(sfumato, root, work, system_mb)
        check_image(container)
        check_services(container, work)
    finally:
        buildah("umount", name)
        shutil.rmtree(work / "storage", ignore_errors=True)


if __name__ == "__main__":
    main(check_container, __doc__.splitlines()[0], lambda parser: parser.add_argument(
        "--system", type=Path, help="folder that debootstrap made earlier; copied"))
