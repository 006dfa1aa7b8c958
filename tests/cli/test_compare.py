"""`python -m mlp_tape compare`: comparison of runs in tables and plots."""

import dataclasses
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import pytest

from conftest import LIMIT, Run
from mlp_tape.cli import compare as comparison
from mlp_tape.cli.compare import Entry
from mlp_tape.reports import terminal_plots
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord

RATES = (0.3, 0.03)


def compare(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlp_tape", "compare", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture(scope="module")
def made(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a sweep of two jobs and a run of a different network."""
    directory = tmp_path_factory.mktemp("made")
    rates = ",".join(map(str, RATES))
    for arguments in (["-m", f"lr={rates}"], ["model.hidden_sizes=[16]", "lr=0.1", "batch_size=32"]):
        done = run_py(directory, *arguments, "dataset=digits", "epochs=2", "report=light")
        assert done.returncode == 0, done.stderr
    yield directory


def by_key(output: str) -> dict[str, list[str]]:
    """Returns the cells of each row of the printed table, by the first cell."""
    lines = [line.split("  ") for line in output.partition("\n\n")[0].splitlines()]
    return {line[0]: [cell.strip() for cell in line[1:] if cell] for line in lines}


@pytest.mark.long
def test_the_settings_that_differ_and_the_results_of_a_sweep_and_a_run_are_printed(made: Path) -> None:
    (sweep,), (run,) = made.glob("multirun/*/*"), made.glob("outputs/*/*")
    done = compare(made, str(sweep), str(run))
    assert done.returncode == 0, done.stderr
    found = by_key(done.stdout)
    assert found["lr"] == ["0.03", "0.3", "0.1"], "jobs are sorted by the swept value"
    assert found["batch_size"] == ["128", "128", "32"]
    assert found["layer_sizes"][2] == "[64,16,10]"
    assert found["status"] == ["FINISHED"] * 3
    assert found["steps"] == ["22", "22", "90"]
    assert "epochs" not in found, "a setting that does not differ is left out"
    results = [
        json.loads((path / "run.json").read_text())["results"] for path in (sweep / "1", sweep / "0", run)
    ]
    assert found["test/accuracy"] == [f"{result['test/accuracy']:.4f}" for result in results]
    assert found["test/loss"] == [f"{result['test/loss']:.6f}" for result in results]
    for shown in ("train/loss", "++ lr=0.03   xx lr=0.3", "test/accuracy"):
        assert shown in done.stdout
    assert done.stdout.isascii() is False, "the plot has a frame"
    assert "\x1b" not in done.stdout, "no colors in a pipe"
    assert str(made / "comparison.png") in done.stdout
    assert matplotlib.image.imread(made / "comparison.png").std() > 0.03


@pytest.mark.long
def test_runs_without_a_directory_here_are_read_from_mlflow(made: Path, tmp_path: Path) -> None:
    (sweep,), (run,) = made.glob("multirun/*/*"), made.glob("outputs/*/*")
    ids = [run_record.read(path).run_id for path in (sweep, run)]
    here = by_key(compare(made, *ids, "--png", str(tmp_path / "a.png")).stdout)
    done = compare(tmp_path, *ids, "--uri", f"sqlite:///{made / 'mlflow.db'}")
    assert done.returncode == 0, done.stderr
    there = by_key(done.stdout)
    for line in (here, there):
        del line["seconds"]  # duration of training; MLflow only has start and end time
    order = [there["lr"].index(rate) for rate in here["lr"]]
    assert {key: [cells[i] for i in order] for key, cells in there.items()} == here


def test_the_error_for_an_unknown_run_has_two_lines(tmp_path: Path) -> None:
    done = compare(tmp_path, "nope")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: no run nope below {tmp_path} or in MLflow",
        "       type its directory, its MLflow run id, or last",
    ]
    assert not list(tmp_path.iterdir())


def entry(label: str, run_id: str = "", **params: str) -> Entry:
    return Entry(label, run_id, params, {"status": "FINISHED"}, [], [])


def test_more_than_six_runs_have_a_row_each() -> None:
    few = comparison.table([entry("a", lr="1"), entry("b", lr="2")])
    assert few.headings == ["run", "a", "b"]
    assert few.rows == [["lr", "1", "2"], ["status", "FINISHED", "FINISHED"]]
    many = comparison.table([entry(f"r{i}", lr=str(i)) for i in range(7)])
    assert many.headings == ["run", "lr", "status"]
    assert many.rows[6] == ["r6", "6", "FINISHED"]


def test_values_of_settings_are_formatted_as_in_the_table_of_a_sweep() -> None:
    one = {
        "lr": "0.30000000000000004",
        "sizes": "[64, 32]",
        "rate": "0.1234567891",
        "path": "1e5",
        "x": "None",
    }
    other = {"lr": "1000000.0", "sizes": "[]", "rate": "0.1234567892", "path": "2e5", "x": "0.5"}
    found = comparison.table([entry("a", **one), entry("b", **other)])
    assert found.rows[:5] == [
        ["lr", "0.3", "1e+06"],
        ["sizes", "[64,32]", "[]"],
        ["rate", "0.1234567891", "0.1234567892"],
        ["path", "1e5", "2e5"],
        ["x", "null", "0.5"],
    ]


def test_a_setting_that_one_run_lacks_is_a_difference() -> None:
    assert comparison.table([entry("a", lr="1"), entry("b", lr="1", new="x")]).rows[0] == ["new", "", "x"]


def test_terminal_plots_use_different_markers_and_at_most_the_given_width() -> None:
    lines = [("one", [(i, 1.0 / (i + 1)) for i in range(100)]), ("two", [(i, 0.9) for i in range(100)])]
    plain = terminal_plots.curves("train/loss", [*lines, ("none", [])], 80, colour=False)
    assert max(map(len, plain.splitlines())) <= 80
    assert "++ one   xx two" in plain
    assert "none" not in plain
    assert "\x1b[" in terminal_plots.curves("train/loss", lines, 80, colour=True)
    assert terminal_plots.curves("train/loss", [("none", [])], 80, colour=True) == ""


def test_untracked_runs_of_the_same_name_are_distinguished_by_directory(tmp_path: Path) -> None:
    for name, path in (("a", "x.npz"), ("b", "y.npz")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "journal.jsonl").touch()
        RunRecord(tmp_path / name, name="lr=0.1", status="FINISHED", params={"dataset.path": path}).save()
    entries = comparison.find([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")], "")
    found = comparison.table(entries)
    assert found.headings == ["run", "lr=0.1 a", "lr=0.1 b"]
    assert found.rows[0] == ["dataset.path", "x.npz", "y.npz"]


def test_a_link_needs_one_store_that_has_all_runs() -> None:
    def linked(*stores: str) -> str:
        entries = [
            dataclasses.replace(entry("", f"run{i}"), store=store, experiment_id="3" if store else "")
            for i, store in enumerate(stores)
        ]
        found = comparison.link(entries)
        return found.url if found else ""

    server = "http://server:80"
    query = urllib.parse.parse_qs(linked(server, server).partition("?")[2])
    assert json.loads(query["runs"][0]) == ["run0", "run1"]
    assert json.loads(query["experiments"][0]) == ["3"]
    assert json.loads(query["plot_metric_keys"][0]) == ["test/accuracy"]
    assert query["x_axis"] == ["step"]
    assert not linked(server, "http://other"), "runs of two stores"
    assert not linked("", ""), "runs that were not tracked"
    assert not linked(*[server] * 51), "the URL would be too long"


def test_a_run_that_failed_before_its_training_is_compared(tmp_path: Path) -> None:
    RunRecord(tmp_path, settings={"lr": 0.1}, status="FAILED", reason="no data").save()
    entry = comparison._of_directory(run_record.read(tmp_path))
    assert (entry.losses, entry.accuracies) == ([], [])
    assert entry.outcome["status"] == "FAILED"
