"""The report of a sweep: tables, MLflow page, plots, the model of the best job, and unsent data."""

import math
import shlex
import time
from pathlib import Path

from mlp_tape.config.settings import DatasetSettings, Settings
from mlp_tape.errors import MlpTapeError
from mlp_tape.reports import run_report
from mlp_tape.storage import journal, lock, run_paths
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TRAIN_LOSS
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import monitor, summary
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.summary import SHOWN, Summary
from mlp_tape.system import atomic_files, signals, sqlite_file, tensorflow_setup
from mlp_tape.system.console import Console
from mlp_tape.tracking import client

SEND_LIMIT = 2.0  # seconds to send what jobs could not send, if the sweep was stopped by a signal
TAG = 7_000  # maximum number of characters; MLflow accepts 8,000


def conclude(settings: Settings, record: RunRecord, jobs: SweepDirectory, console: Console) -> None:
    """Reports the results of the jobs as tables and plots, and sends what MLflow is missing of them.

    Args:
        settings: settings of the first job.
        record: record of the sweep; its tags are updated.
        jobs: directory of the sweep.
        console: receives the tables.
    """
    found = _summary(jobs)
    _write(found, record)
    _print(found, console)
    if not signals.received():
        if settings.report is None:
            _report_best(found, jobs)
        _draw(found, record.directory / run_paths.PLOTS)
    _send_unsent(found, console, SEND_LIMIT if signals.received() else math.inf)
    _write(_summary(jobs), record)  # some jobs may have received their MLflow run ids only now


def _summary(jobs: SweepDirectory) -> Summary:
    """Summarizes the current state of the jobs."""
    return summary.summarize([monitor.current(job) for job in jobs.jobs()])


def _print(found: Summary, console: Console) -> None:
    """Prints the tables and the best job."""
    for table in (found.table(SHOWN), found.over_seeds()):
        if table is not None and table.rows:
            for line in ("", *table.as_text()):
                console.line(line)
    if len(found.jobs) > SHOWN:
        console.line(_more(found))
    if found.best:
        console.line("")
        console.line(f"best          {_about(found.best)}{found.best.command}")


def _write(found: Summary, record: RunRecord) -> None:
    """Writes `sweep.csv` and `sweep.md`, and sets the description of the sweep for MLflow."""
    best, page = found.best, []
    if best:
        page.append(f"**Best:** {_about(best)}`{best.command}`\n")
        record.tags = {"best.run_id": best.run_id, "best.command": best.command}
    for table in (found.table(SHOWN), found.over_seeds()):
        if table is not None and table.rows:
            page.append(table.as_markdown())
    if len(found.jobs) > SHOWN:
        page.append(_more(found) + "\n")
    text = "\n".join([*page, f"`{record.command}`\n"])
    record.tags["mlflow.note.content"] = (
        text if len(text) <= TAG else f"{text[:TAG]}\n\n... continued in sweep.md"
    )
    atomic_files.write(record.directory / run_paths.SWEEP_TABLE, found.everything().as_csv().encode())
    atomic_files.write(record.directory / run_paths.SWEEP_PAGE, text.encode())


def _about(best: RunRecord) -> str:
    return f"job {best.directory.name}, test accuracy {best.results[TEST_ACCURACY]:.4f}: "


def _more(found: Summary) -> str:
    return f"the best {len(found.table(SHOWN).rows)} of {len(found.jobs)} jobs; sweep.csv has all"


def _report_best(found: Summary, jobs: SweepDirectory) -> None:
    """Creates the plots and the model of the best job."""
    best = found.best
    if best is None or best.full:
        return
    with lock.hold(best.directory), Journal(best.directory) as rows:
        dataset = jobs.dataset(DatasetSettings(**best.settings["dataset"]))
        tensorflow_setup.import_tensorflow()
        from mlp_tape.reports import saved_model

        saved_model.save(best.directory)
        run_report.draw_plots(best.directory, dataset, best.steps, rows)
        best.full, best.model_ready, best.version = True, True, best.version + 1
        best.save()


def _draw(found: Summary, folder: Path) -> None:
    """Draws the plots of a sweep, if any job has finished."""
    if not found.finished:
        return
    from mlp_tape.reports import curve_plots, sweep_plots  # import matplotlib

    folder.mkdir(exist_ok=True)
    settings = [{"name": job.name} | summary.flat(job.settings) for job in found.finished]
    swept = {key: [each.get(key) for each in settings] for key in found.columns}
    accuracies = [job.results[TEST_ACCURACY] for job in found.finished]
    sweep_plots.accuracies(folder / "sweep_accuracy.png", swept, accuracies)
    best = set(sorted(range(len(accuracies)), key=lambda i: -accuracies[i])[: curve_plots.MOST])
    shown = [job for i, job in enumerate(found.finished) if i in best]
    curve_plots.overlay(folder / "sweep_curves.png", [_curves(job) for job in shown])


def _curves(job: RunRecord) -> tuple[str, list[tuple[int, float]], list[tuple[int, float]], int]:
    losses, tested = (
        [(row.step, row.value) for row in journal.rows(job.directory, key)]
        for key in (TRAIN_LOSS, TEST_ACCURACY)
    )
    return job.name, losses, tested, job.steps


def _send_unsent(found: Summary, console: Console, at_most: float) -> None:
    """Sends what the processes of the jobs could not send, for at most `at_most` seconds."""
    ends, unsent = time.monotonic() + at_most, 0
    for job in found.jobs:
        if not job.store or job.sent or job.status == "RUNNING":  # RUNNING: still in another process
            continue
        if time.monotonic() > ends:
            unsent += 1
            continue
        try:
            client.send(job.directory, max(0.1, ends - time.monotonic()))
        except MlpTapeError as error:
            hint = error.hint if sqlite_file.is_damage(error.what) else f"To send it: {job.sync}"
            console.warn(f"{monitor.label(job)}: {error.what}\n{hint}")
    if unsent:
        console.warn(
            f"MLflow is missing part of {unsent} more {'job' if unsent == 1 else 'jobs'}.\n"
            f"To send it: python -m mlp_tape sync {shlex.quote(str(found.jobs[0].directory.parent))}"
        )
