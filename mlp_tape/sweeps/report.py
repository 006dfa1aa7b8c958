"""The report of a sweep: tables, MLflow page, plots, the model of the best job, and unsent data."""

import contextlib
import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlp_tape.config.metrics import direction, is_of_test
from mlp_tape.config.settings import DatasetSettings, Settings
from mlp_tape.errors import MlpTapeError
from mlp_tape.reports import plot_process, run_report
from mlp_tape.storage import journal, lock, run_paths
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TRAIN_LOSS, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import monitor, objectives, summary
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.summary import SHOWN, SeedGroup, Summary, Table, spoken
from mlp_tape.system import atomic_files, program, signals, sqlite_file, tensorflow_setup, timeline
from mlp_tape.system.console import Console
from mlp_tape.system.formatting import count
from mlp_tape.tracking import client

if TYPE_CHECKING:
    from mlp_tape.reports.swept_jobs import Job

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
    found = _summary(jobs, settings, record)
    _write(found, record)
    _print(found, console)
    if not signals.received():
        with _best_reported(found, jobs) if settings.report is None else contextlib.nullcontext():
            _draw(found, record)
    _send_unsent(found, console, SEND_LIMIT if signals.received() else math.inf)
    found = _summary(jobs, settings, record)  # some jobs may have received their MLflow run ids only now
    _write(found, record)


def _summary(jobs: SweepDirectory, settings: Settings, sweep: RunRecord) -> Summary:
    """Summarizes the current state of the jobs; those of a search, whose values are irregular, best first."""
    current = [monitor.current(job) for job in jobs.jobs()]
    chosen = objectives.chosen(settings)
    return summary.summarize(current, chosen, settings.sweep.over, best_first=bool(sweep.search))


def _print(found: Summary, console: Console) -> None:
    """Prints the tables and the best job."""
    for table in _tables(found):
        for line in ("", *table.as_text()):
            console.line(line)
    if not found.best:
        return
    console.line("")
    if found.over_seeds:
        console.line(f"best setting  {_about_best_setting(found)}")
    console.line(f"{_name_of_best(found):<13} {_about_best(found)}: {found.best.command}")
    if found.chooses and found.best.metric(VALIDATION_ACCURACY) is not None:
        console.line(f"on all images {found.best.command_on_all_images}")
    if found.pruned:
        console.line(f"pruned        {_about_pruned(found)}")


def _tables(found: Summary) -> list[Table]:
    """Returns the tables for the screen and the MLflow page."""
    tables = found.table(SHOWN), found.seeds_table(SHOWN), found.front_table()
    return [table for table in tables if table.rows]


def _write(found: Summary, record: RunRecord) -> None:
    """Writes the CSV files and `sweep.md`, and sets tags and description of the sweep for MLflow."""
    best, page = found.best, [f"{record.settings['note']}\n"] if record.settings.get("note") else []
    record.swept = found.swept
    if best:
        page.append(f"**{_name_of_best(found).capitalize()}:** {_about_best(found)}: `{best.command}`\n")
        record.tags = {"best.run_id": best.run_id, "best.command": best.command}
        if found.chooses and best.metric(VALIDATION_ACCURACY) is not None:
            page.append(f"**On all training images:** `{best.command_on_all_images}`\n")
            record.tags["best.command_on_all_images"] = best.command_on_all_images
        if found.chooses and is_of_test(found.ranked_by):
            page.append(f"The {spoken(found.ranked_by)} of the best is {objectives.WARNING}.\n")
    if found.pruned:
        page.append(f"**Pruned:** {_about_pruned(found)}\n")
    if found.over_seeds:
        page.append(f"**Best setting:** {_about_best_setting(found)}\n")
        record.tags |= _best_setting_tags(found)
        seeds = found.seeds_table(columns=found.swept).as_csv()
        atomic_files.write(record.directory / run_paths.SWEEP_SEEDS, seeds.encode())
    page += [table.as_markdown() for table in _tables(found)]
    text = "\n".join([*page, f"`{record.command}`\n"])
    record.tags["mlflow.note.content"] = (
        text if len(text) <= TAG else f"{text[:TAG]}\n\n... continued in sweep.md"
    )
    atomic_files.write(record.directory / run_paths.SWEEP_TABLE, found.everything().as_csv().encode())
    atomic_files.write(record.directory / run_paths.SWEEP_PAGE, text.encode())


