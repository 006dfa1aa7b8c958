"""Tests of searches as they are typed: kills, resumption, parallel jobs, seeds, objectives and errors."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import LIMIT, wait_until
from mlp_tape.storage import journal, run_paths
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps.directory import SweepDirectory
from sweep_helpers import sweep_directory

optuna = pytest.importorskip("optuna")

Run = Callable[..., subprocess.CompletedProcess[str]]
RUN_PY = Path(__file__).parents[2] / "run.py"
DIGITS = ["dataset=digits", "report=none", "tracking.enabled=false"]
SPACE = ["lr=tag(log,interval(0.01,3))", "batch_size=32,64,128", "optimizer=sgd,momentum"]
SEARCH = ["-m", "hydra/sweeper=optuna", *SPACE, *DIGITS]


def study_of(sweep: Path) -> Any:
    """Returns the study of a search, opened as `optuna-dashboard` does."""
    backend = optuna.storages.journal.JournalFileBackend(str(sweep / run_paths.STUDY))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def history(sweep: Path) -> list[tuple[Any, ...]]:
    trials = study_of(sweep).trials
    return [
        (each.number, each.state.name, each.params, each.values, each.intermediate_values, each.user_attrs)
        for each in trials
    ]


def rows(sweep: Path) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """Returns the metric rows of each job, sorted, and without those of times."""
    jobs = sorted(SweepDirectory(sweep).jobs(), key=lambda job: int(job.folder))
    return [
        (
            job.folder,
            [
                (row.key, row.step, row.value)
                for prefix in ("train/loss", "validation/accuracy")
                for row in journal.rows(job.directory, prefix)
            ],
        )
        for job in jobs
    ]


def jobs_of(sweep: Path) -> list[RunRecord]:
    return SweepDirectory(sweep).jobs()


@pytest.mark.long
def test_a_search_is_pruned_repeated_and_extended(run_py: Run, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = run_py(tmp_path / name, *SEARCH, "epochs=4", "n_trials=12", "hydra.sweeper.sampler.seed=3")
        assert (done.returncode, done.stderr) == (0, "")
        found.append(history(sweep_directory(tmp_path / name)))
    assert found[0] == found[1]
    states = [state for _, state, *_ in found[0]]
    assert "PRUNED" in states and "COMPLETE" in states
    sweep = sweep_directory(tmp_path / "one")
    lines = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    assert [line.split("  ")[0] for line in lines] == [f"trial {i} of 12" for i in range(12)]
    assert all("best 0." in line for line in lines[1:])
    for job, (_, state, params, values, *_) in zip(jobs_of(sweep), found[0], strict=True):
        assert (job.pruned > 0 or job.has_diverged) == (state == "PRUNED")
        assert f"lr={params['lr']!r}" in job.overrides
        assert state != "COMPLETE" or values == [job.results["validation/accuracy"]]
    began = {job.folder: job.began for job in jobs_of(sweep)}
    done = run_py(tmp_path / "one", "-m", "sweep.resume=last", "n_trials=14")
    assert (done.returncode, done.stderr) == (0, "")
    assert history(sweep)[:12] == found[0]
    assert len(history(sweep)) == 14
    assert began.items() <= {job.folder: job.began for job in jobs_of(sweep)}.items()


def start(directory: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    with (directory / "out.txt").open("ab") as out:
        command = [sys.executable, str(RUN_PY), *arguments]
        return subprocess.Popen(command, cwd=directory, stdout=out, stderr=out, start_new_session=True)


def grown(directory: Path, process: subprocess.Popen[bytes], size: int) -> bool:
    """Waits until the study has more than a number of bytes; returns False if the process ends before."""
    while process.poll() is None:
        paths = list(directory.glob(f"multirun/*/*/{run_paths.STUDY}"))
        if paths and paths[0].stat().st_size > size:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.long
@pytest.mark.concurrency
def test_search_killed_again_and_again_equals_an_undisturbed_one(run_py: Run, tmp_path: Path) -> None:
    kills, trials = int(os.environ.get("MLP_TAPE_KILLS", "5")), os.environ.get("MLP_TAPE_TRIALS", "16")
    arguments = [*SEARCH, "epochs=4", f"n_trials={trials}"]
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "killed").mkdir()
    done = run_py(tmp_path / "undisturbed", *arguments)
    assert done.returncode == 0, done.stderr
    undisturbed = sweep_directory(tmp_path / "undisturbed")
    size = (undisturbed / run_paths.STUDY).stat().st_size
    rng = random.Random(1)
    moments = sorted(rng.randrange(size) for _ in range(kills))
    typed, killed = arguments, 0
    for moment in moments:
        process = start(tmp_path / "killed", typed)
        if grown(tmp_path / "killed", process, moment):
            time.sleep(rng.random() * 0.1)
            killed += process.poll() is None
        process.kill()
        process.wait()
        if list((tmp_path / "killed").glob("multirun/*/*/run.json")):
            typed = ["-m", "sweep.resume=last"]
    done = run_py(tmp_path / "killed", *typed)
    assert done.returncode == 0, done.stderr
    assert killed >= kills - 1
    resumed = sweep_directory(tmp_path / "killed")
    assert history(resumed) == history(undisturbed)
    assert rows(resumed) == rows(undisturbed)


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_parallel_trials_are_all_run_once(run_py: Run, tmp_path: Path, launcher: str) -> None:
    pytest.importorskip(launcher.removesuffix("_local"))
    trials = int(os.environ.get("MLP_TAPE_TRIALS", "6"))
    parallel = [f"hydra/launcher={launcher}", "n_jobs=2", f"n_trials={trials}", "epochs=2"]
    if launcher == "joblib":
        parallel.append("hydra.launcher.n_jobs=2")
    if launcher == "ray":
        parallel[0] = "+cluster=ray"
    done = run_py(tmp_path, *SEARCH, *parallel)
    assert done.returncode == 0, done.stdout + done.stderr
    found = history(sweep_directory(tmp_path))
    assert [number for number, *_ in found] == list(range(trials))
    assert {state for _, state, *_ in found} <= {"COMPLETE", "PRUNED", "FAIL"}
    identities = {each[-1]["jobs"][0] for each in found}
    assert len(jobs_of(sweep_directory(tmp_path))) == len(identities)


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("killed", ["worker", "sweeper", "both"])
def test_parallel_search_with_a_killed_process_is_completed(run_py: Run, tmp_path: Path, killed: str) -> None:
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "n_jobs=2", "n_trials=4", "pruner=none"]
    process = start(tmp_path, [*SEARCH, *parallel, "epochs=300", "lr=interval(0.01,0.02)"])

    def at_work() -> list[RunRecord]:
        return [
            job for job in jobs_of(sweep_directory(tmp_path)) if list(job.directory.glob("checkpoints/*"))
        ]

    def has_begun() -> bool:
        assert process.poll() is None, (tmp_path / "out.txt").read_text()
        return bool(list(tmp_path.glob(f"multirun/*/*/{run_paths.JOBS}"))) and len(at_work()) == 2

    wait_until("two jobs", has_begun)
    if killed != "sweeper":
        os.kill(at_work()[0].pid, signal.SIGKILL)
    if killed != "worker":
        process.kill()
    code = process.wait(LIMIT)
    wait_until("the end of the other worker", lambda: not any(job.is_alive for job in at_work()))
    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 0, f"{code} {(tmp_path / 'out.txt').read_text()} {done.stdout}{done.stderr}"
    sweep = sweep_directory(tmp_path)
    assert [state for _, state, *_ in history(sweep)] == ["COMPLETE"] * 4
    assert [job.status for job in jobs_of(sweep)] == ["FINISHED"] * 4
    for _, of_job in rows(sweep):
        assert [step for key, step, _ in of_job if key == "train/loss"] == list(range(len(of_job) - 300))
        assert sum(key == "validation/accuracy" for key, *_ in of_job) == 300


@pytest.mark.long
def test_trial_that_is_invalid_only_in_combination_fails_alone(run_py: Run, tmp_path: Path) -> None:
    """Pairs of values are validated before the search begins, unless there are many."""
    rng = np.random.default_rng(0)
    parts = {"train": 90, "validation": 30, "test": 30}
    arrays = {f"x_{part}": rng.random((n, 4), np.float32) for part, n in parts.items()}
    np.savez(tmp_path / "own.npz", **arrays, **{f"y_{part}": np.arange(n) % 3 for part, n in parts.items()})
    many = ["lr=range(0.01,0.31,0.01)", "batch_size=range(10,40)"]
    space = ["validation_fraction=null,0", "stopping.patience=null,3", "dataset.path=own.npz,null"]
    grid = ["hydra/sweeper=optuna", "sampler=grid", "n_trials=8", "epochs=1"]
    done = run_py(tmp_path, "-m", *grid, *many, *space, *DIGITS)
    assert done.returncode == 0, done.stdout + done.stderr
    states = [state for _, state, *_ in history(sweep_directory(tmp_path))]
    assert states == ["COMPLETE"] * 5 + ["FAIL", "COMPLETE", "FAIL"]
    assert "null  FAILED: validation/accuracy requires validation images" in done.stdout
    assert "null  FAILED: stopping.patience=3 requires validation images" in done.stdout
    assert not any(job.status == "FAILED" for job in jobs_of(sweep_directory(tmp_path)))


UNFIT = [
    ["seed=0,1", "stopping.patience=3"],
    ["lr=0.1,0.2", "stopping.patience=3", "sweep.choose_by=test/accuracy"],
    ["lr=0.1,0.2", "validation_fraction=0.9999"],
    ["lr=0.1,0.2", "dataset.path=own.npz", "dataset.name=arrays", "augment.shift=0,2"],
]


@pytest.mark.long
@pytest.mark.parametrize("searched", [[], ["hydra/sweeper=optuna"]], ids=["sweep", "search"])
@pytest.mark.parametrize("typed", UNFIT, ids=" ".join)
def test_sweep_with_settings_that_do_not_fit_the_data_leaves_nothing(
    run_py: Run, tmp_path: Path, typed: list[str], searched: list[str]
) -> None:
    if searched and typed[0].startswith("seed"):
        typed = [*typed, "validation_fraction=0", "lr=0.1,0.2", "sweep.choose_by=test/accuracy"]
    x, y = np.random.default_rng(0).random((90, 4), np.float32), np.arange(90) % 3
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    done = run_py(tmp_path, "-m", *DIGITS, "epochs=1", *typed, *searched)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 2), done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.npz"]


@pytest.mark.long
def test_no_trial_begins_after_the_timeout(run_py: Run, tmp_path: Path) -> None:
    typed = [*SEARCH, "epochs=1", "n_trials=null", "timeout=0.001"]
    done = run_py(tmp_path, *typed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(history(sweep_directory(tmp_path))) == 1, "a search without a trial has no result"
    done = run_py(tmp_path, "-m", "sweep.resume=last", "n_trials=3", "timeout=null")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(history(sweep_directory(tmp_path))) == 3


@pytest.mark.long
def test_trials_are_chosen_by_their_mean_over_seeds(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, *SEARCH, "epochs=2", "n_trials=7", "seed=0,1,2")
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = sweep_directory(tmp_path)
    records = {SweepDirectory(sweep).directory / job.folder: job for job in jobs_of(sweep)}
    by_identity = json.loads((sweep / run_paths.JOBS).read_bytes())
    states = set()
    for _, state, params, values, steps, attrs in history(sweep):
        jobs = [records.get(sweep / by_identity.get(each, "none")) for each in attrs["jobs"]]
        finished = [job for job in jobs if job and job.status == "FINISHED" and not job.pruned]
        assert "seed" not in params
        states.add(state)
        if state == "COMPLETE":
            results = [job.results["validation/accuracy"] for job in finished]
            assert [job.settings["seed"] for job in finished] == [0, 1, 2]
            assert values == pytest.approx([sum(results) / 3])
            assert list(steps) == list(range(6))
            assert attrs["seeds"] == results[:2]
        elif state == "PRUNED":  # the seeds after the one that was pruned are not trained
            assert jobs[len(finished)] is not None
            assert jobs[len(finished) + 1 :] == [None] * (2 - len(finished))
    assert "COMPLETE" in states


@pytest.mark.long
def test_search_with_two_objectives(run_py: Run, tmp_path: Path) -> None:
    objectives = "sweep.objectives=[validation/accuracy,parameters]"
    sizes = "model.hidden_sizes=[8],[32],[64,32]"
    done = run_py(tmp_path, *SEARCH, sizes, "epochs=1", "n_trials=5", objectives)
    assert done.returncode == 0, done.stdout + done.stderr
    study = study_of(sweep_directory(tmp_path))
    assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert {each.values[1] for each in study.trials if each.values} <= {610, 2410, 6570}
    assert {each.params["model.hidden_sizes"] for each in study.trials} <= {"[8]", "[32]", "[64,32]"}


@pytest.mark.long
def test_diverging_settings_are_learnt_from_unless_all_of_them_diverge(run_py: Run, tmp_path: Path) -> None:
    arguments = ["-m", "hydra/sweeper=optuna", *DIGITS, "epochs=1", "sampler=grid"]
    done = run_py(tmp_path, *arguments, "lr=0.1,1e20")
    assert done.returncode == 0, done.stderr
    assert [state for _, state, *_ in history(sweep_directory(tmp_path))] == ["COMPLETE", "PRUNED"]
    assert "trial 1 of 2  lr=1e+20  FAILED: DivergenceError" in done.stdout
    (tmp_path / "all").mkdir()
    done = run_py(tmp_path / "all", *arguments, "lr=1e20,1e25")
    assert done.returncode == 1
    assert "error: 2 of 2 jobs did not finish" in done.stderr
    assert f"directory     {sweep_directory(tmp_path / 'all')}" in done.stdout


@pytest.mark.long
def test_equal_proposals_are_trained_once(run_py: Run, tmp_path: Path) -> None:
    arguments = ["-m", "hydra/sweeper=optuna", *DIGITS, "epochs=1", "sampler=random", "n_trials=6"]
    done = run_py(tmp_path, *arguments, "lr=0.1,0.2")
    assert done.returncode == 0, done.stderr
    found = history(sweep_directory(tmp_path))
    assert len(found) == 6
    assert len(jobs_of(sweep_directory(tmp_path))) == 2
    assert len({(params["lr"], tuple(values)) for _, _, params, values, *_ in found}) == 2


@pytest.mark.long
def test_many_networks_are_trained_without_advice_of_tensorflow_and_listed_best_first(
    run_py: Run, tmp_path: Path
) -> None:
    sizes = ",".join(f"[{size}]" for size in range(4, 14))
    typed = ["-m", "hydra/sweeper=optuna", "sampler=grid", *DIGITS, "epochs=1", f"model.hidden_sizes={sizes}"]
    done = run_py(tmp_path, *typed)
    assert (done.returncode, done.stderr) == (0, "")
    with (sweep_directory(tmp_path) / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 10
    pruned = [row["status"] != "FINISHED" for row in table]
    found = [float(row["validation accuracy"]) for row in table]
    assert pruned == sorted(pruned)
    assert found[: pruned.count(False)] == sorted(found[: pruned.count(False)], reverse=True)


@pytest.mark.long
def test_another_search_does_not_go_on_with_a_study(run_py: Run, tmp_path: Path) -> None:
    arguments = ["-m", "hydra/sweeper=optuna", *DIGITS, "epochs=1", "n_trials=2", "lr=interval(0.1,1)"]
    assert run_py(tmp_path, *arguments).returncode == 0
    sweep = sweep_directory(tmp_path)
    before = (sweep / run_paths.STUDY).read_bytes()
    for typed, what in {
        "lr=interval(0.1,2)": "the values of lr are not those of the search",
        "batch_size=32,64": "the values of batch_size are not those of the search",
        "epochs=2": "epochs=2, but the search has 1",
        "sweep.choose_by=validation/loss": "sweep.choose_by or sweep.objectives: [validation/loss], but",
    }.items():
        done = run_py(tmp_path, "-m", "sweep.resume=last", "n_trials=3", typed)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
        assert what in done.stderr
    assert (sweep / run_paths.STUDY).read_bytes() == before
    assert len(jobs_of(sweep)) == 2


REFUSED = [
    (["lr=interval(1,0.1)"], "lr=interval(1,0.1): the interval ends before it starts"),
    (["lr=interval(1,1)"], "lr=interval(1,1): the interval is empty"),
    (["lr=tag(log,interval(0,1))"], "lr=tag(log,interval(0,1)): a logarithm needs numbers above 0"),
    (["lr=interval(-1,1)"], "lr=-1.0: expected a finite number above 0"),
    (["lr=interval(0.1,1)", "sampler=grid"], "sampler=grid: lr is a continuous range"),
    (["optimizer=sgd,adam", "sampler=cmaes"], "sampler=cmaes searches numbers"),
    (["lr=interval(0.1,1)", "direction=minimize"], "direction=minimize, but validation/accuracy has"),
    (["lr=interval(0.1,1)", "direction=[maximize,minimize]"], "direction=[maximize,minimize]: 2 directions"),
    (["lr=interval(0.1,1)", "sweep.choose_by=validation/nothing"], "sweep.choose_by=validation/nothing: "),
    (["lr=interval(0.1,1)", "n_jobs=2"], "n_jobs=2: in one process, one job runs at a time"),
    (["lr=interval(0.1,1)", "hydra.sweeper.storage=sqlite:///x"], "unknown setting: hydra.sweeper.storage"),
    (["lr=interval(0.1,1)", "n_trials=0"], "n_trials=0: expected an integer from 1"),
    (["lr=0.1"], "nothing to search"),
    (["optimizer=momentum,sgd", "optimizer.momentum=0.5,0.9"], "optimizer.momentum is "),
    (["lr=interval(0.1,1)", "n_trails=3"], "unknown setting: n_trails\n       did you mean n_trials=3 ?"),
    (
        ["lr=interval(0.1,1)", "sampler=foo"],
        "sampler=foo: expected one of: cmaes, gp, grid, qmc, random, tpe",
    ),
    (
        ["lr=interval(0.1,1)", "pruner=hyperbnd"],
        "pruner=hyperbnd: expected one of: auto, hyperband, median, ",
    ),
    (["lr=interval(0.1,1)", "sweep.objectives=[a,b]"], "sweep.objectives=[a,b]: expected a list of two or "),
]


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        pytest.param(*case, id=" ".join(case[0]), marks=[pytest.mark.long] if i else [])
        for i, case in enumerate(REFUSED)
    ],
)
def test_invalid_search_starts_nothing(run_py: Run, tmp_path: Path, typed: list[str], what: str) -> None:
    done = run_py(tmp_path, "-m", "hydra/sweeper=optuna", *typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.concurrency
def test_stopped_search_is_resumed_at_its_trial(run_py: Run, tmp_path: Path) -> None:
    process = start(tmp_path, [*SEARCH, "epochs=400", "n_trials=2", "pruner=none"])
    assert grown(tmp_path, process, 0)
    while not list(tmp_path.glob("multirun/*/*/0/checkpoints/*")):
        assert process.poll() is None, (tmp_path / "out.txt").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    (trial,) = history(sweep_directory(tmp_path))
    assert trial[1] == "RUNNING"
    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 0, done.stderr
    assert [state for _, state, *_ in history(sweep_directory(tmp_path))] == ["COMPLETE", "COMPLETE"]
