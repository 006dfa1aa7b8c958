"""A sweep's own run: opened before its first job, closed after its last with an answer, however it ends."""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlp_tape import address, config, courier, files, provenance, record, report, stop, summary, watch
from mlp_tape.config import DatasetSettings, Settings, TrackingSettings
from mlp_tape.console import Console
from mlp_tape.errors import ConfigError, MlpTapeError, SweepError
from mlp_tape.journal import Journal, Row
from mlp_tape.ledger import Ledger
from mlp_tape.record import Record
from mlp_tape.recording import jobs_closed_in_background, recorded, tracker
from mlp_tape.redact import without_password
from mlp_tape.summary import ACCURACY, SHOWN, Summary
from mlp_tape.watch import Watch

HURRY = 2.0  # seconds for what jobs could not send, where somebody waits for the end
TAG = 7_000  # characters: MLflow takes 8,000


@contextlib.contextmanager
def opened(
    settings: Settings,
    directory: Path,
    overrides: list[str],
    choices: Sequence[DatasetSettings],
    planned: int | None,
    get_ready: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Keeps a sweep's run while its jobs run in the block.

    Args:
        settings: of the first job.
        directory: of the sweep, absolute.
        overrides: as typed on the command line.
        choices: of data, by the jobs that are known before; all are loaded once, here.
        planned: how many jobs there will be, if that is known.
        get_ready: what can be done for the jobs while MLflow is imported and opened.

    Raises:
        ConfigError: another process is at work on it, or the directory is another's.
        DataError: the data cannot be had or used.
        TrackingError: MLflow cannot be opened.
        SweepError: not all jobs finished.
    """
    if settings.tracking.enabled:
        address.refuse_silence(address.of(settings.tracking))
    directory.mkdir(parents=True, exist_ok=True)
    with record.at_work(directory), Console() as console, Journal(directory) as journal:
        jobs = Ledger(directory)
        note = _noted(settings, directory, overrides)
        jobs.stop_file.unlink(missing_ok=True)
        warnings = {jobs.dataset(choice, console.line).warning for choice in choices}
        for warning in warnings - {""}:
            console.warn(warning)
        journal.recover()
        write_files = functools.partial(report.at_the_start, directory, settings)
        where = tracker(_where(settings, note), note, journal)
        get_ready()
        with recorded(where, settings.tracking.patience, note, write_files, journal, console):
            console.line(f"sweep  {f'{planned} jobs' if planned else 'jobs'} in {directory}")
            try:
                progress = functools.partial(_report_progress, journal)
                with Watch(jobs, console, planned, progress), jobs_closed_in_background():
                    yield
            finally:
                _answer(settings, note, jobs, console)
            console.line(f"directory     {directory}")
            if where.link:
                console.line(f"sweep         {where.overview}")
                console.line(f"to see it     {address.how_to_open(address.of(settings.tracking))}")
            _refuse_failures(jobs, note, planned)


def _answer(settings: Settings, note: Record, jobs: Ledger, console: Console) -> None:
    """Says what has come of the jobs: table, best, pictures; sends what MLflow has not got of them."""
    found = summary.summarize([watch.as_it_is(job) for job in jobs.jobs()])
    _conclude(found, note, console)
    _keep_no_password(note.directory / "multirun.yaml")
    if not stop.asked():
        if settings.report is None:
            _show_best(found, jobs)
        _draw(found, note.directory / "plots")
    _settle(found, console, HURRY if stop.asked() else math.inf)


def _noted(settings: Settings, directory: Path, overrides: list[str]) -> Record:
    """The sweep's record: a new one, or what was left of one that is picked up."""
    note = Record(directory)
    if (directory / record.FILE).exists():
        note = record.read(directory)
        if settings.sweep.resume is None or note.kind != "sweep":
            raise ConfigError(f"{directory} is the directory of another {note.kind}", f"type {note.resume}")
    note.kind, note.settings = "sweep", config.nested(settings)
    note.overrides = [without_password(text) for text in overrides]
    note.made_by = note.made_by or provenance.makers()
    swept = [text for text in note.overrides if "," in text or "(" in text]
    note.name = " ".join(["sweep", *(swept or note.overrides)])[:200]
    pairs = [text.lstrip("+~").partition("=") for text in note.overrides]  # the UI shows `0.1,0.01`
    note.params = {
        re.sub(r"[^\w\-./ ]", "_", key): value for key, _, value in pairs if not key.startswith("sweep.")
    }
    return note


def _where(settings: Settings, note: Record) -> TrackingSettings:
    """Where the sweep was recorded; a new one, as the settings say."""
    if not note.run_id or not settings.tracking.enabled:
        return settings.tracking
    return dataclasses.replace(settings.tracking, uri=address.kept(note.uri))


def _report_progress(journal: Journal, jobs: list[Record]) -> None:
    """Lets MLflow show how far a sweep is while it lasts."""
    done = [job.results[ACCURACY] for job in jobs if job.status == "FINISHED"]
    values = {"sweep/finished": float(len(done)), "sweep/best_accuracy": max(done)}
    journal.append(Row(key, len(done), value, int(1000 * time.time())) for key, value in values.items())


def _show_best(found: Summary, jobs: Ledger) -> None:
    """Gives the best job pictures and a model."""
    best = found.best
    if best is None or best.full:
        return
    with record.at_work(best.directory), Journal(best.directory) as journal:
        dataset = jobs.dataset(DatasetSettings(**best.settings["dataset"]))
        report.in_pictures(best.directory, dataset, best.steps, journal)
        best.full, best.sent = True, False
        best.save()


def _settle(found: Summary, console: Console, at_most: float) -> None:
    """Tells MLflow what processes that are gone, or had no answer, could not."""
    ends = time.monotonic() + at_most
    for job in found.jobs:
        if not job.uri or job.sent or job.status == "RUNNING":  # such a one is at work elsewhere
            continue
        try:
            courier.send(job.directory, max(0.1, ends - time.monotonic()))
        except MlpTapeError as error:
            console.warn(f"{watch.label(job)}: {error.what}\nTo send it: {job.sync}")


def _conclude(found: Summary, note: Record, console: Console) -> None:
    """Writes the answer of a sweep to its directory, to MLflow and to the screen."""
    seeds, best, short = found.over_seeds(), found.best, found.table(SHOWN)
    page = []
    if best:
        told = f"job {best.directory.name}, test accuracy {best.results[ACCURACY]:.4f}: "
        page.append(f"**Best:** {told}`{best.command}`\n")
        note.tags = {"best.run_id": best.run_id, "best.command": best.command}
    for table in (short, seeds):
        if table is not None and table.rows:
            page.append(table.as_markdown())
            for line in ("", *table.as_text()):
                console.line(line)
    if len(short.rows) < len(found.jobs):
        more = f"the best {len(short.rows)} of {len(found.jobs)} jobs; sweep.csv has all"
        page.append(more + "\n")
        console.line(more)
    page.append(f"`{note.command}`\n")
    if best:
        console.line("")
        console.line(f"best          {told}{best.command}")
    text = "\n".join(page)
    short_text = text if len(text) <= TAG else f"{text[:TAG]}\n\n... and so on in sweep.md"
    note.tags["mlflow.note.content"] = short_text
    files.write(note.directory / "sweep.csv", found.everything().as_csv().encode())
    files.write(note.directory / "sweep.md", text.encode())


def _keep_no_password(path: Path) -> None:
    """Hydra's own copy of the settings has them as they were typed."""
    if path.exists():
        files.write(path, without_password(path.read_text()).encode())


def _draw(found: Summary, folder: Path) -> None:
    """The pictures of a sweep that has something to show."""
    if not found.finished:
        return
    from mlp_tape import sweep_plots  # imports matplotlib

    folder.mkdir(exist_ok=True)
    settings = [summary.flat(job.settings) for job in found.finished]
    swept = {key: [each.get(key) for each in settings] for key in found.swept}
    accuracies = [job.results[ACCURACY] for job in found.finished]
    sweep_plots.accuracies(folder / "sweep_accuracy.png", swept, accuracies)
    best = set(sorted(range(len(accuracies)), key=lambda i: -accuracies[i])[: sweep_plots.MOST])
    shown = [job for i, job in enumerate(found.finished) if i in best]
    sweep_plots.curves(folder / "sweep_curves.png", [_curves(job) for job in shown])


def _curves(job: Record) -> tuple[str, list[tuple[int, float]], list[tuple[int, float]], int]:
    with Journal(job.directory) as journal:
        losses, tested = (
            [(row.step, row.value) for row in journal.read(key)] for key in ("train/loss", ACCURACY)
        )
    return job.name, losses, tested, job.steps


def _refuse_failures(jobs: Ledger, note: Record, planned: int | None) -> None:
    """Says which jobs did not finish, for the exit code."""
    begun = [watch.as_it_is(job) for job in jobs.jobs()]
    failed = [job for job in begun if job.status != "FINISHED"]
    missing = max(0, (planned or 0) - len(begun))
    if not failed and not missing:
        return
    what = f"{len(failed)} of {max(planned or 0, len(begun))} jobs did not finish"
    lines = [f"{watch.label(job)}  {job.status}: {summary.first_line(job.reason)}" for job in failed]
    if missing:
        lines.append(f"{missing} more did not begin")
    raise SweepError("\n       ".join([what, *lines]), f"to try again: {note.resume}")
