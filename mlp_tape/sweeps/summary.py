"""The summary of a sweep: tables of its jobs and of statistics over seeds, as text, CSV and Markdown."""

import csv
import functools
import io
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlp_tape.config import metrics
from mlp_tape.config.settings import FREE
from mlp_tape.storage import run_paths
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import pareto
from mlp_tape.system import formatting
from mlp_tape.system.formatting import count

Cell = str | float | int | list[Any] | None

# Decimals in the columns of results, by the last word of the heading; other columns are settings.
DECIMALS = {"accuracy": 4, "balanced_accuracy": 4, "macro_f1": 4, "loss": 6, "seconds": 1, "parameters": 0}
SHOWN = 40  # maximum number of rows on the screen or MLflow page; the CSV file has all
CHOSEN_BY_TEST = "measured on the test images, by which the jobs are ranked"
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
    """Finished jobs with the same data that differ only in their seed, or in another setting `sweep.over`.

    Attributes:
        name: their swept settings apart from that, such as `lr=0.1`.
        jobs: records of the jobs.
    """

    name: str
    jobs: list[RunRecord]

    def mean(self, metric: str) -> float:
        """The mean of a metric over the jobs, which have it."""
        return statistics.mean(self._values(metric))

    def std(self, metric: str) -> float | None:
        """The standard deviation of a metric over the jobs, that of a sample (n - 1); None for one job."""
        return statistics.stdev(self._values(metric)) if self.jobs[1:] else None

    def _values(self, metric: str) -> list[float]:
        return [value for job in self.jobs if (value := job.metric(metric)) is not None]


