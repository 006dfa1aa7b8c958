"""The summary of a sweep: tables of its jobs and of statistics over seeds, as text, CSV and Markdown."""

import csv
import functools
import io
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlp_tape.config.settings import FREE
from mlp_tape.storage import run_paths
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import formatting
from mlp_tape.system.formatting import count

Cell = str | float | int | list[Any] | None

# Decimals in the columns of results; other columns are settings.
DECIMALS = {
    "validation accuracy": 4,
    "test accuracy": 4,
    "test loss": 6,
    "seconds": 1,
    "mean validation accuracy": 4,
    "std validation accuracy": 4,
    "mean test accuracy": 4,
    "std test accuracy": 4,
    "mean seconds": 1,
}
SHOWN = 40  # maximum number of rows on the screen or MLflow page; the CSV file has all
WIDE = 6  # maximum number of swept settings shown as columns; with more, jobs are shown by name


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    Attributes:
        headings: headings of the columns.
        rows: rows of cells, one cell per heading.
        caption: line above the table on the screen and on the MLflow page, such as which rows are shown.
    """

    headings: list[str]
    rows: list[list[Cell]]
    caption: str = ""

    def as_text(self) -> list[str]:
        """Formats the table as lines of monospaced text, with numbers right-aligned and text left-aligned."""
        lines = [self.headings, *self._formatted()]
        columns = list(zip(*lines, strict=True))
        widths = [max(map(len, column)) for column in columns]
        cells = list(zip(*self.rows, strict=True)) or [()] * len(columns)
        numeric = [all(isinstance(cell, int | float | None) for cell in column) for column in cells]
        return [self.caption] * bool(self.caption) + [
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
            *self._formatted(),
        ]
        escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        caption = f"{self.caption}\n\n" if self.caption else ""
        return caption + "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def as_csv(self) -> str:
        """Formats the table as comma-separated values, with numbers at full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return text.getvalue()

    def _formatted(self) -> list[list[str]]:
        """Formats the cells for display."""
        columns = [[row[i] for row in self.rows] for i in range(len(self.headings))]
        texts = [_format_column(*each) for each in zip(self.headings, columns, strict=True)]
        return [list(row) for row in zip(*texts, strict=True)]


@dataclass(frozen=True)
class SeedGroup:
    """Finished jobs with the same data that differ only in their seed.

    Attributes:
        name: their swept settings apart from the seed, such as `lr=0.1`.
        jobs: records of the jobs.
    """

    name: str
    jobs: list[RunRecord]

    def mean(self, metric: str) -> float:
        """The mean of a result over the seeds."""
        return statistics.mean(job.results[metric] for job in self.jobs)

    def std(self, metric: str) -> float | None:
        """The standard deviation of a result over the seeds, that of a sample (n - 1); None for one seed."""
        return statistics.stdev(job.results[metric] for job in self.jobs) if self.jobs[1:] else None


