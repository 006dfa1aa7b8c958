"""The MLflow run of a sweep, opened before its first job and closed with a report after its last."""

import contextlib
import dataclasses
import functools
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mlp_tape.config.metrics import is_of_test
from mlp_tape.config.settings import Settings, is_description, to_dict
from mlp_tape.data import splits
from mlp_tape.errors import ConfigError, SweepError
from mlp_tape.reports import run_report
from mlp_tape.runs.checks import check_fit
from mlp_tape.runs.destination import destination
from mlp_tape.runs.metadata import given_name
from mlp_tape.storage import lock, run_paths, run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps import monitor, objectives, report, summary
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.monitor import Monitor
from mlp_tape.sweeps.plan import Plan
from mlp_tape.sweeps.summary import Summary
from mlp_tape.system import formatting, provenance
from mlp_tape.system.console import Console
from mlp_tape.system.formatting import are, count
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking import client_process
from mlp_tape.tracking.session import jobs_closed_in_background, run_session, tracker
from mlp_tape.tracking.tracker import Tracker
from mlp_tape.tracking.uri import CHECK_SECONDS, check_reachable, resolve_uri, store_warnings

FINISHED = "sweep/finished"  # metric: the number of jobs that have finished
VALIDATION_FRACTION = 0.1  # of the training images, where something is chosen


@contextlib.contextmanager
def opened(
    plan: Plan, directory: Path, command: Command, get_ready: Callable[[], None] = lambda: None
) -> Iterator[Plan]:
    """Opens and closes the run of a sweep, whose jobs run in the block, and writes its report.

    The report is written however the block ends. The value is the plan without the jobs that are equal
    because their data are, in files of different names for example.

    Args:
        plan: the jobs; their data sets are loaded here.
        directory: directory of the sweep, absolute; created if it does not exist.
        command: what was typed.
        get_ready: called while MLflow is imported and its store opened, to prepare for the jobs.

    Raises:
        ConfigError: the directory belongs to another run or sweep, or is in use by another process, or the
            jobs cannot be compared with those that the sweep has.
        DataError: the data are not available or not usable.
        TrackingError: MLflow cannot be opened.
        SweepError: not all jobs finished.
    """
    settings = plan.jobs[0].settings
    past = run_record.read(directory) if (directory / run_paths.RECORD).exists() else None
    where = destination(settings, past, command.overrides)
    settings = dataclasses.replace(settings, tracking=where.tracking)
    if settings.tracking.enabled:
        check_reachable(resolve_uri(settings.tracking), CHECK_SECONDS)
        client_process.running()  # imports MLflow while the data are loaded
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    with (
        lock.hold(directory),
        _removed_if_refused(directory, new),
        Console() as console,
        Journal(directory) as journal,
    ):
        jobs = SweepDirectory(directory)
        record = _sweep_record(settings, directory, command, plan)
        where.prepare(record, settings)
        _check_comparable(plan, jobs, console.line)
        if where.line:
            console.line(where.line)
        jobs.stop_file.unlink(missing_ok=True)
        plan = _with_data(plan, jobs, _validation_fraction(plan, past), settings, console)
        first = plan.jobs[0].settings
        settings = dataclasses.replace(
            settings, validation_fraction=first.validation_fraction, sweep=first.sweep
        )
        record.settings = to_dict(settings)
        if plan.search:
            from mlp_tape.sweeps import search

            record.search = search.recorded(plan.search, first, directory)
        planned = len(plan.jobs) if plan.is_complete else search_jobs(record)
        journal.recover(record.delivery.position)
        write_files = functools.partial(run_report.write_settings, directory, settings)
        run = tracker(settings.tracking, record, journal)
        get_ready()
        patience = settings.tracking.patience
        with _link_at_end(run, console), run_session(run, patience, record, write_files, console):
            _print_plan(plan, planned, jobs, record, console)
            try:
                with (
                    Monitor(jobs, console, planned, _Progress(journal, settings), bool(plan.search)),
                    jobs_closed_in_background(),
                ):
                    yield dataclasses.replace(plan, say=console.line)
            finally:
                report.conclude(settings, record, jobs, console)
            console.line(f"directory     {directory}")
            _refuse_failures(jobs, record, plan)