def _about_best(found: Summary) -> str:
    """Returns the number of the best job and its accuracies, first the one by which jobs are ranked."""
    best = found.best
    assert best
    metrics = sorted(found.metrics, key=lambda metric: metric != found.ranked_by)
    values = [(key, best.metric(key)) for key in metrics]
    results = [f"{spoken(key)} {value:.4f}" for key, value in values if value is not None]
    if found.chooses and is_of_test(found.ranked_by):
        results[0] += " (optimistic)"
    return ", ".join([f"job {best.folder}", *results])


def _name_of_best(found: Summary) -> str:
    """Returns what the best job is called: with several seeds, it only stands for the best setting."""
    return "its first job" if found.over_seeds else "best"


def _about_pruned(found: Summary) -> str:
    """Returns how many jobs a search ended early, and what they cost."""
    pruned, every = found.pruned, found.pruned + found.finished
    epochs = sum(job.pruned for job in pruned) / len(pruned)
    seconds, total = (sum(job.seconds for job in jobs) for jobs in (pruned, every))
    of_all = f"{len(pruned)} of {count(len(every), 'job')}, after {epochs:.1f} epochs on average"
    return f"{of_all}; they took {seconds:.1f} of {total:.1f} s of training"


def _about_best_setting(found: Summary) -> str:
    """Returns the setting with the best mean over its seeds, its mean, standard deviation and seeds."""
    best = found.over_seeds[0]
    shown = dict.fromkeys([found.ranked_by, TEST_ACCURACY])
    results = [f"{spoken(key)} {_mean_and_std(best, key)}" for key in shown]
    of = f"mean ± standard deviation of {len(best.jobs)} {summary.plural(found.over)}"
    return f"{best.name or 'all jobs'}, {', '.join(results)} ({of})"


def _mean_and_std(group: SeedGroup, metric: str) -> str:
    std = group.std(metric)
    return f"{group.mean(metric):.4f}" + (f" ± {std:.4f}" if std is not None else "")


def _best_setting_tags(found: Summary) -> dict[str, str]:
    best, metric = found.over_seeds[0], found.ranked_by
    return {
        "best.setting": best.name or "all jobs",
        "best.setting.metric": metric,
        "best.setting.mean": str(best.mean(metric)),
        "best.setting.std": str(best.std(metric)),
        "best.setting.seeds": str(len(best.jobs)),
    }


@contextlib.contextmanager
def _best_reported(found: Summary, jobs: SweepDirectory) -> Iterator[None]:
    """Creates the model of the best job, and its plots, which another process draws while the block runs."""
    best = found.best
    if best is None or best.full:
        yield
        return
    with lock.hold(best.directory):
        dataset = jobs.dataset(DatasetSettings(**best.settings["dataset"]))
        tensorflow_setup.import_tensorflow()
        from mlp_tape.reports import saved_model

        run_report.complete_plot_data(best.directory, dataset)
        plots = plot_process.Drawing(best.directory, best.steps)
        with timeline.phase("SavedModel"):
            saved_model.save(best.directory)
        yield
        with timeline.phase("wait for the plots"):
            plots.wait()
        best.full, best.model_ready, best.version = True, True, best.version + 1
        best.save()


