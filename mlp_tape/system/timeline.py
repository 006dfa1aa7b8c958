"""What the processes of the program did and when, for `--timeline`.

Each process appends a line of JSON to one file for each phase that has ended. `time.monotonic` is the same
clock in all processes of a machine. Without `--timeline`, a phase costs a comparison.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OPTION = "--timeline"
VARIABLE = "MLP_TAPE_TIMELINE"  # environment variable: path of the file, also for processes of this one
RUN, MLFLOW, PLOTS = "run", "mlflow", "plots"  # names of processes
WIDTH = 48  # characters of the bars
REST = "(other)"  # what no phase covers

_process, _is_shown = RUN, False
_open: dict[str, float] = {}


@dataclass
class Phase:
    """A phase of a process, which may have been entered several times.

    Attributes:
        process: name of the process.
        name: name of the phase.
        times: beginning and end of each time, in seconds of one clock.
    """

    process: str
    name: str
    times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The duration, of all times together."""
        return sum(ended - began for began, ended in self.times)


def start() -> None:
    """Begins to record if `--timeline` was typed, which is removed from the arguments.

    To be called before the imports, which are a phase. A process that starts this one may have set VARIABLE.
    """
    global _is_shown
    if OPTION in sys.argv:
        sys.argv = [text for text in sys.argv if text != OPTION]
        handle, path = tempfile.mkstemp(prefix="mlp_tape-timeline-")
        os.close(handle)
        os.environ[VARIABLE], _is_shown = path, True
    started("Python")


def join(process: str) -> None:
    """Declares the name of this process, which another one has started."""
    global _process
    _process = process
    started("Python")


def started(name: str) -> None:
    """Records the time from the creation of the process to now, if the system tells it."""
    age = _age()
    if age is not None:
        now = time.monotonic()
        _record(name, now - age, now)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Records the time of a block, or of a function that it decorates."""
    if VARIABLE not in os.environ:
        yield
        return
    began = time.monotonic()
    try:
        yield
    finally:
        _record(name, began, time.monotonic())


def begin(name: str) -> None:
    """Begins a phase that `end` ends in another place, unless it has begun; not for several threads."""
    _open.setdefault(name, time.monotonic())


def end(name: str) -> None:
    """Ends a phase; has no effect if it has not begun."""
    began = _open.pop(name, None)
    if began is not None:
        _record(name, began, time.monotonic())


def _record(name: str, began: float, ended: float) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        line = json.dumps([_process, name, began, ended]) + "\n"
        # One write with O_APPEND: the lines of several processes do not mix.
        with contextlib.suppress(OSError), Path(path).open("ab", buffering=0) as file:
            file.write(line.encode())


def _age() -> float | None:
    """Returns the seconds since the creation of this process, to 0.01; None if the system does not tell."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return None


def read(file: Path) -> list[Phase]:
    """Returns what all processes have recorded in a file, in the order of their beginnings.

    What the training process did in no phase is one called `(other)`.
    """
    found: dict[tuple[str, str], Phase] = {}
    for process, name, began, ended in map(json.loads, file.read_text().splitlines()):
        found.setdefault((process, name), Phase(process, name)).times.append((began, ended))
    phases = sorted(found.values(), key=lambda phase: (phase.process != RUN, phase.process, min(phase.times)))
    rest = Phase(RUN, REST, _gaps(time for phase in phases if phase.process == RUN for time in phase.times))
    return [*phases, rest] if rest.times else phases


def _gaps(times: Iterator[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the times between the first beginning and the last end that are in none of the given times."""
    gaps, until = [], None
    for began, ended in sorted(times):
        if until is not None and began > until:
            gaps.append((until, began))
        until = ended if until is None else max(until, ended)
    return gaps


def report() -> list[str]:
    """Stops recording, and returns the lines of the table of what was recorded; none without `--timeline`."""
    if not _is_shown:
        return []
    file = Path(os.environ.pop(VARIABLE))
    try:
        return ["", *table(read(file))]
    finally:
        file.unlink(missing_ok=True)


def table(phases: list[Phase], width: int = WIDTH) -> Iterator[str]:
    """Yields the lines of a table: process, phase, seconds, how often, and when it was, as a bar.

    Args:
        phases: as returned by `taken`.
        width: number of characters of the longest bar.
    """
    begin = min(began for phase in phases for began, _ in phase.times)
    total = max(ended for phase in phases for _, ended in phase.times) - begin
    longest = max(len("phase"), *(len(phase.name) for phase in phases))
    scale = f"0{f'{total / 2:.1f}':^{width - 2}}{total:.1f} s"
    yield f"{'process':<8} {'phase':<{longest}} {'seconds':>8} {'times':>6}  {scale}"
    for phase in phases:
        cells = [" "] * width
        for began, ended in phase.times:
            first = int((began - begin) / total * width)
            last = max(first + 1, round((ended - begin) / total * width))
            cells[first:last] = "=" * (min(last, width) - first)
        bar = "".join(cells).rstrip()
        yield f"{phase.process:<8} {phase.name:<{longest}} {phase.seconds:>8.2f} {len(phase.times):>6}  {bar}"