@contextlib.contextmanager
def _removed_if_refused(directory: Path, new: list[Path]) -> Iterator[None]:
    """Removes the directory of a sweep if the sweep is refused before it begins.

    To be entered with the lock of the directory, so that no other process has begun a sweep there.

    Args:
        directory: directory of the sweep.
        new: those of the directory and its parents that this process created.
    """
    try:
        yield
    except BaseException:
        if new and not (directory / run_paths.RECORD).exists():
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # another program may use them by now
                for path in new[1:]:
                    path.rmdir()
        raise


def _with_data(
    plan: Plan, jobs: SweepDirectory, fraction: float, settings: Settings, console: Console
) -> Plan:
    """Loads the data of the jobs, and returns the plan with what depends on them, without equal jobs.

    Args:
        plan: the jobs.
        jobs: directory of the sweep, which keeps the data sets in memory.
        fraction: fraction of the training images that is held out.
        settings: settings of the sweep.
        console: receives warnings about the data and the store.
    """
    warnings = _load_data(plan, jobs, fraction, console.line)
    if settings.tracking.enabled:
        warnings |= set(store_warnings(resolve_uri(settings.tracking)))
    for warning in sorted(warnings):
        console.warn(warning)
    return plan.resolved(jobs.resolved).without_equal(jobs.identity)


def _print_plan(
    plan: Plan, planned: int | None, jobs: SweepDirectory, record: RunRecord, console: Console
) -> None:
    """Prints how many jobs there will be, if that is known, and how the best will be chosen."""
    jobs_planned = count(planned, "job") if planned else "jobs"
    if plan.equal:
        jobs_planned += f" ({plan.equal} more {are(plan.equal)} equal to one of them)"
    console.line(f"sweep  {jobs_planned} in {record.directory}")
    if plan.chooses:
        console.line(f"       {_about_choice(plan.jobs[0].settings, jobs, record.overrides)}")


def _load_data(plan: Plan, jobs: SweepDirectory, fraction: float, say: Callable[[str], None]) -> set[str]:
    """Loads the data sets of the jobs, holds out validation images, and checks that the jobs fit them.

    Args:
        plan: the jobs.
        jobs: directory of the sweep, which keeps the data sets in memory.
        fraction: fraction of the training images that is held out.
        say: called with a message before a download.

    Returns:
        Warnings about the data.

    Raises:
        ConfigError: a job does not fit its data, or the jobs cannot be chosen by the same metrics.
        DataError: the data are not available or not usable.
    """
    choices: dict[str, list[Settings]] = {}
    for job in plan.jobs:
        choices.setdefault(repr(job.settings.dataset), []).append(job.settings)
    warnings, chosen_by = set[str](), set[tuple[str, ...]]()
    for of_choice in choices.values():
        choice = of_choice[0].dataset
        dataset = jobs.dataset(choice, say)
        jobs.hold_out(choice, dataset, fraction)
        for each in map(jobs.resolved, of_choice):
            check_fit(each, dataset)
            metrics = objectives.chosen(each)
            objectives.check_measurable(metrics, each, dataset)
            chosen_by.add(tuple(metrics))
        of_file = f"{choice.path}: " if len(choices) > 1 and choice.path else ""
        warnings |= {dataset.warning, *(of_file + doubt for doubt in dataset.doubts)}
    if len(chosen_by) > 1:
        raise ConfigError(
            "some jobs have validation images and others have none, so that results cannot be compared",
            "type one validation_fraction for all jobs, or sweep.choose_by=test/accuracy",
        )
    return warnings - {""}


