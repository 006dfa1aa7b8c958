"""Metric rows on disk, written before they are sent anywhere."""

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mlp_tape.errors import BrokenFileError

FILE = "journal.jsonl"


class Row(NamedTuple):
    """One value of one metric.

    Attributes:
        key: such as `train/loss`.
        step: the global step, from 0.
        value: finite.
        timestamp: milliseconds since 1970.
    """

    key: str
    step: int
    value: float
    timestamp: int


class Journal:
    """An append-only file of rows, and how far they were delivered.

    Threads append, another one reads and acknowledges; memory does not grow with the file. The steps of
    each key come in ascending order, which is what makes it cheap to know what a resumed run has already
    written.

    Args:
        directory: of the run; `journal.jsonl` holds a row a line, `journal.sent` the number of bytes of
            it that were delivered.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._sent = directory / "journal.sent"
        self._file = self.path.open("ab", buffering=0)
        self._writing = threading.Lock()
        self._last: dict[str, int] = {}  # the last step of each key, as a stopped process left it
        self._delivered = self._position()

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, rows: Iterable[Row]) -> None:
        """Writes rows to the file, but for those that were there when it was recovered."""
        new = [row for row in rows if row.step > self._last.get(row.key, -1)]
        left = memoryview(b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in new))
        with self._writing:
            while left:  # a disk that is nearly full takes a part, and refuses the next
                left = left[self._file.write(left) :]

    def next_step(self, key: str) -> int:
        """The step after the last one of a key when the file was recovered; 0 where there was none."""
        return self._last.get(key, -1) + 1

    def bring_to_disk(self) -> None:
        """Returns when what was written is safe from a power cut."""
        os.fsync(self._file.fileno())

    def recover(self) -> None:
        """Makes the file ready to be gone on with: cuts off what a killed process left half written.

        Raises:
            BrokenFileError: a row that was sent already cannot be read, so what is lost cannot be known.
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
                f"{self.path} cannot be read behind its byte {good:,}, where rows were sent already",
                "start the run anew, without resume",
            )
        os.truncate(self.path, good)

    def unsent(self, most: int) -> tuple[list[Row], int]:
        """Reads at most `most` rows that were not delivered, and the position behind them."""
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
            file.seek(self._position())  # as it is by now: another process may be the one that delivers
            return sum(1 for _ in file)

    def acknowledge(self, position: int) -> None:
        """Notes that everything before `position` was delivered."""
        self._delivered = position
        new = self._sent.with_suffix(".new")
        new.write_text(str(position))
        new.replace(self._sent)  # lost in a power cut, it costs a delivery anew, which is harmless

    def send_anew(self) -> None:
        """Counts all rows as unsent, for a store that has none of them."""
        self._delivered = 0
        self._sent.unlink(missing_ok=True)

    def read(self, key: str) -> Iterator[Row]:
        """Yields the rows of one key, as `rows` does."""
        return rows(self.path.parent, key)

    def close(self) -> None:
        """Gives the file back; what was delivered can still be acknowledged."""
        self._file.close()

    def _position(self) -> int:
        """How far the rows were delivered: 0 where that is not known, for sending again is harmless."""
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
    """Yields a run's rows of one key, or of all keys that begin with it if it ends with a slash."""
    begins = f'["{key}'.encode() if key.endswith("/") else f'["{key}", '.encode()
    with (directory / FILE).open("rb") as file:
        for line in file:
            row = _row(line) if line.startswith(begins) else None
            if row is not None:
                yield row


def last_step(directory: Path, key: str) -> int | None:
    """The last step of a key among the last rows of a run's journal, which another process may be writing."""
    try:
        with (directory / FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            rows = [_row(line) for line in file]
    except OSError:
        return None
    return next((row.step for row in reversed(rows) if row and row.key == key), None)


def _row(line: bytes) -> Row | None:
    """The row of a line, or None if it is damaged or not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        key, step, value, timestamp = json.loads(line)
    except (ValueError, TypeError):
        return None
    whole = type(step) is type(timestamp) is int and type(value) is float and math.isfinite(value)
    return Row(key, step, value, timestamp) if whole and type(key) is str else None
