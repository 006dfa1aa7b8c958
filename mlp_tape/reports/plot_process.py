"""The process that draws the plots of runs, so that neither the training nor the SavedModel waits for them.

One process serves all runs of this one, and ends with it. It imports Matplotlib while this process trains,
and draws in copies of itself, as fast as the cores allow.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlp_tape.system import program, timeline

PROGRAM = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # they are for the process that trains, which decides what to do
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from mlp_tape.reports import plot_process
plot_process.main()
"""
PATIENCE = 300.0  # seconds to wait for plots, which take three
IDLE = 60.0  # seconds after a plot for which the process waits for another run

_running: "subprocess.Popen[str] | None" = None
_starting = threading.Lock()
_waiting = ThreadPoolExecutor(1, "plots")  # one request at a time


def start() -> None:
    """Starts the process, unless there is one."""
    global _running
    with _starting, contextlib.suppress(OSError):  # then, this process draws
        if _running is not None and _running.poll() is not None:
            _end()
        if _running is None:
            _running = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(program.ROOT), tempfile.gettempdir()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what goes wrong is drawn, and reported, here
                env={key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"},
                text=True,
                encoding="utf-8",
                process_group=0,  # which its copies belong to
            )


class Drawing:
    """Plots that the process draws from the creation of this object on.

    Args:
        directory: directory of the run.
        steps: number of steps trained.
    """

    def __init__(self, directory: Path, steps: int) -> None:
        start()
        self._what = directory, steps
        self._is_drawn = _waiting.submit(_is_drawn, directory, steps)

    def wait(self) -> None:
        """Waits for the plots; if the process does not draw them, for whatever reason, this one does."""
        try:
            is_drawn = self._is_drawn.result(PATIENCE)
        except TimeoutError:
            stop()
            is_drawn = False
        if not is_drawn:
            from mlp_tape.reports import run_plots

            run_plots.draw(*self._what)


def _is_drawn(directory: Path, steps: int) -> bool:
    """Lets the process draw; returns whether it did."""
    process = _running
    if process is None:
        return False
    assert process.stdin and process.stdout
    answer = ""
    with contextlib.suppress(OSError, ValueError):  # it is gone
        print(json.dumps([str(directory), steps]), file=process.stdin, flush=True)
        answer = process.stdout.readline()
    if not answer:
        with _starting:
            if process is _running:
                _end()
    return answer == "drawn\n"


def stop() -> None:
    """Ends the process, if there is one, at once: nobody is waiting for a plot."""
    with _starting:
        _end()


def _end() -> None:
    """Ends the process and its copies, which do not end by themselves if it is killed."""
    global _running
    if _running is not None:
        process, _running = _running, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError), process:  # closes the pipes
            pass


def main() -> None:
    """Is the process: draws the run of each line of standard input, and ends when there are no more."""
    timeline.join(timeline.PLOTS)
    tempfile.tempdir = sys.argv[2]  # of the process that trains, which removes it: Matplotlib may need it
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # to which libraries print
    with timeline.phase("import of Matplotlib"):
        from mlp_tape.reports import run_plots, style

        style.warm_up()
    line = sys.stdin.readline()
    while line:
        directory, steps = json.loads(line)
        try:
            _draw_at_once(run_plots.PARTS, Path(directory), steps)
            print("drawn", file=out, flush=True)
        except Exception:
            traceback.print_exc()
            print("failed", file=out, flush=True)
        is_there, _, _ = select.select([sys.stdin], [], [], IDLE)
        line = sys.stdin.readline() if is_there else ""


def _draw_at_once(parts: Sequence[Callable[[Path, int], None]], directory: Path, steps: int) -> None:
    """Draws each part of the plots but the first in a copy of this process.

    Raises:
        RuntimeError: a copy failed.
    """
    copies = [_copy(part, directory, steps) for part in parts[1:]]
    try:
        parts[0](directory, steps)
    finally:
        failures = [os.waitpid(pid, 0)[1] for pid in copies]
    if any(failures):
        raise RuntimeError("a part of the plots was not drawn")


def _copy(part: Callable[[Path, int], None], directory: Path, steps: int) -> int:
    """Draws a part of the plots in a copy of this process; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        part(directory, steps)
        code = 0
    finally:
        os._exit(code)
