"""Sweeps: failures, resuming, and the report at the end."""

import contextlib
import csv
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import (
    LIMIT,
    ROOT,
    Run,
    kill_after_limit,
    pause_when,
    sample,
    start_program,
    sync_unsent,
    wait_for_exit,
)
from mlp_tape.config.settings import DatasetSettings, Settings, TrackingSettings
from mlp_tape.errors import ConfigError, SweepError
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps import report, sweep
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.monitor import Monitor, pause
from mlp_tape.sweeps.plan import Plan, PlannedJob
from mlp_tape.system.console import Console
from mlp_tape.tracking import client
from sweep_helpers import STEPS, loss_steps, read_table, running_job, runs_in, sweep_directory


def test_refused_sweep_leaves_the_directory_to_the_process_that_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find that the directory does not exist; the other one is the first to lock it."""
    directory, hold = tmp_path / "sweeps" / "mine", lock.hold
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; input(); from mlp_tape.storage.lock import hold\n" + HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )

    def hold_after_the_other(path: Path) -> contextlib.AbstractContextManager[None]:
        assert other.stdin and other.stdout
        other.stdin.write(f"\n{path}\n")
        other.stdin.flush()
        assert other.stdout.readline() == "held\n"
        return hold(path)

    monkeypatch.setattr(lock, "hold", hold_after_the_other)
    settings = Settings(tracking=TrackingSettings(enabled=False), dataset=DatasetSettings(name="digits"))
    plan = Plan([PlannedJob([], settings)])
    with (
        kill_after_limit(other),
        pytest.raises(ConfigError, match="another process is using"),
        sweep.opened(plan, directory, Command([], [])),
    ):
        pass
    assert (directory / "begun").read_text() == "by the other"
    other.communicate("\n")
    assert other.returncode == 0


HOLDS = """
from pathlib import Path
directory = Path(input())
with hold(directory):
    (directory / "begun").write_text("by the other")
    print("held", flush=True)
    input()
