"""Tests of the images by which the jobs of a sweep are chosen, and of jobs that end early."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, Run
from mlp_tape.cli import composition
from mlp_tape.config.settings import Settings
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.fit import fit
from mlp_tape.runs.pruning import Pruning
from mlp_tape.runs.trainer import Trainer
from mlp_tape.storage import journal, run_record
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps import summary, sweep
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.plan import Plan, PlannedJob
from mlp_tape.system.console import Console
from sweep_helpers import read_table, runs_in, sweep_directory

SMALL = ["dataset=digits", "model.hidden_sizes=[16]", "epochs=2", "tracking.enabled=false"]


def jobs_of(directory: Path) -> list[RunRecord]:
    return SweepDirectory(sweep_directory(directory)).jobs()


@pytest.mark.long
def test_test_images_choose_only_if_someone_insists_and_the_figure_is_called_optimistic(
    run_py: Run, tmp_path: Path
) -> None:
    for typed in ("validation_fraction=0", "sweep.choose_by=test/accuracy"):
        (tmp_path / typed[:5]).mkdir()
        done = run_py(tmp_path / typed[:5], "-m", "lr=0.1,0.5", typed, *SMALL[:-1], "report=none")
        assert done.returncode == 0, done.stderr
        assert [job.settings["validation_fraction"] for job in jobs_of(tmp_path / typed[:5])] == [0.0, 0.0]
        said = "measured on the test images by which it was chosen, and therefore too high on average"
        assert f"chosen by test accuracy: that of the best is {said}" in done.stdout
        assert f"for an unbiased one, leave out {typed}\n" in done.stdout
        assert "jobs are ranked by test accuracy, which is optimistic" in done.stdout
        assert "(optimistic): python run.py lr=0.5" in done.stdout
        (parent,), _ = runs_in(tmp_path / typed[:5])
        assert f"The test accuracy of the best is {said}." in parent.data.tags["mlflow.note.content"]


@pytest.mark.long
def test_nothing_is_held_out_where_nothing_is_chosen(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "seed=0,1", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "chosen by" not in done.stdout
    assert "optimistic" not in done.stdout
    for job in jobs_of(tmp_path):
        assert job.params["n_train"] == "1437"
        assert "validation/accuracy" not in job.results
        assert "validation_fraction" not in job.command
    # A sweep that is extended has the same images for all of its jobs.
    done = run_py(tmp_path, "-m", "sweep.resume=last", "lr=0.5,0.2")
    assert done.returncode == 0, done.stderr
    assert {job.params["n_train"] for job in jobs_of(tmp_path)} == {"1437"}
    assert "chosen by test accuracy" in done.stdout


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        (["validation_fraction=0.1,0"], "some jobs have validation images and others have none"),
        (["validation_fraction=0,0.1"], "some jobs have validation images and others have none"),
        (
            ["lr=0.1,0.5", "validation_fraction=0", "dataset.path={data}", "sweep.choose_by=validation/loss"],
            "validation/loss requires validation images, and validation_fraction=0 leaves none",
        ),
    ],
    ids=lambda typed: " ".join(typed) if isinstance(typed, list) else "",
)
def test_jobs_without_the_images_by_which_they_would_be_chosen_are_refused(
    run_py: Run, tmp_path: Path, digits: Dataset, typed: list[str], what: str
) -> None:
    data = save_with_noise(tmp_path / "data.npz", digits, noise=False).partition("=")[2]
    done = run_py(tmp_path, "-m", *SMALL, *(text.format(data=data) for text in typed))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "multirun").exists()


@pytest.mark.long
def test_commands_of_the_best_job_repeat_it_and_train_on_all_images(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.5", "stopping.patience=1", "epochs=20", *SMALL[:2], *SMALL[3:])
    assert done.returncode == 0, done.stderr
    best = max(jobs_of(tmp_path), key=lambda job: job.results["validation/accuracy"])
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    repeat = shlex.split(best.command)[2:]
    assert best.command in done.stdout
    again = run_py(tmp_path, *repeat, "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    assert run_record.read(tmp_path / "again").results == best.results
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("on all images ")]
    all_images = shlex.split(line.removeprefix("on all images "))[2:]
    assert f"epochs={best.best_epochs}" in all_images
    trained = run_py(tmp_path, *all_images, "hydra.run.dir=all")
    assert trained.returncode == 0, trained.stderr
    record = run_record.read(tmp_path / "all")
    assert record.params["n_train"] == "1437"
    assert record.settings["epochs"] == best.best_epochs
    assert lines


def save_with_noise(path: Path, digits: Dataset, noise: bool) -> str:
    """Saves digits, with test images and labels at random if `noise`."""
    rng = np.random.default_rng(0)
    x_test, y_test = digits.x_test, digits.y_test
    if noise:
        x_test = rng.integers(0, 17, x_test.shape).astype(x_test.dtype)
        y_test = rng.permutation(y_test)
    train = {"x_train": digits.x_train[7:], "y_train": digits.y_train[7:]}  # not recognized as `digits`
    np.savez(path, **train, x_test=x_test, y_test=y_test)
    return f"dataset.path={path}"


@pytest.mark.long
def test_choice_is_the_same_bit_for_bit_if_the_test_images_are_noise(
    run_py: Run, tmp_path: Path, digits: Dataset
) -> None:
    pytest.importorskip("optuna")
    search = ["-m", "hydra/sweeper=optuna", "n_trials=12", "lr=tag(log,interval(0.01,1))", "batch_size=32,64"]
    found: list[Any] = []
    for noise in (False, True):
        directory = tmp_path / str(noise)
        directory.mkdir()
        data = save_with_noise(directory / "data.npz", digits, noise)
        done = run_py(directory, *search, "dataset=arrays", data, "epochs=3", "tracking.enabled=false")
        assert done.returncode == 0, done.stderr
        jobs = jobs_of(directory)
        best = summary.summarize(jobs).best
        assert best
        kept = [text for text in best.overrides if not text.startswith("dataset.path=")]
        rows = [
            [(row.key, row.step, row.value) for key in ("train/loss", "validation/") for row in each]
            for each in (
                [*journal.rows(job.directory, key)] for job in jobs for key in ("train/loss", "validation/")
            )
        ]
        found.append((kept, [job.overrides[:2] for job in jobs], [job.pruned for job in jobs], rows))
        found.append([job.results.get("test/accuracy") for job in jobs])
    assert found[0] == found[2]
    assert found[1] != found[3], "the test images were noise"


def test_validation_images_are_a_function_of_the_seed_of_splits(digits: Dataset) -> None:
    first, again = (datasets.with_validation(digits, 0.1, seed).y_validation for seed in (0, 1))
    assert not np.array_equal(first, again)
    with_noise = Dataset(**(vars(digits) | {"x_test": digits.x_test[::-1], "y_test": digits.y_test[::-1]}))
    np.testing.assert_array_equal(datasets.with_validation(with_noise, 0.1, 1).y_validation, again)


@pytest.mark.parametrize(("report", "has_model"), [(None, True), ("full", True), ("light", False)])
def test_models_are_prepared_for_sweeps_that_will_have_one(
    tmp_path: Path, report: str | None, has_model: bool
) -> None:
    settings = dataclasses.replace(Settings(), report=report)
    plan = Plan([PlannedJob([], settings)])
    assert sweep._sweep_record(settings, tmp_path, Command([], []), plan).full == has_model


def test_best_setting_has_the_best_mean_and_its_first_job_stands_for_it() -> None:
    def job(number: int, lr: float, seed: int, accuracy: float) -> RunRecord:
        record = RunRecord(Path(f"/sweep/{number}"), status="FINISHED", settings={"lr": lr, "seed": seed})
        record.results = {"validation/accuracy": accuracy, "test/accuracy": 0.5, "test/loss": 0.1}
        return record

    jobs = [job(0, 0.1, 0, 0.99), job(1, 0.1, 1, 0.5), job(2, 0.2, 0, 0.8), job(3, 0.2, 1, 0.85)]
    found = summary.summarize(jobs)
    assert found.best is jobs[2], "not the luckiest seed"
    assert summary.summarize(jobs, over=None).best is jobs[0]
    jobs[3].pruned = 1
    assert summary.summarize(jobs).best is jobs[0], "a pruned job has no mean"
    loss = summary.summarize(jobs[:3], ["validation/accuracy"])
    assert loss.finished == jobs[:3]


def test_lower_is_better_for_a_loss_and_jobs_of_a_front_are_better_in_something() -> None:
    def job(number: int, loss: float, seconds: float) -> RunRecord:
        record = RunRecord(Path(f"/sweep/{number}"), status="FINISHED", settings={"lr": number / 10})
        record.results, record.seconds = (
            {"validation/loss": loss, "test/accuracy": 0.5, "test/loss": 0.1},
            seconds,
        )
        return record

    jobs = [job(1, 0.3, 1.0), job(2, 0.1, 3.0), job(3, 0.2, 4.0)]
    found = summary.summarize(jobs, ["validation/loss"])
    assert found.best is jobs[1]
    assert not found.front_table().rows
    found = summary.summarize(jobs, ["validation/loss", "seconds"])
    assert found.front == [jobs[1], jobs[0]]
    assert [row[0] for row in found.front_table().rows] == [2, 1]
    assert "none is better in both validation loss and seconds" in found.front_table().caption


def test_settings_that_follow_from_an_option_are_no_swept_settings() -> None:
    def job(number: int, name: str, momentum: float | None) -> RunRecord:
        settings = {"optimizer": {"name": name, "momentum": momentum}}
        return RunRecord(Path(f"/sweep/{number}"), status="FINISHED", settings=settings)

    jobs = [job(0, "sgd", None), job(1, "momentum", 0.9)]
    assert summary.summarize(jobs).swept == ["optimizer.name"]
    jobs.append(job(2, "momentum", 0.5))
    assert summary.summarize(jobs).swept == ["optimizer.name", "optimizer.momentum"]


def test_a_pruned_training_ends_at_its_epoch_without_a_look_at_the_test_images(
    digits: Dataset, tmp_path: Path
) -> None:
    split = datasets.with_validation(digits, 0.1)
    trainer = Trainer(composition.settings_of(ROOT / "conf", [*SMALL, "epochs=4"]), split)
    reported: list[tuple[int, float]] = []

    def decide(epoch: int, value: float) -> bool:
        reported.append((epoch, value))
        return epoch == 1

    with Journal(tmp_path) as rows:
        found = fit(trainer, tmp_path, Console(on_screen=False), rows, pruning=Pruning("accuracy", decide))
        assert (found.steps, getattr(found, "epochs", None)) == (2 * trainer.steps_per_epoch, 2)
        assert reported == [(i, row.value) for i, row in enumerate(rows.read("validation/accuracy"))]
        assert not list(rows.read("test/"))
    # Nothing is saved by ending after the last epoch.
    (tmp_path / "last").mkdir()
    with Journal(tmp_path / "last") as rows:
        pruning = Pruning("loss", lambda epoch, value: epoch == 3)
        done = fit(trainer, tmp_path / "last", Console(on_screen=False), rows, pruning=pruning)
        assert len(list(rows.read("test/accuracy"))) == 1
    assert done.steps == trainer.steps


@pytest.mark.long
def test_a_pruned_job_is_a_finished_run_with_a_tag(run_py: Run, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = ["-m", "hydra/sweeper=optuna", "n_trials=12", "lr=tag(log,interval(0.001,1))", "epochs=3"]
    done = run_py(tmp_path, *search, *SMALL[:2])
    assert (done.returncode, done.stderr) == (0, "")
    (parent,), children = runs_in(tmp_path)
    pruned = [run for run in children if run.data.tags.get("pruned") == "true"]
    assert pruned
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    for run in pruned:
        assert "test/accuracy" not in run.data.metrics
        assert "validation/accuracy" in run.data.metrics
        assert "**Pruned** after" in run.data.tags["mlflow.note.content"]
    table = read_table(sweep_directory(tmp_path))
    assert sum(row["status"].startswith("PRUNED after") for row in table) == len(pruned)
    assert f"pruned        {len(pruned)} of 12 jobs, after" in done.stdout
    plots = {path.name for path in (sweep_directory(tmp_path) / "plots").iterdir()}
    assert plots >= {"sweep_accuracy.png", "sweep_curves.png", "sweep_history.png"}