@dataclass(frozen=True)
class Summary:
    """The jobs of a sweep.

    Attributes:
        jobs: records of the jobs, sorted by the swept settings as in `summarize`.
        swept: keys of the settings in which the jobs differ.
    """

    jobs: list[RunRecord]
    swept: list[str]

    @functools.cached_property
    def finished(self) -> list[RunRecord]:
        """The jobs with status FINISHED."""
        return [job for job in self.jobs if job.status == "FINISHED"]

    @functools.cached_property
    def best(self) -> RunRecord | None:
        """The finished job with the highest accuracy (`ranked_by`); of several, the first."""
        return max(self.finished, key=self.score, default=None)

    @functools.cached_property
    def ranked_by(self) -> str:
        """The metric by which jobs are ranked: validation accuracy if all finished jobs have it, else test.

        The two are not comparable.
        """
        validated = self.finished and all(VALIDATION_ACCURACY in job.results for job in self.finished)
        return VALIDATION_ACCURACY if validated else TEST_ACCURACY

    @functools.cached_property
    def metrics(self) -> list[str]:
        """The accuracies that finished jobs have."""
        any_validated = any(VALIDATION_ACCURACY in job.results for job in self.finished)
        return [VALIDATION_ACCURACY, TEST_ACCURACY] if any_validated else [TEST_ACCURACY]

    def score(self, job: RunRecord) -> float:
        """Returns the accuracy by which a finished job is ranked, 0 to 1."""
        return job.results[self.ranked_by]

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
        caption = f"jobs are ranked by {spoken(self.ranked_by)}" if len(self.metrics) > 1 else ""
        if most is not None and len(jobs) > most:
            jobs = sorted(self.finished, key=self.score, reverse=True)[:most]
            of_all = f"best {len(jobs)} of {count(len(self.jobs), 'job')} by {spoken(self.ranked_by)}"
            caption = f"{of_all}; {run_paths.SWEEP_TABLE} has all"
        results = [*self.metrics, TEST_LOSS]
        rows = [self._row(job, columns, results) for job in jobs]
        return Table(["job", *columns, "status", *map(spoken, results), "seconds"], rows, caption)

    def _row(self, job: RunRecord, columns: list[str], results: list[str]) -> list[Cell]:
        known, number = {"name": name_of(job)} | flat(job.settings), job.folder
        first = int(number) if number.isdigit() else number
        cells = [*map(known.get, columns), job.status, *map(job.results.get, results)]
        return [first, *cells, round(job.seconds, 2)]

    def everything(self) -> Table:
        """Returns a table of all jobs with all swept settings, run ids, failure reasons and commands."""
        table = self.table(columns=self.swept)
        more = ["run_id", "reason", "command"]
        rows = [
            [*row, job.run_id, first_line(job.reason), job.command]
            for row, job in zip(table.rows, self.jobs, strict=True)
        ]
        return Table(table.headings + more, rows)

    @functools.cached_property
    def over_seeds(self) -> list[SeedGroup]:
        """The finished jobs, grouped by their settings apart from the seed, best mean accuracy first.

        A mean over fewer seeds is less certain, so settings that finished with fewer seeds than others come
        after them. Empty if no two finished jobs differ only in their seed.
        """
        if "seed" not in self.swept:
            return []
        same: dict[str, list[RunRecord]] = {}
        for job in self.finished:
            known = flat(job.settings)
            others = [known.get(key) for key in self.swept if key != "seed"]
            same.setdefault(repr([job.data_sha256, *others]), []).append(job)
        if all(len(jobs) < 2 for jobs in same.values()):
            return []
        names = self._names([jobs[0] for jobs in same.values()])
        groups = [SeedGroup(name, jobs) for name, jobs in zip(names, same.values(), strict=True)]
        return sorted(groups, key=lambda group: (-len(group.jobs), -group.mean(self.ranked_by)))

    def _names(self, jobs: Sequence[RunRecord]) -> list[str]:
        """Returns the swept settings apart from the seed of jobs, such as `lr=0.1 batch_size=32`."""
        keys = [key for key in self.columns if key != "seed"]
        if keys == ["name"]:
            split = (name_of(job).split() for job in jobs)
            names = [" ".join(word for word in words if not word.startswith("seed=")) for words in split]
            seen = Counter(names)  # a long name is shortened, and may be equal to another
            return [
                name if seen[name] == 1 else f"{name} (job {job.folder})"
                for name, job in zip(names, jobs, strict=True)
            ]
        known = [flat(job.settings) for job in jobs]
        columns = [formatting.column([each.get(key) for each in known]) for key in keys]
        labelled = [[f"{key}={text}" for text in texts] for key, texts in zip(keys, columns, strict=True)]
        return [" ".join(words) for words in zip(*labelled, strict=True)] or [""] * len(jobs)

    def seeds_table(self, most: int | None = None, columns: list[str] | None = None) -> Table:
        """Returns mean and standard deviation over seeds for each setting, best first (`over_seeds`).

        Args:
            most: maximum number of rows; None for all settings.
            columns: columns that identify a setting; None for `Summary.columns`.
        """
        groups, columns = self.over_seeds[:most], self.columns if columns is None else columns
        columns = [key for key in columns if key != "seed"]
        is_cut = len(groups) < len(self.over_seeds)
        shown = f"best {len(groups)} of " * is_cut + count(len(self.over_seeds), "setting")
        caption = f"{shown} by mean {spoken(self.ranked_by)} over seeds"
        if len({len(group.jobs) for group in self.over_seeds}) > 1:
            caption += ", settings with fewer seeds last"
        if is_cut:
            caption += f"; {run_paths.SWEEP_SEEDS} has all"
        metrics = [key for key in self.metrics if all(key in job.results for job in self.finished)]
        headings = [f"{what} {spoken(metric)}" for metric in metrics for what in ("mean", "std")]
        rows: list[list[Cell]] = []
        for group in groups:
            known = {"name": group.name} | flat(group.jobs[0].settings)
            results = [result for key in metrics for result in (group.mean(key), group.std(key))]
            seconds = statistics.mean(job.seconds for job in group.jobs)
            rows.append([*map(known.get, columns), len(group.jobs), *results, seconds])
        return Table([*columns, "seeds", *headings, "mean seconds"], rows, caption)


def spoken(metric: str) -> str:
    """Returns the name of a metric for people, such as `test accuracy` for `test/accuracy`."""
    return metric.replace("/", " ")


def summarize(jobs: Sequence[RunRecord]) -> Summary:
    """Determines the settings in which jobs differ, and sorts the jobs by them unless there are too many."""
    found = [flat(job.settings) for job in jobs]
    keys = list(dict.fromkeys(key for settings in found for key in settings))
    # Files with the same data may have different names.
    with_effect = {"epochs"} | ({"dataset.path"} if len({job.data_sha256 for job in jobs}) > 1 else set())
    swept = [
        key
        for key in keys
        if (key in with_effect or not key.startswith(FREE))
        and len({repr(settings.get(key)) for settings in found}) > 1
    ]
    if len(swept) > WIDE:
        return Summary(list(jobs), swept)
    order = sorted(jobs, key=lambda job: [_sortable(flat(job.settings).get(key)) for key in swept])
    return Summary(order, swept)


def name_of(job: RunRecord) -> str:
    """Returns the name of a job; a job that failed before it began has recorded it as typed."""
    return formatting.name(job.name.split(" "), flat(job.settings))


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


def _format_column(heading: str, cells: Sequence[Cell]) -> list[str]:
    """Formats the cells of a column for display; a missing result is left empty."""
    decimals = DECIMALS.get(heading)
    if decimals is None:
        return formatting.column(cells)
    return ["" if cell is None else f"{cell:.{decimals}f}" for cell in cells]
