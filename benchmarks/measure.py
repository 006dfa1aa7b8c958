"""Tools for measurements: whole processes, workers that run alternately, medians, machine information."""

import contextlib
import importlib.metadata
import math
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
# With these variables, a machine can force OpenBLAS to use a kernel that is not the one for its processor.
OPENBLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # widest first
PACKAGES = ("tensorflow", "keras", "jax", "torch", "numpy", "mlflow", "hydra-core")


@dataclass
class Series:
    """Measurements of one variant, one value per round.

    Attributes:
        seconds: wall time.
        peak_mib: the most memory that the process and its child processes had at one time, in MiB.
        why_not: why it could not be measured; empty if it was.
        kernel: for variants that compute with NumPy's OpenBLAS, the processor its kernel is written for.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    why_not: str = ""
    kernel: str = ""

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return statistics.median(self.seconds)

    @property
    def memory(self) -> float:
        """The median peak memory in MiB."""
        return statistics.median(self.peak_mib)


def command(arguments: Sequence[str], directory: Path, expected: int = 0, **more: str) -> tuple[float, float]:
    """Runs a program, and returns the time from start to exit and the peak memory of all its processes.

    The memory is that of all processes at one time. Memory that several of them share is counted once.

    Args:
        arguments: arguments of `python`.
        directory: working directory.
        expected: expected exit code.
        more: additional environment variables.

    Returns:
        Seconds, and MiB.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (directory / "benchmark.log").open("w+b") as log:
        began = time.perf_counter()
        program = subprocess.Popen(
            [sys.executable, *arguments], cwd=directory, env=environment, stdout=log, stderr=log
        )
        sampled: list[float] = []
        monitor = threading.Thread(target=_sample_memory, args=[program.pid, sampled], daemon=True)
        monitor.start()
        program.wait()
        seconds = time.perf_counter() - began
        monitor.join()
        if program.returncode != expected:
            log.seek(0)
            raise RuntimeError(f"{arguments} exited with {program.returncode}: {log.read().decode()}")
    return seconds, max(sampled, default=math.nan)


def _sample_memory(root: int, sampled: list[float]) -> None:
    """Appends the memory of a process and its descendants, in MiB, at an interval until it exits; on Linux.

    It is the sum of their proportional set sizes: of memory that n of them share, each has the n-th part.
    To read these takes up to 0.05 s, which would slow the program down. They are read when the sum of the
    resident sets has changed by one percent, which takes no time to read.
    """
    before = 0
    while Path(f"/proc/{root}/task").exists():
        began, processes = time.perf_counter(), _family(root)
        try:
            pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes)
            if abs(pages - before) > before / 100:
                texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in processes]
                sizes = [int(size[1]) for text in texts if (size := re.search(r"^Pss:\s+(\d+)", text, re.M))]
                if processes == _family(root):  # the parts are those of the same number of processes
                    before = pages
                    sampled.append(sum(sizes) / 1024)
        except (OSError, IndexError):  # one of them has ended
            pass
        time.sleep(max(0.02, 10 * (time.perf_counter() - began)))


def _family(root: int) -> list[int]:
    """Returns the pid of a process and those of its descendants."""
    found = [root]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread or process has ended
                found += map(int, path.read_text().split())
    return found


def in_turns(rounds: int, variants: Mapping[str, Callable[[], tuple[float, float]]]) -> dict[str, Series]:
    """Measures each variant once per round; the order is reversed in every second round.

    Args:
        rounds: number of rounds.
        variants: by name, functions that run a variant and return seconds and MiB.
    """
    found = {name: Series() for name in variants}
    for turn in range(rounds):
        names = list(variants) if turn % 2 == 0 else list(variants)[::-1]
        for name in names:
            if found[name].why_not:
                continue
            try:
                seconds, mib = variants[name]()
            except NotInstalledError as error:
                found[name].why_not = str(error)
                continue
            found[name].seconds.append(seconds)
            found[name].peak_mib.append(mib)
            print(f"round {turn + 1}/{rounds}  {name:50} {seconds:9.3f} s {mib:8.0f} MiB", flush=True)
    return found


class NotInstalledError(Exception):
    """A package that a variant needs is not installed."""


class Worker:
    """A process that keeps its data in memory and repeats its work on request, so that rounds are short.

    Args:
        arguments: arguments of `python`. The program prints `ready`, or `not installed: ...`, and then
            seconds and MiB for each line of input.
        with_openblas: whether the work is done by NumPy's OpenBLAS; it then chooses its kernel itself,
            whatever OPENBLAS_VARIABLES are set to.

    Attributes:
        status: the first line that the program printed: `ready ` and the name of OpenBLAS's kernel, or
            `not installed: ...`.
    """

    def __init__(self, arguments: Sequence[str], with_openblas: bool = False) -> None:
        self._with_openblas = with_openblas
        unset = OPENBLAS_VARIABLES if with_openblas else ()
        self._program = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in unset},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.status = self._read()

    def __call__(self) -> tuple[float, float]:
        """Runs the work once, and returns seconds and MiB."""
        if self.status.startswith("not installed"):
            raise NotInstalledError(self.status.partition(": ")[2])
        assert self._program.stdin
        print(file=self._program.stdin, flush=True)
        seconds, mib = self._read().split()
        return float(seconds), float(mib)

    @property
    def kernel(self) -> str:
        """Name of the OpenBLAS kernel that does the work; empty if OpenBLAS does not do it."""
        return self.status.removeprefix("ready").strip() if self._with_openblas else ""

    def _read(self) -> str:
        assert self._program.stdout
        line = self._program.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self._program.args} ended with {self._program.wait()}")
        return line

    def end(self) -> None:
        """Ends the process."""
        self._program.kill()
        self._program.wait()


def machine() -> dict[str, str]:
    """Returns the processor, the system, the versions of packages, and the date.

    Machines of one name differ: with AVX-512, an EPYC computes twice as fast as without.
    """
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores{_widest()}",
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d"),
    }


def _widest() -> str:
    """Returns the widest instructions for vectors of the processor, after a comma, on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return next((f", {text}" for flag, text in VECTORS.items() if flag in flags), "")


def on_each_line(work: Callable[[], object]) -> None:
    """Runs the loop of a worker: `print_ready`, then for each line of input works and prints the cost."""
    print_ready()
    for _line in sys.stdin:
        began = time.perf_counter()
        work()
        print(time.perf_counter() - began, peak_mib(), flush=True)


def print_ready() -> None:
    """Prints `ready` and the name of the kernel that NumPy's OpenBLAS uses, such as `SkylakeX`."""
    import numpy  # noqa: F401  threadpoolctl sees libraries that are loaded
    import threadpoolctl

    libraries = threadpoolctl.threadpool_info()
    kernels = {each["architecture"] for each in libraries if each["internal_api"] == "openblas"}
    print("ready", *sorted(kernels), flush=True)


def peak_mib() -> float:
    """Returns the peak memory of this process in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def as_json(found: Mapping[str, Series]) -> dict[str, Any]:
    """Returns all measured values, JSON-serializable."""
    return {name: vars(series) for name, series in found.items()}
