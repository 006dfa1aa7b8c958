"""Sweeps with other launchers and sweepers, many workers, and a server on PostgreSQL."""

import functools
import importlib.util
import json
import os
import re
import signal
from pathlib import Path

import mlflow
import pytest
from postgres import Postgres

from conftest import LIMIT, Run, Server, pause_when, start_program, wait_for_exit
from mlp_tape.sweeps import directory
from sweep_helpers import PARENT, running_job

WORKERS = int(os.environ.get("MLP_TAPE_WORKERS", "3"))
REPETITIONS = int(os.environ.get("MLP_TAPE_TRIES", "1"))
IN_PARALLEL = ["-m", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={WORKERS}", "dataset=digits"]
IN_PARALLEL += ["report=none"]


def require_plugin(package: str, extra: str) -> None:
    """Skips the test if a Hydra plugin is not installed."""
    if importlib.util.find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"pip install '.[{extra}]' to run this test")


def check_all_rows_delivered(uri: str, sweep: Path, jobs: int) -> int:
    """Checks that MLflow has each row of the jobs' journals exactly once; returns the number of rows."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    children = {run.info.run_id: run for run in runs if PARENT in run.data.tags}
    (parent,) = [run for run in runs if PARENT not in run.data.tags]
    assert {run.data.tags[PARENT] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    records = directory.SweepDirectory(sweep).jobs()
    assert len(records) == len(children) == jobs
    count = 0
    for record in records:
        rows = [json.loads(line) for line in (record.directory / "journal.jsonl").read_text().splitlines()]
        for key in {row[0] for row in rows}:
            history = client.get_metric_history(record.run_id, key)
            assert [[key, row.step, row.value, row.timestamp] for row in history] == [
                row for row in rows if row[0] == key
            ]
        count += len(rows)
    return count


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("attempt", range(REPETITIONS))
def test_parallel_workers_create_a_database_and_lose_no_row(
    run_py: Run, tmp_path: Path, attempt: int
) -> None:
    rates = ",".join(str(0.05 * i) for i in range(1, WORKERS + 2))
    done = run_py(tmp_path, *IN_PARALLEL, f"lr={rates}", "epochs=5", "log_every=1")
    assert (done.returncode, done.stderr) == (0, "")
    (sweep,) = tmp_path.glob("multirun/*/*")
    count = check_all_rows_delivered(f"sqlite:///{tmp_path / 'mlflow.db'}", sweep, WORKERS + 1)
    print(f"\n{WORKERS} workers on a new SQLite database: all {count:,} rows delivered")


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("attempt", range(REPETITIONS))
def test_parallel_workers_with_a_server_on_postgresql_lose_no_row(
    run_py: Run, postgres: Postgres, tmp_path: Path, attempt: int
) -> None:
    server = Server(tmp_path, store=postgres.uri)
    server.start()
    try:
        rates = ",".join(str(0.05 * i) for i in range(1, WORKERS + 1))
        more = [f"lr={rates}", "epochs=5", "log_every=1", f"tracking.uri={server.url}"]
        done = run_py(tmp_path, *IN_PARALLEL, *more)
        assert (done.returncode, done.stderr) == (0, "")
        (sweep,) = tmp_path.glob("multirun/*/*")
        count = check_all_rows_delivered(server.url, sweep, WORKERS)
        print(f"\n{WORKERS} workers on PostgreSQL through a server: all {count:,} rows delivered")
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.concurrency
def test_server_outage_during_a_sweep_affects_no_job(
    server: Server, offline: dict[str, str], tmp_path: Path
) -> None:
    """The server is unavailable while jobs end and others begin."""
    arguments = ["-m", "lr=0.1,0.2,0.3,0.4", "dataset=digits", "report=none", "epochs=60", "log_every=10"]
    arguments += [f"tracking.uri={server.url}", f"tracking.patience={LIMIT}"]
    program = start_program(tmp_path, offline, "job 0  lr=0.1  began", *arguments)
    pause_when(program, "the first job", lambda: running_job(tmp_path, "lr=0.1", beyond=100))
    server.stop()
    program.send_signal(signal.SIGCONT)
    third = functools.partial(running_job, tmp_path, "lr=0.3", beyond=100, known=False)
    pause_when(program, "the third job", third)
    server.start()
    program.send_signal(signal.SIGCONT)
    rest = wait_for_exit(program)
    assert program.returncode == 0, rest
    assert "WARNING" not in rest
    (sweep,) = tmp_path.glob("multirun/*/*")
    check_all_rows_delivered(server.url, sweep, 4)


@pytest.mark.long
def test_sweep_runs_with_submitit(run_py: Run, tmp_path: Path) -> None:
    require_plugin("hydra_submitit_launcher", "slurm")
    done = run_py(
        tmp_path,
        "-m",
        "hydra/launcher=submitit_local",
        "lr=0.1,0.2",
        "dataset=digits",
        "report=none",
        "epochs=1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    (sweep,) = tmp_path.glob("multirun/*/*")
    check_all_rows_delivered(f"sqlite:///{tmp_path / 'mlflow.db'}", sweep, 2)
    assert re.search(
        r"^job 1  lr=0.2  validation accuracy 0\.\d{4}  test accuracy 0\.\d{4}", done.stdout, re.M
    )


def test_slurm_config_composes(run_py: Run, tmp_path: Path) -> None:
    require_plugin("hydra_submitit_launcher", "slurm")
    arguments = ["--cfg", "hydra", "--package", "hydra.launcher"]
    done = run_py(tmp_path, *arguments, "+cluster=slurm", "lr=0.1")
    assert done.returncode == 0, done.stderr
    assert "SlurmLauncher" in done.stdout
    assert "OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK" in done.stdout


@pytest.mark.long
def test_sweep_runs_with_ray(run_py: Run, tmp_path: Path) -> None:
    require_plugin("hydra_ray_launcher", "ray")
    arguments = ["-m", "+cluster=ray", "hydra.launcher.ray.init.num_cpus=2", "lr=0.1,0.2,0.3"]
    done = run_py(tmp_path, *arguments, "dataset=digits", "report=none", "epochs=1")
    assert done.returncode == 0, done.stderr
    (sweep,) = tmp_path.glob("multirun/*/*")
    check_all_rows_delivered(f"sqlite:///{tmp_path / 'mlflow.db'}", sweep, 3)


def test_error_names_an_extra_that_is_not_installed(run_py: Run, tmp_path: Path) -> None:
    missing = next(
        (
            (group, extra)
            for group, package, extra in (
                ("cluster=ray", "hydra_ray_launcher", "ray"),
                ("cluster=slurm", "hydra_submitit_launcher", "slurm"),
            )
            if importlib.util.find_spec(f"hydra_plugins.{package}") is None
        ),
        None,
    )
    if missing is None:
        pytest.skip("all extras are installed")
    done = run_py(tmp_path, "-m", f"+{missing[0]}", "lr=0.1,0.2")
    assert done.returncode == 2
    assert f"pip install -e '.[{missing[1]}]'" in done.stderr
