"""A sweep survives failure, is picked up where it stopped, and ends with an answer."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import LIMIT, ROOT, Run, ended, sample, send_the_rest, started, stop_when
from mlp_tape.config.settings import Settings
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import report
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.monitor import Monitor
from mlp_tape.system.console import Console
from mlp_tape.tracking import client
from sweep_helpers import STEPS, at_work, losses, runs_in, table_of, the_sweep


def test_a_sweep_has_one_parent_a_table_and_an_answer(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.02,0.3", "dataset=digits", "epochs=2", "seed=5")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (parent,), children = runs_in(tmp_path)
    assert [run.info.run_name for run in children] == ["lr=0.02", "lr=0.1", "lr=0.3"]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.info.run_name == "sweep lr=0.1,0.02,0.3"
    assert parent.data.params["lr"] == "0.1,0.02,0.3"
    assert all(losses(tmp_path, run) == list(range(2 * STEPS)) for run in children)

    sweep = the_sweep(tmp_path)
    table = table_of(sweep)
    assert [row["lr"] for row in table] == ["0.02", "0.1", "0.3"]  # as numbers
    assert [row["job"] for row in table] == ["1", "0", "2"]
    logged = {run.info.run_id: run.data.metrics["test/accuracy"] for run in children}
    assert {row["run_id"]: float(row["accuracy"]) for row in table} == logged
    best = max(table, key=lambda row: float(row["accuracy"]))
    assert best["command"] == f"python run.py lr={best['lr']} dataset=digits epochs=2 seed=5"
    assert parent.data.tags["best.run_id"] == best["run_id"]
    assert parent.data.tags["best.command"] == best["command"]
    assert f"| {best['job']} | {best['lr']} | FINISHED |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["sweep/best_accuracy"] == float(best["accuracy"])
    assert f"best          job {best['job']}, test accuracy" in done.stdout
    assert re.search(rf"^ *{best['job']} +{best['lr']} +FINISHED", done.stdout, re.M)

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    left = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert left == {"config.yaml", "environment.txt", "sweep.csv", "sweep.md", "plots"}
    plots = {item.path for item in client.list_artifacts(parent.info.run_id, "plots")}
    assert plots == {"plots/sweep_accuracy.png", "plots/sweep_curves.png"}
    full = {run.info.run_id for run in children if client.list_artifacts(run.info.run_id, "plots")}
    assert full == {best["run_id"]}  # the best alone has pictures and a model
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.source_run_id == best["run_id"]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0", "1", "2", "plots"}


def swept(directory: Path, **more: object) -> list[RunRecord]:
    """A sweep's directory with two jobs that have finished, 1 as the best."""
    (directory / "jobs.json").write_text('{"first": "0", "second": "1"}')
    jobs = []
    for name, accuracy in (("0", 0.8), ("1", 0.9)):
        (directory / name).mkdir()
        (directory / name / "journal.jsonl").touch()
        results = {"test/accuracy": accuracy, "test/loss": 0.1}
        jobs.append(RunRecord(directory / name, name=name, status="FINISHED", results=results, **more))
        jobs[-1].save()
    return jobs


def test_jobs_that_finish_at_the_same_moment_are_one_row_of_the_sweep(tmp_path: Path) -> None:
    told: list[int] = []
    monitor = Monitor(
        SweepDirectory(tmp_path), Console(on_screen=False), 2, lambda jobs: told.append(len(jobs))
    )
    swept(tmp_path)
    monitor._look(lambda *_: None)
    assert told == [2]


def test_the_table_has_the_id_of_a_run_that_mlflow_had_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = swept(tmp_path, uri="sqlite:///mlflow.db", full=True)

    def send(directory: Path, at_most: float) -> None:
        (job,) = [job for job in jobs if job.directory == directory]
        job.run_id, job.sent = f"id of {job.name}", True
        job.save()

    monkeypatch.setattr(client, "send", send)
    note = RunRecord(tmp_path, kind="sweep")
    with Console(on_screen=False) as console:
        report.conclude(Settings(), note, SweepDirectory(tmp_path), console)
    assert [row["run_id"] for row in table_of(tmp_path)] == ["id of 0", "id of 1"]
    assert note.tags["best.run_id"] == "id of 1"