def search_jobs(record: RunRecord) -> int | None:
    """Returns the maximum number of jobs of a search; None if it is not known."""
    n_trials = record.search.get("n_trials")
    return n_trials * max(1, len(record.search["seeds"])) if n_trials else None


def _validation_fraction(plan: Plan, past: RunRecord | None) -> float:
    """Returns the fraction of the training images that jobs hold out if their settings do not say it."""
    if past:
        return float(past.settings.get("validation_fraction") or 0.0)
    sweep = plan.jobs[0].settings.sweep
    by_test_alone = sweep.choose_by is not None and not sweep.choose_by.startswith("validation/")
    return VALIDATION_FRACTION if plan.chooses and not by_test_alone else 0.0


def _about_choice(settings: Settings, jobs: SweepDirectory, typed: list[str]) -> str:
    """Returns by which images the best job will be chosen, and how to choose otherwise.

    Args:
        settings: settings of the first job.
        jobs: directory of the sweep.
        typed: overrides of the sweep.
    """
    metrics = objectives.chosen(settings)
    names = " and ".join(map(summary.spoken, metrics))
    if any(map(is_of_test, metrics)):
        keys = ("sweep.choose_by=", "sweep.objectives=", "validation_fraction=")
        instead = next((f"leave out {text}" for text in typed if text.startswith(keys)), "start a new sweep")
        return f"chosen by {names}: that of the best is {objectives.WARNING}; for an unbiased one, {instead}"
    dataset = jobs.dataset(settings.dataset)
    if len(dataset.y_validation):
        return f"chosen by {names}, on the {count(len(dataset.y_validation), 'validation image')} of the data"
    n = len(dataset.y_train)
    held_out = f"{splits.number_held_out(n, settings.validation_fraction or 0.0):,} of {n:,} training images"
    return f"chosen by {names}, on {held_out}; validation_fraction=0 keeps all of them to train on"


@contextlib.contextmanager
def _link_at_end(where: Tracker, console: Console) -> Iterator[None]:
    """Prints a link to the sweep after it has been delivered, also if some of its jobs did not finish."""
    failure = None
    try:
        yield
    except SweepError as error:
        failure = error
    link = where.link()
    if link:
        console.line(f"sweep         {link.url}")
        console.line(f"to see it     {link.how_to_open}")
    if failure:
        raise failure


def _check_comparable(plan: Plan, jobs: SweepDirectory, say: Callable[[str], None]) -> None:
    """Raises ConfigError if jobs that are added to a sweep have other data than those that it has."""
    earlier, known = jobs.jobs(), jobs.checksums()
    fractions = {job.settings.get("validation_fraction") for job in earlier}
    wanted = [(job.settings.dataset, job.settings.validation_fraction) for job in plan.jobs]
    for dataset, fraction in {repr(each): each for each in wanted}.values():
        if known and jobs.checksum(dataset, say) not in known:
            what = f"dataset.path={dataset.path}" if dataset.path else f"dataset={dataset.name}"
        elif earlier and fraction is not None and fraction not in fractions:
            what = f"validation_fraction={fraction:g}"
        else:
            continue
        raise ConfigError(
            f"{what} is not what the jobs of the sweep have, so that results could not be compared",
            "leave it out, or start a new sweep without sweep.resume",
        )


