"""How things are measured: whole processes, workers that take turns, medians, and the machine."""

import contextlib
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tensorflow", "keras", "jax", "torch", "numpy", "mlflow", "hydra-core")


@dataclass
class Series:
    """What was measured of one competitor, a value a round.

    Attributes:
        seconds: wall time.
        peak_mib: the most memory that its process had, and those that it had started, added up.
        why_not: the reason where it could not be measured.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    why_not: str = ""

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    @property
    def memory(self) -> float:
        """The median of the peaks, MiB."""
        return statistics.median(self.peak_mib)


def command(arguments: Sequence[str], directory: Path, expected: int = 0, **more: str) -> tuple[float, float]:
    """Runs a program; returns seconds from start to exit, and the peak memory of all its processes in MiB.

    Args:
        arguments: after `python`.
        directory: where it is started.
        expected: its exit code.
        more: environment variables.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (directory / "benchmark.log").open("w+b") as log:
        began = time.perf_counter()
        program = subprocess.Popen(
            [sys.executable, *arguments], cwd=directory, env=environment, stdout=log, stderr=log
        )
        peaks: dict[int, float] = {}
        watch = threading.Thread(target=_watch, args=[program.pid, peaks], daemon=True)
        watch.start()
        _pid, status, usage = os.wait4(program.pid, 0)
        seconds = time.perf_counter() - began
        watch.join()
        peaks[program.pid] = usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
        program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode != expected:
            log.seek(0)
            raise RuntimeError(f"{arguments} exited with {program.returncode}: {log.read().decode()}")
    return seconds, sum(peaks.values())


def _watch(root: int, peaks: dict[int, float]) -> None:
    """Notes the peaks of a process and those below it while it lives; Linux alone tells whose child is whose.

    Memory that two of them share counts twice.
    """
    while Path(f"/proc/{root}/task").exists():
        found = [root]
        for pid in found:
            for path in (*Path(f"/proc/{pid}/task").glob("*/children"), Path(f"/proc/{pid}/status")):
                with contextlib.suppress(OSError):  # of a thread, or a process, that has ended meanwhile
                    text = path.read_text()
                    if path.name == "children":
                        found += map(int, text.split())
                    elif peak := re.search(r"VmHWM:\s+(\d+)", text):
                        peaks[pid] = int(peak[1]) / 1024
        time.sleep(0.2)


def in_turns(rounds: int, competitors: Mapping[str, Callable[[], tuple[float, float]]]) -> dict[str, Series]:
    """Lets each competitor run once a round, in an order that turns round with every round.

    Args:
        rounds: how many.
        competitors: by name, what runs them and returns seconds and MiB.
    """
    found = {name: Series() for name in competitors}
    for turn in range(rounds):
        names = list(competitors) if turn % 2 == 0 else list(competitors)[::-1]
        for name in names:
            if found[name].why_not:
                continue
            try:
                seconds, mib = competitors[name]()
            except NotHere as error:
                found[name].why_not = str(error)
                continue
            found[name].seconds.append(seconds)
            found[name].peak_mib.append(mib)
            print(f"round {turn + 1}/{rounds}  {name:50} {seconds:9.3f} s {mib:8.0f} MiB", flush=True)
    return found


class NotHere(Exception):
    """What is needed for a competitor is not installed."""


class Worker:
    """A process that has all in memory and does its work whenever it is told to, so that turns are short.

    Args:
        arguments: after `python`; it prints `ready`, or `not here: ...`, then seconds and MiB for each line.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._program = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.said = self._read()

    def __call__(self) -> tuple[float, float]:
        """Seconds and MiB of one time."""
        if self.said.startswith("not here"):
            raise NotHere(self.said.partition(": ")[2])
        assert self._program.stdin
        print(file=self._program.stdin, flush=True)
        seconds, mib = self._read().split()
        return float(seconds), float(mib)

    def _read(self) -> str:
        assert self._program.stdout
        line = self._program.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self._program.args} ended with {self._program.wait()}")
        return line

    def end(self) -> None:
        """Lets the process go."""
        self._program.kill()
        self._program.wait()


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d"),
    }


def on_each_line(work: Callable[[], object]) -> None:
    """What a worker does: says that it is ready, then works once for each line, and says how long."""
    print("ready", flush=True)
    for _line in sys.stdin:
        began = time.perf_counter()
        work()
        print(time.perf_counter() - began, peak_mib(), flush=True)


def peak_mib() -> float:
    """The most memory that this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def as_json(found: Mapping[str, Series]) -> dict[str, Any]:
    """All values, as they were measured."""
    return {name: vars(series) for name, series in found.items()}
