"""Runs of several processes: started as by hand, one variable of the environment at a time, on this
machine or each in a network of its own.
"""
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from sfumato_cli import (ROOT, check, ledger_charges, smoke_arguments, steps_taken)

LAUNCHERS = ("SLURM_", "OMPI_", "PMI", "PET_", "TORCHELASTIC_", "JOB_COMPLETION_INDEX", "WORLD_SIZE",
             "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


_held_ports = []  # bound until this program ends: the system gives them to nobody else


def free_port() -> int:
    """A port where a store of names can serve, since it binds it with SO_REUSEADDR, too."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held_ports.append(held)
    return held.getsockname()[1]


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}


class Ranks:
    """`size` processes of one run, told who they are as by hand. `differing(rank)`: further
    arguments of one. `prefix(rank)`: words before its command. `address`: of rank 0."""

    def __init__(self, sfumato, size: int, arguments, log: Path, differing=lambda rank: [],
                 subcommand="train", prefix=lambda rank: [], address="127.0.0.1", port=None):
        self.log = log
        port = port or free_port()
        self.processes = []
        for rank in range(size):
            environment = bare_environment() | {
                "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address,
                "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
            command = [*prefix(rank), str(sfumato.binary), *subcommand.split(),
                       *map(str, arguments), *differing(rank)]
            with open(f"{log}.{rank}", "ab") as output:
                self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment,
                                                       stdout=output, stderr=subprocess.STDOUT,
                                                       stdin=subprocess.DEVNULL))
        sfumato._started.extend(self.processes)

    def statuses(self, timeout: float = 300, but: int | None = None) -> list[int]:
        deadline = time.monotonic() + timeout
        found = []
        for rank, process in enumerate(self.processes):
            if rank == but:
                continue
            try:
                found.append(process.wait(timeout=max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                check(False, f"rank {rank} still runs after {timeout} s; see {self.log}.{rank}")
        return found

    def output(self, rank: int) -> str:
        return Path(f"{self.log}.{rank}").read_text(errors="replace")

    def expect(self, *expected: int) -> None:
        """That they end with these statuses, or all with the only one."""
        found = self.statuses()
        wanted = list(expected) if len(expected) > 1 else list(expected) * len(found)
        check(found == wanted, f"statuses {found}, expected {wanted}; see {self.log}.*"
              + "".join(f"\n-- rank {r}\n{self.output(r)[-1500:]}" for r in range(len(found))))


def small_run(store: Path, run: Path, steps: int) -> list[str]:
    return smoke_arguments(store, run, f"mechanism.steps={steps}", "mechanism.target_epsilon=8",
                           "run.checkpoint_every=3", "run.log_every=1",
                           "performance.physical_batch=8")


def wait_for_step(run: Path, step: int, processes, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while len(ledger_charges(run)) < step:
        check(time.monotonic() < deadline, f"no {step} steps in {timeout} s in {run}")
        check(any(p.poll() is None for p in processes), f"all processes of {run} have ended")
        time.sleep(0.005)


def verify(sfumato, run: Path, steps: int) -> None:
    said = sfumato.json("ledger", "verify", run)
    check(not said["problems"] and said["charged_steps"] <= steps, f"{run}: {said}")
    check(len(ledger_charges(run)) >= len(steps_taken(run)), f"{run}: steps without a charge")


class Network:
    """Networks of their own for ranks (Linux network namespaces), joined by a bridge, each of which
    can be cut off. Needs root and iproute2."""

    def __init__(self, size: int):
        tag = f"sf{os.getpid() % 100000}"
        self.bridge = f"{tag}b"
        self.names = [f"{tag}n{rank}" for rank in range(size)]
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("link", "set", self.bridge, "up")
        for rank, name in enumerate(self.names):
            self._ip("netns", "add", name)
            self._ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            self._ip("link", "set", f"{name}v", "master", self.bridge, "up")
            self._ip("-n", name, "addr", "add", f"{self.address(rank)}/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "lo", "up")
            self._ip("-n", name, "link", "set", "eth0", "up")

    @staticmethod
    def _ip(*words: str, wrong=lambda said: check(False, said)) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode != 0:
            wrong(f"ip {' '.join(words)}: {done.stderr.strip()}")

    @staticmethod
    def missing() -> str | None:
        """Why there can be none here."""
        if shutil.which("ip") is None:
            return "no iproute2"
        name = f"sf{os.getpid() % 100000}try"
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if done.returncode != 0:
            return f"no network namespaces ({done.stderr.strip()})"
        subprocess.run(["ip", "netns", "del", name], check=False)
        return None

    @staticmethod
    def address(rank: int) -> str:
        return f"10.213.7.{rank + 1}"

    def prefix(self, rank: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[rank]]

    def cut(self, rank: int) -> None:
        self._ip("link", "set", f"{self.names[rank]}v", "down")

    def mend(self, rank: int) -> None:
        self._ip("link", "set", f"{self.names[rank]}v", "up")

    def sent_bytes(self, rank: int) -> int:
        done = subprocess.run(["ip", "-n", self.names[rank], "-s", "-j", "link", "show", "eth0"],
                              capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]["stats64"]["tx"]["bytes"]

    def close(self) -> None:
        for name in self.names:
            self._ip("netns", "del", name, wrong=print)
        self._ip("link", "del", self.bridge, wrong=print)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
