"""Running a container's file system without a container runtime: what `docker run` would give process
1, by namespaces and chroot. For checks, as root."""
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_cli import check

# In namespaces of its own: mounts what it is told below $1, makes the rest read-only, becomes the program.
ENTER = r"""
set -eu
root=$1; user=$2; folder=$3; shift 3
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root$2"; elif [ ! -e "$root$2" ]; then touch "$root$2"; fi
  mount --bind "$1" "$root$2"
  if [ "$3" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
  shift 3
done
shift
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" env -i --chdir="$folder" "$@"
"""


@dataclass
class Volume:
    source: Path
    target: str
    read_only: bool = False


@dataclass
class Container:
    """An image's file system at `root`, its configuration and what is mounted."""

    root: Path
    config: dict  # Entrypoint, Env, User, WorkingDir as `buildah inspect` has them
    volumes: list[Volume] = field(default_factory=list)

    def ids(self) -> str:
        """Numbers of the image's user, looked up in its own list."""
        name = self.config.get("User") or "root"
        for line in (self.root / "etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return f"{fields[2]}:{fields[3]}"
        raise KeyError(name)

    def command(self, arguments) -> list[str]:
        mounts = [Volume(Path("/dev/null"), "/dev/null"), Volume(Path("/dev/urandom"), "/dev/urandom"),
                  *self.volumes]
        folder = self.config.get("WorkingDir") or "/"
        shown = [part for volume in mounts
                 for part in (str(volume.source), volume.target, "ro" if volume.read_only else "rw")]
        return ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "sh", "-c", ENTER,
                "enter", str(self.root), self.ids(), folder, *shown, "--", *self.config.get("Env", []),
                *self.config["Entrypoint"], *map(str, arguments)]

    def run(self, *arguments, expect: int = 0, timeout: float = 300) -> subprocess.CompletedProcess:
        done = subprocess.run(self.command(arguments), capture_output=True, text=True, timeout=timeout)
        check(done.returncode == expect, f"`{shlex.join(map(str, arguments))}` in the container ended with "
              f"{done.returncode}, expected {expect}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done

    def start(self, *arguments, log: Path) -> subprocess.Popen:
        with log.open("ab") as output:
            return subprocess.Popen(self.command(arguments), stdout=output, stderr=subprocess.STDOUT)


def first_process(unshare: subprocess.Popen, name: str, timeout_s: float = 60) -> int:
    """The number here of the process that is 1 in there, once it has become the program `name`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and unshare.poll() is None:
        for child in Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split():
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    return int(child)
            except FileNotFoundError:
                pass
        time.sleep(0.05)
    raise TimeoutError(f"no process {name}")


def in_container(process: int, user: str, *command) -> int:
    """Exit status of a command beside process 1, as a health check runs."""
    uid, gid = user.split(":")
    return subprocess.run(["nsenter", f"--target={process}", "--mount", "--pid", "--root", "--wd", f"--setuid={uid}",
                           f"--setgid={gid}", *command], env={"PATH": os.defpath}).returncode
