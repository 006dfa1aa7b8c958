"""Console output of a run: lines, warnings and progress bars, with a copy of all lines in a file."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlp_tape.system.formatting import count
from mlp_tape.system.redaction import without_password


class _Plain(rich.console.Console):
    """Prints text unformatted, and stops printing when the pipe is closed, as by `| head`."""

    def __init__(self, file: TextIO) -> None:
        if isinstance(file, io.TextIOWrapper):
            is_terminal = None  # if it says so
            if file.errors == "strict":  # the encoding may be ASCII
                file.reconfigure(errors="backslashreplace")
        else:
            is_terminal = False  # the output of a notebook says so, but cannot move a cursor
        super().__init__(
            file=file,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
            force_terminal=is_terminal,
            force_jupyter=False,
        )

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


class Console:
    """Prints to a terminal, or plain lines to a pipe, and copies lines and tracebacks to a file.

    Args:
        on_screen: whether to print; if False, lines are only copied to the file.

    Attributes:
        animated: whether progress bars are shown, as on a terminal.
    """

    def __init__(self, on_screen: bool = True) -> None:
        self._log: TextIO = io.StringIO()  # until `copy_to` is called
        self._traced: BaseException | None = None
        self._out, self._err = _Plain(sys.stdout), _Plain(sys.stderr)
        self._out.quiet = self._err.quiet = not on_screen
        self.animated = on_screen and self._out.is_terminal

    def copy_to(self, path: Path) -> None:
        """Appends the copy to a file, including everything printed before this call."""
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
        if isinstance(self._log, io.StringIO):
            file.write(self._log.getvalue())
        self._log = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.trace(error)
        with contextlib.suppress(OSError):  # such as a full disk, which is reported on the screen
            self._log.close()

    def trace(self, error: BaseException) -> None:
        """Copies the traceback of an error to the file, once; the screen shows two lines of it only."""
        if error is not self._traced:
            self._traced = error
            with contextlib.suppress(OSError):
                self._log.write(without_password("".join(traceback.format_exception(error))))
                self._log.flush()

    def line(self, text: str) -> None:
        """Prints a line to standard output."""
        self._out.print(text)
        self._copy(text)

    def warn(self, text: str) -> None:
        """Prints a warning to standard error, between two horizontal rules."""
        framed = "\n".join(["=" * 78, *(f"WARNING  {line}" for line in text.splitlines()), "=" * 78])
        self._err.print(framed, style="bold yellow")
        self._copy(framed)

    def _copy(self, text: str) -> None:
        with contextlib.suppress(ValueError):  # closed: another thread may have a warning after the end
            self._log.write(text + "\n")
            self._log.flush()

    @contextlib.contextmanager
    def waiting(self, why: str) -> Iterator[Callable[[int], None]]:
        """Shows how many rows remain to be sent; without a terminal, only the first count.

        Args:
            why: reason for waiting, shown before the count.

        Yields:
            A function that shows the number of remaining rows; nothing is shown before its first call.
        """
        if not self.animated:
            shown: list[int] = []

            def show_once(rows: int) -> None:
                if not shown:
                    shown.append(rows)
                    self.line(f"{why}: {count(rows, 'row')} remaining")

            yield show_once
            return
        status = self._out.status(why)

        def update(rows: int) -> None:
            status.update(f"{why}: {count(rows, 'row')} remaining")
            status.start()

        try:
            yield update
        finally:
            status.stop()

    def error(self, text: str) -> None:
        """Prints a line to standard error."""
        self._err.print(text, style="red")
        self._copy(text)

    @contextlib.contextmanager
    def jobs_progress(self) -> Iterator[Callable[[int, int | None, dict[str, tuple[int, int]]], None]]:
        """Shows a progress bar for a sweep and one for each running job; nothing without a terminal.

        Yields:
            A function of the number of jobs that have ended, the total number of jobs (None if unknown), and
            for each running job by name, the steps completed and the total number of steps.
        """
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}"))
        with Progress(*columns, console=self._out, transient=True, disable=not self.animated) as bar:
            all_jobs, tasks = bar.add_task(""), dict[str, TaskID]()

            def show(ended: int, planned: int | None, running: dict[str, tuple[int, int]]) -> None:
                of_all = f"{ended} of {count(planned, 'job')}" if planned else count(ended, "job")
                bar.update(all_jobs, completed=ended, total=planned, description=of_all)
                for name in set(tasks) - set(running):
                    bar.remove_task(tasks.pop(name))
                for name, (done, steps) in running.items():
                    if name not in tasks:
                        tasks[name] = bar.add_task("")
                    bar.update(tasks[name], completed=done, total=steps or None, description=name)

            yield show

    @contextlib.contextmanager
    def progress(self, done: int, steps: int) -> Iterator[Callable[[int, str], None]]:
        """Shows a progress bar; nothing without a terminal.

        Args:
            done: number of steps already completed.
            steps: total number of steps.

        Yields:
            A function of the number of steps completed, and the text to show next to the bar.
        """
        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._out, transient=True, disable=not self.animated) as bar:
            task = bar.add_task("", total=steps, completed=done)
            yield lambda done, text: bar.update(task, completed=done, description=text)
