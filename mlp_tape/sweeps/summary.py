"""What a sweep found: its jobs as a table, best and worst, seeds summed up, as text, CSV and Markdown."""

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlp_tape.config.settings import FREE
from mlp_tape.storage.run_record import RunRecord

Cell = str | float | int | list[Any] | None

ACCURACY, LOSS = "test/accuracy", "test/loss"
DECIMALS = {"accuracy": 4, "loss": 6, "seconds": 1, "mean accuracy": 4, "std": 4, "mean seconds": 1}
SHOWN = 40  # rows on a screen or a page; the CSV has all
WIDE = 6  # settings that have a column each on a screen; where more differ, jobs go by their names


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    Attributes:
        headings: of the columns.
        rows: each as long as the headings.
    """

    headings: list[str]
    rows: list[list[Cell]]

    def as_text(self) -> list[str]:
        """Lines of a monospaced table: numbers to the right, the rest to the left."""
        lines = [self.headings, *(_shown(self.headings, row) for row in self.rows)]
        columns = list(zip(*lines, strict=True))
        widths = [max(map(len, column)) for column in columns]
        cells = list(zip(*self.rows, strict=True)) or [()] * len(columns)
        numeric = [all(isinstance(cell, int | float | None) for cell in column) for column in cells]
        return [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in lines
        ]

    def as_markdown(self) -> str:
        """A Markdown table."""
        lines = [
            self.headings,
            ["---"] * len(self.headings),
            *(_shown(self.headings, row) for row in self.rows),
        ]
        escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def as_csv(self) -> str:
        """Comma-separated values, numbers in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return text.getvalue()


@dataclass(frozen=True)
class Summary:
    """The jobs of a sweep.

    Attributes:
        jobs: what is known of each, in the order of what was swept, numbers as numbers.
        swept: the settings in which they differ.
    """

    jobs: list[RunRecord]
    swept: list[str]

    @property
    def finished(self) -> list[RunRecord]:
        """The jobs that reached their end."""
        return [job for job in self.jobs if job.status == "FINISHED"]

    @property
    def best(self) -> RunRecord | None:
        """The finished job with the highest accuracy to choose by; of several, the first."""
        return max(self.finished, key=lambda job: job.chosen_by, default=None)

    @property
    def columns(self) -> list[str]:
        """What tells the jobs apart on a screen: the settings in which they differ, or their names."""
        return self.swept if len(self.swept) <= WIDE else ["name"]

    def table(self, most: int | None = None, columns: list[str] | None = None) -> Table:
        """The jobs.

        Args:
            most: where there are more, those of the highest accuracy.
            columns: what tells them apart; None for `columns`.
        """
        jobs, columns = self.jobs, self.columns if columns is None else columns
        if most is not None and len(jobs) > most:
            jobs = sorted(self.finished, key=lambda job: -job.chosen_by)[:most]
        headings = ["job", *columns, "status", "accuracy", "loss", "seconds"]
        return Table(headings, [self._row(job, columns) for job in jobs])

    def _row(self, job: RunRecord, columns: list[str]) -> list[Cell]:
        known, number = {"name": job.name} | flat(job.settings), job.directory.name
        results = [job.results.get(ACCURACY), job.results.get(LOSS)] if job.results else [None, None]
        first = int(number) if number.isdigit() else number
        return [first, *map(known.get, columns), job.status, *results, round(job.seconds, 2)]

    def everything(self) -> Table:
        """The jobs with all that a program may want to know of them."""
        table = self.table(columns=self.swept)
        more = ["run_id", "reason", "command"]
        rows = [
            [*row, job.run_id, first_line(job.reason), job.command]
            for row, job in zip(table.rows, self.jobs, strict=True)
        ]
        return Table(table.headings + more, rows)

    def over_seeds(self) -> Table | None:
        """Mean and standard deviation of the finished jobs that differ in nothing but their seed.

        None where no two do. The deviation is that of a sample, with n - 1.
        """
        if "seed" not in self.swept:
            return None
        others = [key for key in self.columns if key != "seed"]
        groups: dict[str, tuple[list[Cell], list[RunRecord]]] = {}
        for job in self.finished:
            named = " ".join(word for word in job.name.split() if not word.startswith("seed="))
            known = {"name": named} | flat(job.settings)
            cells = [known.get(key) for key in others]
            groups.setdefault(repr(cells), (cells, []))[1].append(job)
        if all(len(same) < 2 for _, same in groups.values()):
            return None
        rows: list[list[Cell]] = []
        for cells, same in groups.values():
            values, seconds = [job.results[ACCURACY] for job in same], [job.seconds for job in same]
            spread = statistics.stdev(values) if values[1:] else None
            rows.append([*cells, len(same), statistics.mean(values), spread, statistics.mean(seconds)])
        return Table([*others, "seeds", "mean accuracy", "std", "mean seconds"], rows)


def summarize(jobs: Sequence[RunRecord]) -> Summary:
    """Finds out in what the jobs of a sweep differ, and sorts them by it, where that is not too much."""
    found = [flat(job.settings) for job in jobs]
    keys = list(dict.fromkeys(key for settings in found for key in settings))
    swept = [
        key
        for key in keys
        if (key == "epochs" or not key.startswith(FREE))
        and len({repr(settings.get(key)) for settings in found}) > 1
    ]
    if len(swept) > WIDE:
        return Summary(list(jobs), swept)
    order = sorted(jobs, key=lambda job: [_sortable(flat(job.settings).get(key)) for key in swept])
    return Summary(order, swept)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    return dict(_flat(settings, prefix))


def _flat(settings: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def first_line(text: str) -> str:
    """What an error says is wrong, without what it says to do."""
    return text.partition("\n")[0]


def _sortable(value: Any) -> tuple[int, Any]:
    """Numbers before lists before words, each in their own order."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, list):
        return 2, [_sortable(each) for each in value]
    return 3, str(value)


def _shown(headings: Sequence[str], row: Sequence[Cell]) -> list[str]:
    """The cells as a person reads them."""
    return [_shown_cell(cell, DECIMALS.get(heading)) for heading, cell in zip(headings, row, strict=True)]


def _shown_cell(cell: Cell, decimals: int | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return f"[{','.join(map(str, cell))}]"
    if isinstance(cell, float):
        return f"{cell:g}" if decimals is None else f"{cell:.{decimals}f}"
    return str(cell)