@pytest.mark.long
@pytest.mark.concurrency
def test_a_failure_is_told_at_once_and_costs_no_other_job(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told, *rest = done.stderr.splitlines()  # told once, and listed at the end
    assert told.startswith("job 0  lr=1e+20  FAILED: DivergenceError: the loss is")
    assert rest[0] == "error: 1 of 2 jobs did not finish"
    (parent,), children = runs_in(tmp_path)
    assert rest[-1].strip() == f"to try again: python run.py -m sweep.resume={parent.info.run_id}"
    assert {run.info.run_name: run.info.status for run in children} == {
        "lr=1e+20": "FAILED",
        "lr=0.1": "FINISHED",
    }
    assert parent.info.status == "FAILED"


@pytest.mark.long
@pytest.mark.concurrency
def test_fail_fast_lets_no_job_begin_after_one_that_failed(run_py: Run, tmp_path: Path) -> None:
    arguments = [
        "-m",
        "lr=0.1,1e20,0.2,0.3",
        "dataset=digits",
        "report=none",
        "epochs=1",
        "sweep.fail_fast=true",
    ]
    done = run_py(tmp_path, *arguments)
    assert done.returncode == 1
    assert "2 more did not begin" in done.stderr
    _, children = runs_in(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "FAILED"]
    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 1  # it fails again, and fast again
    assert len(runs_in(tmp_path)[1]) == 2


@pytest.mark.long
@pytest.mark.concurrency
def test_a_sweep_that_failed_and_was_killed_is_picked_up(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    """Six jobs, one of which diverges; the process is killed in the fourth."""
    rates = "lr=0.1,1e20,0.2,0.05,0.3,0.4"
    arguments = ["-m", rates, "dataset=digits", "report=none", "epochs=60", "log_every=10"]
    program = started(tmp_path, offline, "sweep ", *arguments)
    victim = stop_when(program, "the fourth job at work", lambda: at_work(tmp_path, "lr=0.05", beyond=200))
    program.kill()
    ended(program)
    assert victim is not None
    (parent,), children = runs_in(tmp_path)
    assert {run.info.run_id: run.info.status for run in children}[victim.run_id] == "RUNNING"
    jobs = [run_record.read(path.parent) for path in the_sweep(tmp_path).glob("*/run.json")]
    before = {job.run_id: (job.began, job.ended) for job in jobs if job.status == "FINISHED"}
    assert len(before) == 2  # MLflow may not have heard of the second

    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 1, done.stderr
    (again,), children = runs_in(tmp_path)
    assert again.info.run_id == parent.info.run_id
    assert {run.info.run_name: run.info.status for run in children} == {
        "lr=0.1": "FINISHED",
        "lr=1e+20": "FAILED",
        "lr=0.2": "FINISHED",
        "lr=0.05": "FINISHED",
        "lr=0.3": "FINISHED",
        "lr=0.4": "FINISHED",
    }
    assert len(children) == 6
    for run in children:
        if run.info.status == "FINISHED":
            assert losses(tmp_path, run) == list(range(60 * STEPS)), "each step is there once"
    for path in the_sweep(tmp_path).glob("*/run.json"):
        job = run_record.read(path.parent)
        if job.run_id in before:
            assert (job.began, job.ended) == before[job.run_id], "it was not run again"
    table = {row["lr"]: row for row in table_of(the_sweep(tmp_path))}
    assert [row["job"] for row in table.values()] == ["3", "0", "2", "4", "5", "1"]
    assert table["0.05"]["run_id"] == victim.run_id
    log = (victim.directory / "console.log").read_text()
    assert re.search(r"^resumed after [1-9][\d,]* steps", log, re.M)
    assert "DivergenceError" in table["1e+20"]["reason"]

    more = ["lr=0.1,0.2,0.6", *arguments[2:], "sweep.resume=last"]
    done = run_py(tmp_path, "-m", *more)
    (again,), children = runs_in(tmp_path)
    assert len(children) == 7  # a new one is added
    assert table_of(the_sweep(tmp_path))[-2]["job"] == "6"


@pytest.mark.long
@pytest.mark.concurrency
def test_a_job_that_another_process_is_at_work_on_is_waited_for(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    run_py(tmp_path, "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
    job = the_sweep(tmp_path) / "0"
    before = run_record.read(job)
    with lock.hold(job):
        program = started(tmp_path, offline, "sweep ", "-m", "sweep.resume=last")
        (tmp_path / "beside").mkdir()  # where all of it takes no longer than it has waited by then
        run_py(tmp_path / "beside", "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
        assert program.poll() is None
        assert run_record.read(job) == before, "nobody touched it"
        released = time.time()
    shown = ended(program)
    assert program.returncode == 1, shown  # it fails again
    assert run_record.read(job).began >= released


@pytest.mark.long
@pytest.mark.concurrency
def test_ctrl_c_closes_job_and_sweep_and_both_can_be_gone_on_with(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["-m", "lr=0.1,0.2,0.3,0.4,0.5", "dataset=digits", "report=none", "epochs=60", "log_every=10"]
    program = started(tmp_path, offline, "sweep ", *arguments)
    job = stop_when(program, "the third job at work", lambda: at_work(tmp_path, "lr=0.3", beyond=200))
    assert job is not None
    before = len(list(journal.rows(job.directory, "train/loss")))
    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGCONT)
    shown = ended(program)
    assert program.returncode == 130, shown
    assert "Traceback" not in shown
    after = len(list(journal.rows(job.directory, "train/loss")))
    assert after <= before + 20, "it ends with the block of ten steps that it was at"
    send_the_rest(tmp_path, offline)
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "KILLED"]
    assert (parent.info.status, parent.data.tags["reason"]) == ("KILLED", "SIGINT")
    assert f"to resume: python run.py -m sweep.resume={parent.info.run_id}" in shown

    done = run_py(tmp_path, "-m", f"sweep.resume={parent.info.run_id}")
    assert done.returncode == 0, done.stderr
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["FINISHED"] * 6, done.stdout + done.stderr
    assert all(losses(tmp_path, run) == list(range(60 * STEPS)) for run in children)
    assert "reason" not in parent.data.tags


@pytest.mark.long
def test_jobs_that_differ_in_their_seed_are_summed_up(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "seed=0,1,2", "lr=0.1,0.3", "dataset=digits", "epochs=1")
    assert done.returncode == 0, done.stderr
    table = table_of(the_sweep(tmp_path))
    page = (the_sweep(tmp_path) / "sweep.md").read_text()
    for lr in ("0.1", "0.3"):
        found = [float(row["accuracy"]) for row in table if row["lr"] == lr]
        mean = sum(found) / 3
        deviation = (sum((value - mean) ** 2 for value in found) / 2) ** 0.5
        assert re.search(rf"^ *{lr} +3 +{mean:.4f} +{deviation:.4f} +[0-9.]+$", done.stdout, re.M)
        assert f"| {lr} | 3 | {mean:.4f} |" in page


@pytest.mark.long
@pytest.mark.concurrency
def test_two_sweeps_started_at_once_do_not_touch_each_other(offline: dict[str, str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "-m",
        "lr=0.1,0.2",
        "dataset=digits",
        "epochs=1",
    ]
    both = [subprocess.Popen(command, cwd=tmp_path, env=offline) for _ in range(2)]
    assert [one.wait(LIMIT) for one in both] == [0, 0]
    parents, children = runs_in(tmp_path)
    assert (len(parents), len(children)) == (2, 4)
    assert len(list(tmp_path.glob("multirun/*/*"))) == 2
    assert len(list(tmp_path.glob("multirun/*/*/*/weights.npz"))) == 4
    assert [run.info.status for run in parents + children] == ["FINISHED"] * 6


@pytest.mark.long
def test_a_sweep_decides_once_which_data_its_jobs_have(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.2", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Training on the 5,000 MNIST images of mnist_5k instead") == 1
    _, children = runs_in(tmp_path)
    assert {run.data.params["dataset.name"] for run in children} == {"mnist_5k"}
    assert len({run.data.params["data_sha256"] for run in children}) == 1


def test_bad_data_of_any_job_are_refused_before_the_sweep_is_opened(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "dataset=digits,mnist", "dataset.path=null,nowhere.npz", "epochs=1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"error: {tmp_path / 'nowhere.npz'} does not exist"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
@pytest.mark.concurrency
def test_two_processes_do_not_pick_up_one_sweep(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    arguments = ["-m", "lr=0.1,0.2", "dataset=digits", "report=none", "epochs=100000", "log_every=10"]
    program = started(tmp_path, offline, "sweep ", *arguments)
    try:
        done = run_py(tmp_path, "-m", f"sweep.resume={the_sweep(tmp_path)}")
        assert done.returncode == 2
        assert "another process is using" in done.stderr
        done = run_py(tmp_path, "-m", "sweep.resume=last")
        assert done.returncode == 2
        assert "sweep.resume=last: no sweep below" in done.stderr
    finally:
        program.kill()
        program.communicate()


REFUSED = [
    (["sweep.resume=last"], "sweep.resume=... resumes a sweep"),
    (["-m", "sweep.resume=last"], "sweep.resume=last: no sweep below"),
    (["-m", "lr=1,2", "sweep.resume=nope"], "sweep.resume=nope: no such sweep below"),
    (["sweep=optuna"], "sweep is not in the defaults list"),
    (["-m", "cluster=slurm", "lr=1,2"], "cluster is not in the defaults list"),
]


@pytest.mark.parametrize(
    ("arguments", "what"), sample(REFUSED, REFUSED[1]), ids=[" ".join(case[0]) for case in REFUSED]
)
def test_a_wrong_command_starts_no_sweep(
    run_py: Run, tmp_path: Path, arguments: list[str], what: str
) -> None:
    done = run_py(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_an_untracked_sweep_has_its_answer_in_its_directory(run_py: Run, tmp_path: Path) -> None:
    arguments = ["-m", "lr=0.1,0.2", "dataset=digits", "report=none", "epochs=1", "tracking.enabled=false"]
    done = run_py(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert [row["status"] for row in table_of(the_sweep(tmp_path))] == ["FINISHED", "FINISHED"]
    began = {path: path.stat().st_mtime_ns for path in tmp_path.glob("multirun/*/*/*/weights.npz")}
    assert run_py(tmp_path, "-m", "sweep.resume=last").returncode == 0
    assert not (tmp_path / "mlflow.db").exists(), "it is as untracked as it was"
    assert began == {path: path.stat().st_mtime_ns for path in began}, "nothing was trained again"


@pytest.mark.long
def test_a_sweep_picked_up_by_itself_is_recorded_where_it_was(run_py: Run, tmp_path: Path) -> None:
    other = f"tracking.uri=sqlite:///{tmp_path}/other.db"
    arguments = [
        "-m",
        "lr=1e20,0.1",
        "dataset=digits",
        "report=none",
        "epochs=1",
        "sweep.fail_fast=true",
        other,
    ]
    assert run_py(tmp_path, *arguments).returncode == 1
    done = run_py(tmp_path, "-m", "sweep.resume=last", "sweep.fail_fast=false")
    assert done.returncode == 1, done.stderr  # lr=1e20 fails again
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db")
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name: run.info.status for run in found if run.info.run_name.startswith("lr")} == {
        "lr=1e+20": "FAILED",
        "lr=0.1": "FINISHED",
    }
    assert len(found) == 3
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
def test_data_that_changed_since_a_sweep_began_are_refused(run_py: Run, tmp_path: Path) -> None:
    def save(shift: int) -> None:
        x, y = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4) + np.uint8(shift), np.arange(20) % 2
        np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    save(0)
    arguments = ["-m", "lr=1e30,0.1", "dataset=arrays", "dataset.path=mine.npz", "epochs=5"]
    assert run_py(tmp_path, *arguments).returncode == 1
    before = {path: path.read_bytes() for path in the_sweep(tmp_path).glob("*/run.json")}
    save(1)
    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 2, done.stderr
    assert "are not those that the sweep began with: SHA-256" in done.stderr
    assert {path: path.read_bytes() for path in before} == before, "no job was touched"
