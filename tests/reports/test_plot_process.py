"""The process that draws the plots of a run: it may be gone, busy with another run, or fail."""

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import mlp_tape
from conftest import wait_until
from mlp_tape.data.datasets import Dataset
from mlp_tape.reports import plot_process, run_plots, run_report
from mlp_tape.reports.plot_process import Drawing

PLOTS = {
    f"{name}.png"
    for name in (
        "class_accuracy",
        "confusion_matrix",
        "first_layer",
        "histograms",
        "layers",
        "learning_curve",
        "worst_mistakes",
    )
}
STEPS = 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run, with its plots."""
    typed = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]", "report=full", "tracking.enabled=false"]
    directory = tmp_path_factory.mktemp("trained") / "run"
    return mlp_tape.train(mlp_tape.settings(*typed), directory=directory, show=False).directory


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the directory, without plots, and no process."""
    plot_process.stop()
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("plots"))
    yield tmp_path / "run"
    plot_process.stop()


def check(directory: Path) -> None:
    """Checks that all plots are there, and that something is drawn in each."""
    assert {path.name for path in (directory / "plots").iterdir()} == PLOTS
    for path in (directory / "plots").iterdir():
        assert matplotlib.image.imread(path).std() > 0.02, path


def test_a_run_has_its_plots_and_they_are_those_that_are_drawn_here(trained: Path, run: Path) -> None:
    check(trained)
    run_plots.draw(run, STEPS)
    for name in PLOTS:
        assert (run / "plots" / name).read_bytes() == (trained / "plots" / name).read_bytes(), name


@pytest.mark.parametrize("when", ["before it is asked", "while it draws", "never started", "it hangs"])
def test_plots_are_drawn_here_if_the_process_is_gone(
    run: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if when == "never started":
        monkeypatch.setattr(plot_process, "start", lambda: None)
    else:
        plot_process.start()
    process = plot_process._running
    if process and when == "before it is asked":
        process.kill()
        process.wait()
        monkeypatch.setattr(plot_process, "start", lambda: None)
    if process and when == "it hangs":
        monkeypatch.setattr(plot_process, "PATIENCE", 0.5)
        process.send_signal(signal.SIGSTOP)
    drawing = Drawing(run, STEPS)
    if process and when == "while it draws":
        wait_until("the first plot", lambda: list(run.glob("plots/*")))
        process.kill()
    drawing.wait()
    check(run)


def test_plots_of_a_job_of_an_earlier_version_are_drawn(run: Path, digits: Dataset) -> None:
    """Its `network.json` has no names of classes, and its `report.npz` neither labels nor mistakes."""
    about = json.loads((run / "network.json").read_bytes())
    del about["class_names"]
    (run / "network.json").write_text(json.dumps(about))
    with np.load(run / "report.npz", allow_pickle=False) as archive:
        kept = {name: archive[name] for name in ("scores", "first_weights", "examples")}
    np.savez(run / "report.npz", **kept)
    run_report.complete_plot_data(run, digits)
    run_plots.draw(run, STEPS)
    check(run)


def test_an_error_is_raised_in_the_program(run: Path) -> None:
    (run / "network.json").unlink()
    with pytest.raises(FileNotFoundError):
        Drawing(run, STEPS).wait()
    assert plot_process._running and plot_process._running.poll() is None, "it serves the next run"


def test_runs_in_several_threads_have_their_own_plots(run: Path) -> None:
    others = [run.with_name(f"other{number}") for number in range(3)]
    for other in others:
        shutil.copytree(run, other)
    threads = [threading.Thread(target=lambda each=other: Drawing(each, STEPS).wait()) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        check(other)


def test_the_process_ends_after_a_while(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plot_process,
        "PROGRAM",
        plot_process.PROGRAM.replace("plot_process.main()", "plot_process.IDLE = 0.0\nplot_process.main()"),
    )
    Drawing(run, STEPS).wait()
    process = plot_process._running
    assert process
    wait_until("the end of the process", lambda: process.poll() is not None)
    Drawing(run, STEPS).wait()  # by another one
    check(run)


def test_no_copy_of_the_process_outlives_it(run: Path) -> None:
    drawing = Drawing(run, STEPS)
    process = plot_process._running
    assert process
    wait_until("its copies", lambda: len(members(process.pid)) > 1)
    plot_process.stop()
    wait_until("the end of its copies", lambda: not members(process.pid))
    drawing.wait()
    check(run)


def members(group: int) -> list[str]:
    """Returns the states of the processes of a group that have not ended."""
    done = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [state for pgid, state in rows if int(pgid) == group and not state.startswith("Z")]
