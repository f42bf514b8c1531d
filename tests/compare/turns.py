"""Programs that take steps by turns, each in a process of its own that lives from turn to turn."""
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

SPARE_MIB = 2048  # that stay free beside the processes


def environment(arguments) -> dict:
    threads = str(arguments.threads)
    packages = {"PYTHONPATH": str(arguments.packages.resolve())} if arguments.packages else {}
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **packages}


def available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return math.inf


class Engine:
    """A row and its process, which says "ready" and what it knows before its first step, then seconds
    for every line that it reads, and at the end of them its peak of memory."""

    def __init__(self, row, command: list, arguments):
        self.row, self.command, self.arguments = row, list(map(str, command)), arguments
        self.process, self.seconds, self.peak_mib, self.facts = None, [], 0.0, {}

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=environment(self.arguments), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        said = self.line().removeprefix("ready ")
        facts = {"parameters": int(said)} if self.row.ours else json.loads(said)
        self.facts = self.facts or facts

    def line(self) -> str:
        said = self.process.stdout.readline()
        if not said:
            _, complaint = self.process.communicate()
            sys.exit(f"{self.row.name} failed (status {self.process.returncode}):\n"
                     f"{complaint[-4000:]}")
        return said.strip()

    def take_turn(self) -> None:
        if self.process is None:
            self.start()
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.line()))

    def end(self) -> None:
        if self.process is None:
            return
        said, complaint = self.process.communicate()
        if self.process.returncode != 0:
            sys.exit(f"{self.row.name} failed:\n{complaint[-4000:]}")
        last = said.strip().splitlines()[-1]
        peak = int(last.split()[2]) / 2**20 if self.row.ours else json.loads(last)["peak_mib"]
        self.peak_mib, self.process = max(self.peak_mib, peak), None

    def resident_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ratios(seconds: list, of: list) -> dict:
    each = sorted(a / b for a, b in zip(seconds, of, strict=True))
    last = len(each) - 1
    return {"low": each[last // 4], "median": statistics.median(each),
            "high": each[last - last // 4]}


def take_turns(engines: list, steps: int) -> None:
    largest = 0.0
    for turn in range(steps):
        for engine in engines if turn % 2 == 0 else engines[::-1]:
            engine.take_turn()
            largest = max(largest, engine.resident_mib())
            if available_mib() < largest + SPARE_MIB:
                engine.end()
    for engine in engines:
        engine.end()