def _sweep_record(settings: Settings, directory: Path, command: Command, plan: Plan) -> RunRecord:
    """Returns the record of the sweep: a new one, or that of the sweep to resume."""
    record = RunRecord(directory)
    if (directory / run_paths.RECORD).exists():
        record = run_record.read(directory)
        if settings.sweep.resume is None or record.kind != "sweep":
            raise ConfigError(
                f"{directory} is the directory of another {record.kind}", f"type {record.resume}"
            )
    record.kind, record.settings = "sweep", to_dict(settings)
    record.full = settings.report in (None, "full")
    record.is_multirun_by_config = command.is_multirun_by_config
    record.options, record.overrides = command.options, [without_password(text) for text in command.overrides]
    given = given_name(settings, record.overrides, is_new=not record.made_by)
    if not record.made_by:
        record.made_by, record.source = provenance.fingerprint(), provenance.tags()
        record.token = secrets.token_hex(16)
    settings_typed = [text for text in record.overrides if not is_description(text)]
    if given or not record.is_named:
        record.name = given or _name(settings_typed, len(plan.jobs) if plan.is_complete else None)
        record.is_named = bool(given)
    pairs = [text.lstrip("+~").partition("=") for text in settings_typed]  # the UI displays `0.1,0.01`
    record.params = {
        re.sub(r"[^\w\-./ ]", "_", key): value for key, _, value in pairs if not key.startswith("sweep.")
    }
    return record


def _name(overrides: list[str], planned: int | None) -> str:
    """Returns the name of a sweep in MLflow: its swept settings, with their values if these are short."""
    nested = re.compile(r"""\[[^][]*\]|"[^"]*"|'[^']*'""")  # commas in these do not separate values
    swept = [text for text in overrides if re.search(r"=.*,|=\w+\(", nested.sub("", text))]
    swept = swept or [text for text in overrides if not text.startswith(("sweep.", "tracking.", "hydra"))]
    name = " ".join(["sweep", *map(formatting.numbers, swept)])
    if len(name) <= formatting.NAME:
        return name
    keys = ", ".join(text.lstrip("+").partition("=")[0] for text in swept)
    size = f" ({count(planned, 'job')})" if planned else ""
    return "sweep " + formatting.shorten(keys, formatting.NAME - len("sweep ") - len(size)) + size


class _Progress:
    """Appends metrics of the progress of a sweep to its journal, one step for each finished job.

    Args:
        journal: journal of the sweep.
        settings: settings of the sweep.
    """

    def __init__(self, journal: Journal, settings: Settings) -> None:
        self._journal, self._settings = journal, settings
        self._next = max(1, journal.next_step(FINISHED))

    def __call__(self, jobs: list[RunRecord]) -> None:
        """Appends the metrics after each job that has finished since the last call, ordered by their ends."""
        found = Summary(jobs, [], objectives.chosen(self._settings))
        in_order = sorted(found.finished, key=lambda job: job.ended)
        for n in range(self._next, len(in_order) + 1):
            best = found.score(min(in_order[:n], key=found.cost))
            values = {FINISHED: float(n), f"sweep/best_{found.ranked_by.replace('/', '_')}": best}
            time_ms = int(1000 * in_order[n - 1].ended)
            self._journal.append(Row(key, n, value, time_ms) for key, value in values.items())
        self._next = max(self._next, len(in_order) + 1)


def _refuse_failures(jobs: SweepDirectory, record: RunRecord, plan: Plan) -> None:
    """Raises SweepError, with a line for each failed job, if not all jobs of the plan finished."""
    records = [monitor.current(job) for job in jobs.jobs()]
    missing = 0
    if plan.is_complete:
        names = {jobs.name(job.settings) for job in plan.jobs}
        records = [job for job in records if job.folder in names]
        missing = len(names) - len(records)
    failed = [job for job in records if job.status != "FINISHED"]
    if record.search and len(failed) < len(records):  # a search learns from settings that diverge
        failed = [job for job in failed if not job.has_diverged]
    if not failed and not missing:
        return
    total = count(len(records) + missing, "job")
    what = f"{len(failed)} of {total} did not finish" if failed else f"{missing} of {total} did not begin"
    lines = [f"{monitor.label(job)}  {job.status}: {summary.first_line(job.reason)}" for job in failed]
    if failed and missing:
        lines.append(f"{missing} more did not begin")
    raise SweepError("\n       ".join([what, *lines]), f"to try again: {record.resume}")