@dataclass(frozen=True)
class Summary:
    """The jobs of a sweep.

    Attributes:
        jobs: records of the jobs, sorted by the swept settings as in `summarize`.
        swept: keys of the settings in which the jobs differ.
        objectives: metrics by which the best are chosen, one or more.
        over: swept setting over which results are averaged to choose the best setting; None for none.
    """

    jobs: list[RunRecord]
    swept: list[str]
    objectives: Sequence[str] = (VALIDATION_ACCURACY,)
    over: str | None = "seed"

    @functools.cached_property
    def finished(self) -> list[RunRecord]:
        """The jobs with status FINISHED, except those that a search pruned."""
        return [job for job in self.jobs if job.status == "FINISHED" and not job.pruned]

    @functools.cached_property
    def pruned(self) -> list[RunRecord]:
        """The jobs that a search ended early."""
        return [job for job in self.jobs if job.status == "FINISHED" and job.pruned]

    @property
    def chooses(self) -> bool:
        """Whether the jobs differ in more than the setting over which results are averaged."""
        return any(key != self.over for key in self.swept)

    @functools.cached_property
    def best(self) -> RunRecord | None:
        """The best finished job by `ranked_by`; with several seeds, the first one of the best setting."""
        if self.over_seeds:
            return self.over_seeds[0].jobs[0]
        return min(self.finished, key=self.rank, default=None)

    @functools.cached_property
    def front(self) -> list[RunRecord]:
        """The finished jobs than which no other is better in all objectives, best in the first one first."""
        measured = [
            (job, [value for key in self.objectives if (value := job.metric(key)) is not None])
            for job in self.finished
        ]
        complete = [(job, values) for job, values in measured if len(values) == len(self.objectives)]
        directions = [metrics.direction(key) for key in self.objectives]
        found = pareto.front([values for _, values in complete], directions)
        return sorted((complete[i][0] for i in found), key=self.rank)

    @functools.cached_property
    def ranked_by(self) -> str:
        """The metric by which jobs are ranked: the first objective if all finished jobs have it.

        Otherwise, the test accuracy, as accuracies on different images are not comparable.
        """
        first = self.objectives[0]
        return first if all(job.metric(first) is not None for job in self.finished) else TEST_ACCURACY

    @functools.cached_property
    def metrics(self) -> list[str]:
        """The results to show: the objectives, and the accuracies that finished jobs have."""
        known = [*self.objectives, VALIDATION_ACCURACY, TEST_ACCURACY]
        known = [key for key in dict.fromkeys(known) if key != "seconds"]  # which is the last column
        jobs = self.finished + self.pruned
        return [key for key in known if any(job.metric(key) is not None for job in jobs)] or [TEST_ACCURACY]

    def score(self, job: RunRecord) -> float:
        """Returns the value by which a finished job is ranked."""
        found = job.metric(self.ranked_by)
        return math.nan if found is None else found

    def cost(self, job: RunRecord) -> float:
        """Returns the value by which finished jobs are sorted, best first; the worst if there is none."""
        return self._sorted_by(self.score(job))

    def rank(self, job: RunRecord) -> tuple[float, int, str]:
        """Returns the key by which jobs are sorted, best first; of equal ones, the earlier job is better."""
        return self.cost(job), len(job.folder), job.folder

    def _sorted_by(self, score: float) -> float:
        if math.isnan(score):
            return math.inf
        return -score if metrics.direction(self.ranked_by) == "maximize" else score

    @property
    def columns(self) -> list[str]:
        """The columns that identify a job: the swept settings, or the name if there are too many."""
        return self.swept if len(self.swept) <= WIDE else ["name"]

    def table(self, most: int | None = None, columns: list[str] | None = None) -> Table:
        """Returns the jobs as a table.

        Args:
            most: maximum number of rows; if there are more jobs, the best of those that finished are shown.
                None for all jobs.
            columns: columns that identify a job; None for `Summary.columns`.
        """
        jobs, columns = self.jobs, self.columns if columns is None else columns
        caption = f"jobs are ranked by {spoken(self.ranked_by)}" if self.chooses and self.finished else ""
        if most is not None and len(jobs) > most:
            jobs = sorted(self.finished, key=self.rank)[:most]
            of_all = f"best {len(jobs)} of {count(len(self.jobs), 'job')} by {spoken(self.ranked_by)}"
            caption = f"{of_all}; {run_paths.SWEEP_TABLE} has all"
        if caption and metrics.is_of_test(self.ranked_by):
            caption += f", which is optimistic for the best ones: it is {CHOSEN_BY_TEST}"
        results = list(dict.fromkeys([*self.metrics, TEST_LOSS]))
        rows = [self._row(job, columns, results) for job in jobs]
        return Table(["job", *columns, "status", *map(spoken, results), "seconds"], rows, caption)

    def _row(self, job: RunRecord, columns: list[str], results: list[str]) -> list[Cell]:
        known, number = {"name": name_of(job)} | flat(job.settings), job.folder
        first = int(number) if number.isdigit() else number
        status = f"PRUNED after {count(job.pruned, 'epoch')}" if job.pruned else job.status
        cells = [*map(known.get, columns), status, *map(job.metric, results)]
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
        """The finished jobs, grouped by their settings apart from `over`, the seed, best mean first.

        A mean over fewer seeds is less certain, so settings that finished with fewer seeds than others come
        after them. Empty if no two finished jobs differ only in their seed.
        """
        if self.over not in self.swept:
            return []
        same: dict[str, list[RunRecord]] = {}
        for job in self.finished:
            known = flat(job.settings)
            others = [known.get(key) for key in self.swept if key != self.over]
            same.setdefault(repr([job.data_sha256, *others]), []).append(job)
        if all(len(jobs) < 2 for jobs in same.values()):
            return []
        names = self._names([jobs[0] for jobs in same.values()])
        groups = [SeedGroup(name, jobs) for name, jobs in zip(names, same.values(), strict=True)]
        metric = self.ranked_by
        return sorted(groups, key=lambda group: (-len(group.jobs), self._sorted_by(group.mean(metric))))

    def _names(self, jobs: Sequence[RunRecord]) -> list[str]:
        """Returns the swept settings apart from `over` of jobs, such as `lr=0.1 batch_size=32`."""
        keys = [key for key in self.columns if key != self.over]
        if keys == ["name"]:
            split = (name_of(job).split() for job in jobs)
            names = [
                " ".join(word for word in words if not word.startswith(f"{self.over}=")) for words in split
            ]
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
        columns, jobs = [key for key in columns if key != self.over], plural(self.over)
        is_cut = len(groups) < len(self.over_seeds)
        shown = f"best {len(groups)} of " * is_cut + count(len(self.over_seeds), "setting")
        caption = f"{shown} by mean {spoken(self.ranked_by)} over {jobs}"
        if len({len(group.jobs) for group in self.over_seeds}) > 1:
            caption += f", settings with fewer {jobs} last"
        if is_cut:
            caption += f"; {run_paths.SWEEP_SEEDS} has all"
        shared = [key for key in self.metrics if all(job.metric(key) is not None for job in self.finished)]
        headings = [f"{what} {spoken(metric)}" for metric in shared for what in ("mean", "std")]
        rows: list[list[Cell]] = []
        for group in groups:
            known = {"name": group.name} | flat(group.jobs[0].settings)
            results = [result for key in shared for result in (group.mean(key), group.std(key))]
            seconds = statistics.mean(job.seconds for job in group.jobs)
            rows.append([*map(known.get, columns), len(group.jobs), *results, seconds])
        return Table([*columns, jobs, *headings, "mean seconds"], rows, caption)

    def front_table(self) -> Table:
        """Returns the front as a table; without rows if there is only one objective."""
        if len(self.objectives) < 2:
            return Table([], [])
        names = " and ".join(map(spoken, self.objectives))
        shown = [key for key in self.objectives if key != "seconds"]
        rows = [self._row(job, self.columns, shown) for job in self.front]
        caption = f"{count(len(rows), 'job')} than which none is better in both {names}"
        if len(self.objectives) > 2:
            caption = caption.replace(" both ", " all of ")
        return Table(["job", *self.columns, "status", *map(spoken, shown), "seconds"], rows, caption)


