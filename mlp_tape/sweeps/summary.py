"""The summary of a sweep: tables of its jobs and of statistics over seeds, as text, CSV and Markdown."""

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlp_tape.config.settings import FREE
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS
from mlp_tape.storage.run_record import RunRecord

Cell = str | float | int | list[Any] | None

DECIMALS = {"accuracy": 4, "loss": 6, "seconds": 1, "mean accuracy": 4, "std": 4, "mean seconds": 1}
SHOWN = 40  # maximum number of rows on the screen or MLflow page; the CSV file has all
WIDE = 6  # maximum number of swept settings shown as columns; with more, jobs are shown by name


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    Attributes:
        headings: headings of the columns.
        rows: rows of cells, one cell per heading.
    """

    headings: list[str]
    rows: list[list[Cell]]

    def as_text(self) -> list[str]:
        """Formats the table as lines of monospaced text, with numbers right-aligned and text left-aligned."""
        lines = [self.headings, *(_format_row(self.headings, row) for row in self.rows)]
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
        """Formats the table as Markdown."""
        lines = [
            self.headings,
            ["---"] * len(self.headings),
            *(_format_row(self.headings, row) for row in self.rows),
        ]
        escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def as_csv(self) -> str:
        """Formats the table as comma-separated values, with numbers at full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return text.getvalue()


@dataclass(frozen=True)
class Summary:
    """The jobs of a sweep.

    Attributes:
        jobs: records of the jobs, sorted by the swept settings as in `summarize`.
        swept: keys of the settings in which the jobs differ.
    """

    jobs: list[RunRecord]
    swept: list[str]

    @property
    def finished(self) -> list[RunRecord]:
        """The jobs with status FINISHED."""
        return [job for job in self.jobs if job.status == "FINISHED"]

    @property
    def best(self) -> RunRecord | None:
        """The finished job with the highest accuracy (`RunRecord.chosen_by`); of several, the first."""
        return max(self.finished, key=lambda job: job.chosen_by, default=None)

    @property
    def columns(self) -> list[str]:
        """The columns that identify a job: the swept settings, or the name if there are too many."""
        return self.swept if len(self.swept) <= WIDE else ["name"]

    def table(self, most: int | None = None, columns: list[str] | None = None) -> Table:
        """Returns the jobs as a table.

        Args:
            most: maximum number of rows; if there are more jobs, the finished ones with the highest accuracy
                are shown. None for all jobs.
            columns: columns that identify a job; None for `Summary.columns`.
        """
        jobs, columns = self.jobs, self.columns if columns is None else columns
        if most is not None and len(jobs) > most:
            jobs = sorted(self.finished, key=lambda job: -job.chosen_by)[:most]
        headings = ["job", *columns, "status", "accuracy", "loss", "seconds"]
        return Table(headings, [self._row(job, columns) for job in jobs])

    def _row(self, job: RunRecord, columns: list[str]) -> list[Cell]:
        known, number = {"name": job.name} | flat(job.settings), job.directory.name
        results = (
            [job.results.get(TEST_ACCURACY), job.results.get(TEST_LOSS)] if job.results else [None, None]
        )
        first = int(number) if number.isdigit() else number
        return [first, *map(known.get, columns), job.status, *results, round(job.seconds, 2)]

    def everything(self) -> Table:
        """Returns a table of all jobs with all swept settings, run ids, failure reasons and commands."""
        table = self.table(columns=self.swept)
        more = ["run_id", "reason", "command"]
        rows = [
            [*row, job.run_id, first_line(job.reason), job.command]
            for row, job in zip(table.rows, self.jobs, strict=True)
        ]
        return Table(table.headings + more, rows)

    def over_seeds(self) -> Table | None:
        """Returns mean and standard deviation of the accuracy over seeds, for finished jobs.

        The standard deviation is that of a sample (n - 1).

        Returns:
            The table; None if no two finished jobs differ only in their seed.
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
            values, seconds = [job.results[TEST_ACCURACY] for job in same], [job.seconds for job in same]
            spread = statistics.stdev(values) if values[1:] else None
            rows.append([*cells, len(same), statistics.mean(values), spread, statistics.mean(seconds)])
        return Table([*others, "seeds", "mean accuracy", "std", "mean seconds"], rows)


def summarize(jobs: Sequence[RunRecord]) -> Summary:
    """Determines the settings in which jobs differ, and sorts the jobs by them unless there are too many."""
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
    """Flattens nested settings to dotted keys."""
    return dict(_flat(settings, prefix))


def _flat(settings: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def first_line(text: str) -> str:
    """Returns the first line of an error message, which omits the hint."""
    return text.partition("\n")[0]


def _sortable(value: Any) -> tuple[int, Any]:
    """Returns a sort key that orders null before numbers before lists before strings."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, list):
        return 2, [_sortable(each) for each in value]
    return 3, str(value)


def _format_row(headings: Sequence[str], row: Sequence[Cell]) -> list[str]:
    """Formats the cells of a row for display."""
    return [_format_cell(cell, DECIMALS.get(heading)) for heading, cell in zip(headings, row, strict=True)]


def _format_cell(cell: Cell, decimals: int | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return f"[{','.join(map(str, cell))}]"
    if isinstance(cell, float):
        return f"{cell:g}" if decimals is None else f"{cell:.{decimals}f}"
    return str(cell)
