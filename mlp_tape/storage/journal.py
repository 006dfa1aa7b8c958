"""The journal: metric rows on disk, written before they are sent to MLflow."""

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

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
    """An append-only file of rows, and the position up to which they were delivered.

    Several threads may append while another one reads and acknowledges; memory does not grow with the file.
    Within each key, steps are in ascending order, so the last step of each key suffices to tell which rows a
    resumed run has already written.

    Args:
        directory: directory of the run. `journal.jsonl` contains one row per line, and `journal.sent` the
            number of its bytes that were delivered.

    Attributes:
        path: path of `journal.jsonl`.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / run_paths.JOURNAL
        self._sent = directory / run_paths.DELIVERED
        self._file = self.path.open("ab", buffering=0)
        self._writing = threading.Lock()
        self._last: dict[str, int] = {}  # the last step of each key when the file was recovered
        self._delivered = self._position()

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

    def recover(self) -> None:
        """Prepares the file for a resumed run: truncates it before the first row that cannot be read.

        Raises:
            BrokenFileError: a row that was already delivered cannot be read, so it is unknown what is lost.
        """
        good = 0
        with self.path.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    break
                self._last[row.key] = row.step
                good += len(line)
        if good < self._delivered:
            raise BrokenFileError(
                f"{self.path} cannot be read after byte {good:,}, although later rows were already delivered",
                "start a new run, without resume",
            )
        os.truncate(self.path, good)

    def unsent(self, most: int) -> tuple[list[Row], int]:
        """Returns at most `most` rows that were not delivered, and the byte position after them."""
        rows: list[Row] = []
        position = self._delivered
        with self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                if len(rows) == most or not line.endswith(b"\n"):
                    break
                row = _row(line)
                if row is not None:
                    rows.append(row)
                position += len(line)
        return rows, position

    def count_unsent(self) -> int:
        """Counts the rows that were not delivered."""
        with self.path.open("rb") as file:
            file.seek(self._position())  # read again, since another process may deliver the rows
            return sum(1 for _ in file)

    def acknowledge(self, position: int) -> None:
        """Records that all rows before the byte `position` were delivered."""
        self._delivered = position
        new = self._sent.with_suffix(".new")
        new.write_text(str(position))
        new.replace(self._sent)  # if a power failure loses it, rows are sent again, which is harmless

    def mark_undelivered(self) -> None:
        """Marks all rows as not delivered, for a store that contains none of them."""
        self._delivered = 0
        self._sent.unlink(missing_ok=True)

    def read(self, key: str) -> Iterator[Row]:
        """Yields the rows of one key, or of a key prefix, as `rows` does."""
        return rows(self.path.parent, key)

    def close(self) -> None:
        """Closes the file; `acknowledge` can still be called."""
        self._file.close()

    def _position(self) -> int:
        """Returns the byte position up to which rows were delivered; 0 if unknown: resending is harmless."""
        try:
            position = int(self._sent.read_text())
            with self.path.open("rb") as file:
                file.seek(position - 1)
                return position if file.read(1) == b"\n" else 0
        except (OSError, ValueError):
            return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def rows(directory: Path, key: str) -> Iterator[Row]:
    """Yields the rows of a run with the given key, or with that prefix if it ends with a slash."""
    begins = f'["{key}'.encode() if key.endswith("/") else f'["{key}", '.encode()
    with (directory / run_paths.JOURNAL).open("rb") as file:
        for line in file:
            row = _row(line) if line.startswith(begins) else None
            if row is not None:
                yield row


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
