"""The journal: metric rows on disk, from which they are delivered to MLflow."""

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from mlp_tape.errors import BrokenFileError
from mlp_tape.storage import run_paths


class Row(NamedTuple):
    """One value of one metric.

    Attributes:
        key: metric key, such as `train/loss`.
        step: global step, from 0; for a sweep's own metrics, the number of finished jobs.
        value: finite value.
        timestamp: milliseconds since the Unix epoch.
    """

    key: str
    step: int
    value: float
    timestamp: int


class Journal:
    """An append-only file of rows.

    Several threads may append while another process reads; memory does not grow with the file. Within each
    key, steps are in ascending order, so the last step of each key suffices to tell which rows a resumed run
    has already written.

    Args:
        directory: directory of the run; `journal.jsonl` contains one row per line.

    Attributes:
        path: path of `journal.jsonl`.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / run_paths.JOURNAL
        self._file = self.path.open("ab", buffering=0)
        self._writing = threading.Lock()
        self._last: dict[str, int] = {}  # the last step of each key when the file was recovered

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, rows: Iterable[Row]) -> None:
        """Appends rows, except those that the file already contained when it was recovered."""
        new = [row for row in rows if row.step > self._last.get(row.key, -1)]
        remaining = memoryview(b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in new))
        with self._writing:
            while remaining:  # a write to a nearly full disk may be partial; the next one raises
                remaining = remaining[self._file.write(remaining) :]

    def next_step(self, key: str) -> int:
        """Returns the step after the last one of a key when the file was recovered; 0 if there was none."""
        return self._last.get(key, -1) + 1

    def flush(self) -> None:
        """Flushes all written rows to disk, so that they survive a power failure."""
        os.fsync(self._file.fileno())

    def recover(self, delivered: int) -> None:
        """Prepares the file for a resumed run: truncates it before the first row that cannot be read.

        Args:
            delivered: number of bytes that were delivered.

        Raises:
            BrokenFileError: a row that was already delivered cannot be read, so it is unknown what is lost.
        """
        good = 0
        with self.path.open("rb") as file:
            delivered = _line_start(file, delivered)
            file.seek(0)
            for line in file:
                row = _row(line)
                if row is None:
                    break
                self._last[row.key] = row.step
                good += len(line)
        if good < delivered:
            raise BrokenFileError(
                f"{self.path} cannot be read after byte {good:,}, although later rows were already delivered",
                "start a new run, without resume",
            )
        os.truncate(self.path, good)

    def read(self, key: str) -> Iterator[Row]:
        """Yields the rows of one key, or of a key prefix, as `rows` does."""
        return rows(self.path.parent, key)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def rows(directory: Path, key: str) -> Iterator[Row]:
    """Yields the rows of a run with the given key, or with that prefix if it ends with a slash.

    A run that failed before its training, such as a job without data, has no journal, and no rows.
    """
    begins = f'["{key}'.encode() if key.endswith("/") else f'["{key}", '.encode()
    try:
        file = (directory / run_paths.JOURNAL).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            row = _row(line) if line.startswith(begins) else None
            if row is not None:
                yield row


def rows_after(directory: Path, position: int, most: int) -> tuple[list[Row], int]:
    """Reads rows that were not delivered; the last line may still be incomplete.

    Args:
        directory: directory of the run.
        position: number of bytes that were delivered. If no line ends there, the file is read from its
            beginning, as it is harmless to deliver a row twice.
        most: maximum number of rows.

    Returns:
        The rows, and the number of bytes up to their end. None, if the run has no journal yet.

    Raises:
        OSError: the journal cannot be read.
    """
    found: list[Row] = []
    try:
        file = (directory / run_paths.JOURNAL).open("rb")
    except FileNotFoundError:
        if position:
            raise
        return [], 0
    with file:
        position = _line_start(file, position)
        for line in file:
            if len(found) == most or not line.endswith(b"\n"):
                break
            row = _row(line)
            if row is not None:
                found.append(row)
            position += len(line)
    return found, position


def count_after(directory: Path, position: int) -> int:
    """Counts the rows that were not delivered; the arguments are those of `rows_after`."""
    try:
        with (directory / run_paths.JOURNAL).open("rb") as file:
            _line_start(file, position)
            return sum(1 for _ in file)
    except OSError:
        return 0


def _line_start(file: BinaryIO, position: int) -> int:
    """Moves to a position if a line starts there, else to the beginning; returns where that is."""
    if position > 0:
        file.seek(position - 1)
        if file.read(1) == b"\n":
            return position
    return file.seek(0)


def last_step(directory: Path, key: str) -> int | None:
    """Returns the last step of a key in the last 8 KiB of a run's journal; None if it is not there.

    Another process may be writing to the journal.
    """
    try:
        with (directory / run_paths.JOURNAL).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            rows = [_row(line) for line in file]
    except OSError:
        return None
    return next((row.step for row in reversed(rows) if row and row.key == key), None)


def _row(line: bytes) -> Row | None:
    """Parses a line; returns None if it is damaged or incomplete."""
    if not line.endswith(b"\n"):
        return None
    try:
        key, step, value, timestamp = json.loads(line)
    except (ValueError, TypeError):
        return None
    valid = type(step) is type(timestamp) is int and type(value) is float and math.isfinite(value)
    return Row(key, step, value, timestamp) if valid and type(key) is str else None
