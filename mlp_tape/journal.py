"""Metric rows on disk, written before they are sent anywhere."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


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

    One thread appends, another reads; memory does not grow with the file.

    Args:
        directory: of the run; `journal.jsonl` holds a row a line, `journal.sent` the number of bytes of
            it that were delivered.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal.jsonl"
        self._sent = directory / "journal.sent"
        self._file = self.path.open("ab", buffering=0)

    def append(self, rows: Iterable[Row]) -> None:
        """Writes rows to the file, in one call to the operating system."""
        self._file.write(b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows))

    def unsent(self, most: int) -> tuple[list[Row], int]:
        """Reads at most `most` rows that were not delivered, and the position behind them."""
        position = int(self._sent.read_text()) if self._sent.exists() else 0
        rows: list[Row] = []
        with self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                if len(rows) == most or not line.endswith(b"\n"):
                    break
                rows.append(Row(*json.loads(line)))
                position += len(line)
        return rows, position

    def acknowledge(self, position: int) -> None:
        """Notes that everything before `position` was delivered."""
        new = self._sent.with_suffix(".new")
        new.write_text(str(position))
        new.replace(self._sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