@timeline.phase("plots of the sweep")
def _draw(found: Summary, sweep: RunRecord) -> None:
    """Draws the plots of a sweep, if any job has finished."""
    if not found.finished:
        return
    from mlp_tape.reports import curve_plots, search_plots, sweep_plots  # import matplotlib
    from mlp_tape.reports.swept_jobs import Metric, averaged
    from mlp_tape.sweeps.importance import importance

    folder = sweep.directory / run_paths.PLOTS
    folder.mkdir(exist_ok=True)
    metric = Metric(spoken(found.ranked_by), direction(found.ranked_by) == "maximize")
    jobs = [_drawn(job, found) for job in found.jobs]
    ends = {job.number: record.ended for job, record in zip(jobs, found.jobs, strict=True)}
    jobs.sort(key=lambda job: job.number)
    if found.over_seeds and found.chooses and found.over:
        jobs = averaged(jobs, found.over)
    finished = [job for job in jobs if job.state == "finished"]
    shares = importance([job.settings for job in finished], [job.value for job in finished])
    order = list(shares or (jobs[0].settings if jobs else found.swept))
    shown = {key: [job.settings[key] for job in jobs] for key in order[: sweep_plots.PANELS]}
    if sweep_plots.is_readable(shown):
        path = folder / "sweep_accuracy.png"
        sweep_plots.slices(path, jobs, metric, order, searched=bool(sweep.search))
    else:
        ranked = [(monitor.label(job), found.score(job)) for job in sorted(found.finished, key=found.rank)]
        sweep_plots.ranking(folder / "sweep_accuracy.png", ranked, metric.name)
    if found.pruned or len(found.finished) > curve_plots.MOST:
        curve_plots.curves(folder / "sweep_curves.png", jobs, metric, "epoch")
    else:
        curves = [_curves(job, _curve_of(found)) for job in found.finished]
        curve_plots.overlay(folder / "sweep_curves.png", curves, spoken(_curve_of(found)))
    if shares:
        search_plots.importance(folder / "sweep_importance.png", shares, metric)
    if sweep.search:
        in_order = sorted(jobs, key=lambda job: ends[job.number])
        search_plots.history(folder / "sweep_history.png", in_order, metric)
    if len(order) > 1 and len(finished) > 2:
        search_plots.parallel_coordinates(folder / "sweep_parallel_coordinates.png", jobs, metric, order)
    if len(found.objectives) > 1:
        _draw_front(found, folder / "sweep_front.png")


def _drawn(job: RunRecord, found: Summary) -> "Job":
    """Returns what the plots show of a job."""
    from mlp_tape.reports.swept_jobs import Job

    state: Literal["finished", "pruned", "failed"] = "pruned" if job.pruned else "finished"
    if job.status != "FINISHED":
        state = "failed"
    settings = summary.flat(job.settings)
    rows = journal.rows(job.directory, _curve_of(found))  # one for each epoch
    curve = [(epoch, row.value) for epoch, row in enumerate(rows, start=1)]
    value = None if state == "failed" else job.metric(found.ranked_by)
    number = int(job.folder) if job.folder.isdigit() else found.jobs.index(job)
    return Job(number, {key: settings.get(key) for key in found.swept}, value, state, curve)


def _curve_of(found: Summary) -> str:
    """Returns the metric whose curves are drawn."""
    if "/" in found.ranked_by:
        return found.ranked_by
    return VALIDATION_ACCURACY if VALIDATION_ACCURACY in found.metrics else TEST_ACCURACY


def _draw_front(found: Summary, path: Path) -> None:
    from mlp_tape.reports import search_plots
    from mlp_tape.reports.swept_jobs import Metric

    measured = [(job, [job.metric(key) for key in found.objectives]) for job in found.finished]
    jobs = [job for job, values in measured if None not in values]
    values = [[value for value in values if value is not None] for job, values in measured if job in jobs]
    metrics = [Metric(spoken(key), direction(key) == "maximize") for key in found.objectives]
    numbers = [int(job.folder) if job.folder.isdigit() else i for i, job in enumerate(jobs)]
    best = [jobs.index(job) for job in found.front]
    if best:
        search_plots.front(path, numbers, values, metrics, best)


def _curves(job: RunRecord, metric: str) -> tuple[str, list[tuple[int, float]], list[tuple[int, float]], int]:
    losses, accuracies = (
        [(row.step, row.value) for row in journal.rows(job.directory, key)] for key in (TRAIN_LOSS, metric)
    )
    return monitor.label(job), losses, accuracies, job.steps


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
            f"MLflow is missing part of {count(unsent, 'more job')}.\n"
            f"To send it: {program.tool()} sync {shlex.quote(str(found.jobs[0].directory.parent))}"
        )