"""


def test_sweep_has_a_parent_run_a_table_and_a_best_job(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.02,0.3", "dataset=digits", "epochs=2", "seed=5")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (parent,), children = runs_in(tmp_path)
    assert [run.info.run_name for run in children] == ["lr=0.02", "lr=0.1", "lr=0.3"]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.info.run_name == "sweep lr=0.1,0.02,0.3"
    assert parent.data.params["lr"] == "0.1,0.02,0.3"
    assert all(loss_steps(tmp_path, run) == list(range(2 * STEPS)) for run in children)

    directory = sweep_directory(tmp_path)
    table = read_table(directory)
    assert [row["lr"] for row in table] == ["0.02", "0.1", "0.3"]  # sorted as numbers
    assert [row["job"] for row in table] == ["1", "0", "2"]
    logged = {run.info.run_id: run.data.metrics["test/accuracy"] for run in children}
    assert {row["run_id"]: float(row["test accuracy"]) for row in table} == logged
    best = max(table, key=lambda row: float(row["validation accuracy"]))
    repeat = f"python run.py lr={best['lr']} dataset=digits epochs=2 seed=5 validation_fraction="
    assert best["command"] == f"{repeat}0.1"
    assert parent.data.tags["best.command_on_all_images"] == f"{repeat}0"
    assert f"\non all images {repeat}0\n" in done.stdout
    assert "chosen by validation accuracy, on 144 of 1,437 training images" in done.stdout
    assert parent.data.tags["best.run_id"] == best["run_id"]
    assert parent.data.tags["best.command"] == best["command"]
    assert f"| {best['job']} | {best['lr']} | FINISHED |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["sweep/best_validation_accuracy"] == float(best["validation accuracy"])
    assert f"best          job {best['job']}, validation accuracy" in done.stdout
    assert re.search(rf"^ *{best['job']} +{best['lr']} +FINISHED", done.stdout, re.M)

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    files = {"config.yaml", "console.log", "environment.txt", "sweep.csv", "sweep.md"}
    assert artifacts - {"uncommitted.diff"} == {*files, "plots"}  # of a checkout with changes
    console = Path(client.download_artifacts(parent.info.run_id, "console.log", str(tmp_path))).read_text()
    assert f"best          job {best['job']}, validation accuracy" in console
    assert all(
        "console.log" in {item.path for item in client.list_artifacts(run.info.run_id)} for run in children
    )
    plots = {item.path for item in client.list_artifacts(parent.info.run_id, "plots")}
    assert plots == {"plots/sweep_accuracy.png", "plots/sweep_curves.png"}
    full = {run.info.run_id for run in children if client.list_artifacts(run.info.run_id, "plots")}
    assert full == {best["run_id"]}  # only the best job has plots and a model
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.source_run_id == best["run_id"]
    assert {path.name for path in directory.iterdir() if path.is_dir()} == {"0", "1", "2", "plots"}


def finished_sweep(directory: Path, **more: object) -> list[RunRecord]:
    """Creates the directory of a sweep with two finished jobs, of which job 1 is the best."""
    (directory / "jobs.json").write_text('{"first": "0", "second": "1"}')
    jobs = []
    for name, accuracy in (("0", 0.8), ("1", 0.9)):
        (directory / name).mkdir()
        (directory / name / "journal.jsonl").touch()
        results = {"test/accuracy": accuracy, "test/loss": 0.1}
        jobs.append(RunRecord(directory / name, name=name, status="FINISHED", results=results, **more))
        jobs[-1].save()
    return jobs


def test_jobs_that_finish_at_the_same_time_are_reported_once(tmp_path: Path) -> None:
    reported: list[int] = []
    monitor = Monitor(
        SweepDirectory(tmp_path), Console(on_screen=False), 2, lambda jobs: reported.append(len(jobs))
    )
    finished_sweep(tmp_path)
    monitor._poll(lambda *_: None)
    assert reported == [2]


def test_line_of_a_finished_job_says_of_which_images_an_accuracy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = Monitor(SweepDirectory(tmp_path), Console(), 2, lambda jobs: None)
    _, best = finished_sweep(tmp_path, settings={"lr": 0.1 + 0.2}, seconds=2.0)
    best.name, best.results["validation/accuracy"] = "lr=0.30000000000000004", 0.8
    best.save()
    monitor._poll(lambda *_: None)
    assert capsys.readouterr().out.splitlines() == [
        "job 0  0  test accuracy 0.8000  2.0 s",
        "job 1  lr=0.3  validation accuracy 0.8000  test accuracy 0.9000  2.0 s",
    ]


def test_table_has_run_ids_that_are_assigned_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = finished_sweep(tmp_path, uri="sqlite:///mlflow.db", full=True)

    def send(directory: Path, at_most: float) -> None:
        (job,) = [job for job in jobs if job.directory == directory]
        DeliveryRecord(run_id=f"id of {job.name}", version=job.version).save(directory)

    monkeypatch.setattr(client, "send", send)
    record = RunRecord(tmp_path, kind="sweep")
    with Console(on_screen=False) as console:
        report.conclude(Settings(), record, SweepDirectory(tmp_path), console)
    assert [row["run_id"] for row in read_table(tmp_path)] == ["id of 0", "id of 1"]
    assert record.tags["best.run_id"] == "id of 1"


def test_report_names_the_best_job_and_the_best_setting(tmp_path: Path) -> None:
    """Job 4 has the highest accuracy, but its setting has a single seed."""
    results = {(0.1, 0): 0.90, (0.1, 1): 0.80, (0.1 + 0.2, 0): 0.88, (0.1 + 0.2, 1): 0.86, (0.5, 0): 0.95}
    numbers = {f"identity {i}": str(i) for i in range(len(results))}
    (tmp_path / "jobs.json").write_text(json.dumps(numbers))
    for i, ((lr, seed), accuracy) in enumerate(results.items()):
        directory = tmp_path / str(i)
        directory.mkdir()
        (directory / "journal.jsonl").touch()
        record = RunRecord(directory, name=f"lr={lr} seed={seed}", status="FINISHED", full=True)
        record.settings = {"lr": lr, "seed": seed}
        record.results = {"test/accuracy": accuracy, "validation/accuracy": accuracy, "test/loss": 0.1}
        record.save()
    record = RunRecord(tmp_path, kind="sweep")
    with Console(on_screen=False) as console:
        console.copy_to(tmp_path / "console.log")
        report.conclude(Settings(), record, SweepDirectory(tmp_path), console)
    both = "validation accuracy 0.8700 ± 0.0141, test accuracy 0.8700 ± 0.0141"
    setting = f"lr=0.3, {both} (mean ± standard deviation of 2 seeds)"
    shown = (tmp_path / "console.log").read_text()
    assert "its first job job 2, validation accuracy 0.8800, test accuracy 0.8800: python run.py" in shown
    assert f"best setting  {setting}\n" in shown
    page = (tmp_path / "sweep.md").read_text()
    assert f"**Best setting:** {setting}\n" in page
    assert (
        "3 settings by mean validation accuracy over seeds, settings with fewer seeds last\n\n| lr |" in page
    )
    tags = {key: value for key, value in record.tags.items() if key.startswith("best.setting")}
    assert tags == {
        "best.setting": "lr=0.3",
        "best.setting.metric": "validation/accuracy",
        "best.setting.mean": "0.87",
        "best.setting.std": str(statistics.stdev([0.88, 0.86])),
        "best.setting.seeds": "2",
    }
    with (tmp_path / "sweep_seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["lr"] for row in rows] == ["0.30000000000000004", "0.1", "0.5"]
    assert rows[0]["mean validation accuracy"] == "0.87"
    assert {path.name for path in tmp_path.glob("plots/*")} == {"sweep_accuracy.png", "sweep_curves.png"}


def test_name_of_a_sweep_is_short_and_has_the_swept_settings_only() -> None:
    fixed = ["dataset=digits", "model.hidden_sizes=[64,32]", "dataset.path='a,b'"]
    assert sweep._name(["lr=0.1,0.01", *fixed], 2) == "sweep lr=0.1,0.01"
    assert (
        sweep._name(["model.hidden_sizes=[64,32],[16]", *fixed], 2) == "sweep model.hidden_sizes=[64,32],[16]"
    )
    assert sweep._name(["lr=interval(0.1,1)", *fixed], None) == "sweep lr=interval(0.1,1)"
    assert sweep._name(["+sweep=optuna", "tracking.uri=http://server"], None) == "sweep +sweep=optuna"
    many = ",".join(str(i) for i in range(50))
    assert sweep._name([f"lr={many}", f"+seed={many}", *fixed], 2500) == "sweep lr, seed (2,500 jobs)"
    long = sweep._name([f"group.setting_{i}={many}" for i in range(20)], None)
    assert len(long) <= 80
    assert long.startswith("sweep group.setting_0, ")
    assert long.endswith(" group.setting_19")


def test_error_says_whether_jobs_failed_or_did_not_begin(tmp_path: Path) -> None:
    jobs, record = SweepDirectory(tmp_path), RunRecord(tmp_path, kind="sweep")

    def message(planned: int) -> str:
        plan = Plan([PlannedJob([], Settings(seed=seed)) for seed in range(planned)])
        with pytest.raises(SweepError) as caught:
            sweep._refuse_failures(jobs, record, plan)
        return caught.value.what

    assert message(2) == "2 of 2 jobs did not begin"
    assert message(1) == "1 of 1 job did not begin"
    _, failed = finished_sweep(tmp_path)
    names = {jobs.identity(Settings(seed=seed)): str(seed) for seed in range(2)}
    (tmp_path / "jobs.json").write_text(json.dumps(names))
    assert message(3) == "1 of 3 jobs did not begin"
    failed.status, failed.reason = "FAILED", "why"
    failed.save()
    lines = ["1 of 3 jobs did not finish", "job 1  1  FAILED: why", "1 more did not begin"]
    assert message(3) == "\n       ".join(lines)


def test_progress_of_a_sweep_has_a_step_for_each_job_however_late_it_is_seen(tmp_path: Path) -> None:
    jobs = finished_sweep(tmp_path)
    jobs[0].ended, jobs[1].ended = 20.0, 10.0
    accuracies = [job.results["test/accuracy"] for job in jobs]
    with Journal(tmp_path) as rows:
        progress = sweep._Progress(rows, Settings())
        for known in ([], jobs, jobs):
            progress(known)
    seen = [
        (row.step, row.value, row.timestamp) for row in journal.rows(tmp_path, "sweep/best_test_accuracy")
    ]
    assert seen == [(1, accuracies[1], 10_000), (2, max(accuracies), 20_000)]
    with Journal(tmp_path) as rows:  # the sweep is resumed
        rows.recover(0)
        sweep._Progress(rows, Settings())(jobs)
    assert len(list(journal.rows(tmp_path, "sweep/best_test_accuracy"))) == 2


def test_progress_of_a_sweep_has_the_best_accuracy_by_which_jobs_are_ranked(tmp_path: Path) -> None:
    jobs = finished_sweep(tmp_path)
    with Journal(tmp_path) as rows:
        sweep._Progress(rows, Settings())(jobs)
        for job in jobs:
            job.results["validation/accuracy"] = 1 - job.results["test/accuracy"]
        sweep._Progress(rows, Settings())(jobs)
    values = {row.key: row.value for row in journal.rows(tmp_path, "sweep/")}
    assert values["sweep/best_test_accuracy"] == 0.9
    assert values["sweep/best_validation_accuracy"] == pytest.approx(0.2)


@pytest.mark.long
@pytest.mark.concurrency
def test_failure_is_reported_immediately_and_other_jobs_continue(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message, *rest = done.stderr.splitlines()  # reported once, and listed at the end
    assert message.startswith("job 0  lr=1e+20  FAILED: DivergenceError: the loss is")
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
def test_fail_fast_starts_no_job_after_a_failed_one(run_py: Run, tmp_path: Path) -> None:
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
    assert done.returncode == 1  # the job fails again, and the sweep stops again
    assert len(runs_in(tmp_path)[1]) == 2


@pytest.mark.long
@pytest.mark.concurrency
def test_sweep_with_a_failed_and_a_killed_job_is_resumed(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    """Six jobs, one of which diverges; the process is killed in the fourth."""
    rates = "lr=0.1,1e20,0.2,0.05,0.3,0.4"
    arguments = ["-m", rates, "dataset=digits", "report=none", "epochs=60", "log_every=10"]
    program = start_program(tmp_path, offline, "sweep ", *arguments)
    victim = pause_when(program, "the fourth job", lambda: running_job(tmp_path, "lr=0.05", beyond=200))
    program.kill()
    wait_for_exit(program)
    assert victim is not None
    (parent,), children = runs_in(tmp_path)
    assert {run.info.run_id: run.info.status for run in children}[victim.run_id] == "RUNNING"
    jobs = [run_record.read(path.parent) for path in sweep_directory(tmp_path).glob("*/run.json")]
    before = {job.run_id: (job.began, job.ended) for job in jobs if job.status == "FINISHED"}
    assert len(before) == 2  # the second may not have been delivered to MLflow yet

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
            assert loss_steps(tmp_path, run) == list(range(60 * STEPS)), "steps are missing or duplicated"
    for path in sweep_directory(tmp_path).glob("*/run.json"):
        job = run_record.read(path.parent)
        if job.run_id in before:
            assert (job.began, job.ended) == before[job.run_id], "a finished job was run again"
    table = {row["lr"]: row for row in read_table(sweep_directory(tmp_path))}
    assert [row["job"] for row in table.values()] == ["3", "0", "2", "4", "5", "1"]
    assert table["0.05"]["run_id"] == victim.run_id
    log = (victim.directory / "console.log").read_text()
    assert re.search(r"^resumed after [1-9][\d,]* steps", log, re.M)
    assert "DivergenceError" in table["1e+20"]["reason"]

    more = ["lr=0.1,0.2,0.6", *arguments[2:], "sweep.resume=last"]
    done = run_py(tmp_path, "-m", *more)
    (again,), children = runs_in(tmp_path)
    assert len(children) == 7  # the new job is added
    assert read_table(sweep_directory(tmp_path))[-2]["job"] == "6"


@pytest.mark.long
@pytest.mark.concurrency
def test_sweep_waits_for_a_job_that_another_process_is_running(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    run_py(tmp_path, "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
    job = sweep_directory(tmp_path) / "0"
    before = run_record.read(job)
    with lock.hold(job):
        program = start_program(tmp_path, offline, "sweep ", "-m", "sweep.resume=last")
        (tmp_path / "other").mkdir()  # a complete sweep there takes as long as this one has to wait
        run_py(tmp_path / "other", "-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1")
        assert program.poll() is None
        assert run_record.read(job) == before, "the record of the job was modified"
        released = time.time()
    output = wait_for_exit(program)
    assert program.returncode == 1, output  # the job fails again
    assert run_record.read(job).began >= released


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_ctrl_c_ends_a_job_that_waits_for_another_process(
    run_py: Run, offline: dict[str, str], tmp_path: Path, launcher: str
) -> None:
    arguments = ["-m", "lr=1e20,0.1", "dataset=digits", "report=none", "epochs=1"]
    assert run_py(tmp_path, *arguments).returncode == 1
    with lock.hold(sweep_directory(tmp_path) / "0"):
        resumed = [*arguments, f"hydra/launcher={launcher}", "sweep.resume=last"]
        program = start_program(tmp_path, offline, "sweep ", *resumed)
        program.send_signal(signal.SIGINT)
        output = wait_for_exit(program)  # the lock is held until then
    assert program.returncode == 130, output
    assert "Traceback" not in output


@pytest.mark.long
@pytest.mark.concurrency
def test_ctrl_c_closes_job_and_sweep_and_both_can_be_resumed(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["-m", "lr=0.1,0.2,0.3,0.4,0.5", "dataset=digits", "report=none", "epochs=60", "log_every=10"]
    program = start_program(tmp_path, offline, "sweep ", *arguments)
    job = pause_when(program, "the third job", lambda: running_job(tmp_path, "lr=0.3", beyond=200))
    assert job is not None
    before = len(list(journal.rows(job.directory, "train/loss")))
    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGCONT)
    output = wait_for_exit(program)
    assert program.returncode == 130, output
    assert "Traceback" not in output
    after = len(list(journal.rows(job.directory, "train/loss")))
    assert after <= before + 20, "the job continued after its current block of ten steps"
    sync_unsent(tmp_path, offline)
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "KILLED"]
    assert (parent.info.status, parent.data.tags["reason"]) == ("KILLED", "SIGINT")
    assert f"to resume: python run.py -m sweep.resume={parent.info.run_id}" in output

    done = run_py(tmp_path, "-m", f"sweep.resume={parent.info.run_id}")
    assert done.returncode == 0, done.stderr
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["FINISHED"] * 6, done.stdout + done.stderr
    assert all(loss_steps(tmp_path, run) == list(range(60 * STEPS)) for run in children)
    assert "reason" not in parent.data.tags


@pytest.mark.long
def test_report_has_statistics_over_jobs_that_differ_in_seed(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "seed=0,1,2", "lr=0.1,0.3", "dataset=digits", "epochs=1")
    assert done.returncode == 0, done.stderr
    table = read_table(sweep_directory(tmp_path))
    page = (sweep_directory(tmp_path) / "sweep.md").read_text()
    for lr in ("0.1", "0.3"):
        found = [float(row["validation accuracy"]) for row in table if row["lr"] == lr]
        mean = sum(found) / 3
        deviation = (sum((value - mean) ** 2 for value in found) / 2) ** 0.5
        assert re.search(rf"^ *{lr} +3 +{mean:.4f} +{deviation:.4f} +[0-9.]+ ", done.stdout, re.M)
        assert f"| {lr} | 3 | {mean:.4f} |" in page
    assert re.search(
        r"^best setting  lr=0\.3, validation accuracy 0\.\d{4} ± 0\.\d{4}, test", done.stdout, re.M
    )
    (parent,), _ = runs_in(tmp_path)
    assert parent.data.tags["best.setting"] == "lr=0.3"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"sweep.csv", "sweep_seeds.csv"} <= artifacts


@pytest.mark.long
@pytest.mark.concurrency
def test_two_simultaneous_sweeps_do_not_affect_each_other(offline: dict[str, str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "-m",
        "lr=0.1,0.2",
        "dataset=digits",
        "epochs=1",
    ]
    programs = [subprocess.Popen(command, cwd=tmp_path, env=offline) for _ in range(2)]
    assert [program.wait(LIMIT) for program in programs] == [0, 0]
    parents, children = runs_in(tmp_path)
    assert (len(parents), len(children)) == (2, 4)
    assert len(list(tmp_path.glob("multirun/*/*"))) == 2
    assert len(list(tmp_path.glob("multirun/*/*/*/weights.npz"))) == 4
    assert [run.info.status for run in parents + children] == ["FINISHED"] * 6


@pytest.mark.long
def test_jobs_whose_data_are_equal_are_run_once_and_each_has_its_directory(
    run_py: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (300, 28, 28), np.uint8), np.arange(300) % 10
    for name, n in ("a", 100), ("copy_of_a", 100), ("b", 99):
        np.savez(
            tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images[:n], y_test=labels[:n]
        )
    done = run_py(
        tmp_path, "-m", "dataset=arrays", "dataset.path=a.npz,copy_of_a.npz,b.npz", "lr=0.1,1e-1", "seed=1,2",
        "epochs=1", "report=light", "hydra.sweep.subdir='lr=${lr}/${dataset.path}/seed ${seed}'",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sweep  4 jobs (8 more are equal to one of them)" in done.stdout
    (sweep,) = [path.parent for path in tmp_path.glob("multirun/*/*/run.json")]
    folders = {f"lr=0.1/{data}.npz/seed {seed}" for data in "ab" for seed in (1, 2)}
    assert {str(path.parent.relative_to(sweep)) for path in sweep.glob("*/*/*/run.json")} == folders
    for folder in folders:
        assert f"\njob {folder}  " in done.stdout
    again = run_py(tmp_path, "-m", "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert "began" not in again.stdout


@pytest.mark.long
def test_all_jobs_of_a_sweep_use_the_same_data(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.2", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Training on the 5,000 MNIST images of mnist_5k instead") == 1
    _, children = runs_in(tmp_path)
    assert {run.data.params["dataset.name"] for run in children} == {"mnist_5k"}
    assert len({run.data.params["data_sha256"] for run in children}) == 1


def test_invalid_data_of_any_job_are_rejected_before_the_sweep_begins(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "dataset=digits,mnist", "dataset.path=null,nowhere.npz", "epochs=1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"error: {tmp_path / 'nowhere.npz'} does not exist"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
@pytest.mark.concurrency
def test_running_sweep_cannot_be_resumed_by_another_process(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["-m", "lr=0.1,0.2", "dataset=digits", "report=none", "epochs=100000", "log_every=10"]
    program = start_program(tmp_path, offline, "sweep ", *arguments)
    try:
        done = run_py(tmp_path, "-m", f"sweep.resume={sweep_directory(tmp_path)}")
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
def test_invalid_command_starts_no_sweep(
    run_py: Run, tmp_path: Path, arguments: list[str], what: str
) -> None:
    done = run_py(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_untracked_sweep_has_its_results_in_its_directory(run_py: Run, tmp_path: Path) -> None:
    arguments = ["-m", "lr=0.1,0.2", "dataset=digits", "report=none", "epochs=1", "tracking.enabled=false"]
    done = run_py(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert [row["status"] for row in read_table(sweep_directory(tmp_path))] == ["FINISHED", "FINISHED"]
    began = {path: path.stat().st_mtime_ns for path in tmp_path.glob("multirun/*/*/*/weights.npz")}
    assert run_py(tmp_path, "-m", "sweep.resume=last").returncode == 0
    assert not (tmp_path / "mlflow.db").exists(), "the resumed sweep was tracked"
    assert began == {path: path.stat().st_mtime_ns for path in began}, "a finished job was trained again"


@pytest.mark.long
def test_resumed_sweep_is_recorded_in_its_original_store(run_py: Run, tmp_path: Path) -> None:
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
def test_data_that_changed_since_the_sweep_began_are_rejected(run_py: Run, tmp_path: Path) -> None:
    def save(shift: int) -> None:
        x, y = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4) + np.uint8(shift), np.arange(20) % 2
        np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    save(0)
    arguments = ["-m", "lr=1e30,0.1", "dataset=arrays", "dataset.path=mine.npz", "epochs=5"]
    assert run_py(tmp_path, *arguments).returncode == 1
    before = {path: path.read_bytes() for path in sweep_directory(tmp_path).glob("*/run.json")}
    save(1)
    done = run_py(tmp_path, "-m", "sweep.resume=last")
    assert done.returncode == 2, done.stderr
    assert "have changed since the sweep began: SHA-256" in done.stderr
    assert {path: path.read_bytes() for path in before} == before, "the record of a job was modified"


@pytest.mark.parametrize(("taken", "expected"), [(0.001, 0.25), (0.06, 1.2), (5.0, 2.0)])
def test_polls_of_many_jobs_take_a_small_share_of_the_time(taken: float, expected: float) -> None:
    assert pause(taken) == pytest.approx(expected)