def plural(over: str | None) -> str:
    """Returns what the values of `over` are called, such as `seeds`."""
    return "seeds" if over == "seed" else f"values of {over}"


def spoken(metric: str) -> str:
    """Returns the name of a metric for people, such as `test accuracy` for `test/accuracy`."""
    return metric.replace("/", " ")


def summarize(
    jobs: Sequence[RunRecord],
    objectives: Sequence[str] = (VALIDATION_ACCURACY,),
    over: str | None = "seed",
    best_first: bool = False,
) -> Summary:
    """Determines the settings in which jobs differ, and sorts the jobs by them unless there are too many.

    Args:
        jobs: records of the jobs.
        objectives: as in `Summary`.
        over: as in `Summary`.
        best_first: whether to sort the jobs by their results instead: those that finished, those that were
            pruned, the others.
    """
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
    swept = [key for key in swept if not _is_default_of_an_option(key, swept, found)]
    order = list(jobs)
    if len(swept) <= WIDE:
        order.sort(key=lambda job: [_sortable(flat(job.settings).get(key)) for key in swept])
    summary = Summary(order, swept, objectives, over)
    if not best_first:
        return summary
    order.sort(key=lambda job: (job.status != "FINISHED", bool(job.pruned), summary.rank(job)))
    return Summary(order, swept, objectives, over)


def _is_default_of_an_option(key: str, swept: list[str], settings: list[dict[str, Any]]) -> bool:
    """Returns whether a setting only differs because an option of its group does, such as the optimizer."""
    option = f"{key.rpartition('.')[0]}.name"
    if key == option or option not in swept:
        return False
    pairs = {(each.get(option), repr(each.get(key))) for each in settings}
    return len(pairs) == len({name for name, _ in pairs})


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
    is_result = " " in heading or heading in ("seconds", "parameters")
    decimals = DECIMALS.get(heading.split()[-1]) if is_result else None
    if decimals is None:
        return formatting.column(cells)
    return ["" if cell is None else f"{cell:.{decimals}f}" for cell in cells]
