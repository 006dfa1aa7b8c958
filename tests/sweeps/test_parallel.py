"""Parallel jobs: a worker that dies affects only its own job, and all workers stop in an orderly way."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Program, Run, start_program, sync_unsent, wait_for_exit, wait_until
from mlp_tape.storage import lock, run_record
from mlp_tape.sweeps import directory, joblib_backend
from sweep_helpers import STEPS, loss_steps, running_job, runs_in, sweep_directory

pytestmark = [pytest.mark.long, pytest.mark.concurrency]
TWO_AT_A_TIME = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "dataset=digits", "report=none"]
TWO_AT_A_TIME += ["log_every=10"]


def kill_worker(directory: Path, name: str) -> int:
    """Kills the worker process that is running a job, and returns its process id."""
    victim = wait_until(f"the job {name}", lambda: running_job(directory, name, beyond=100, known=False))
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    return victim.pid


def test_killed_worker_affects_only_its_own_job(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    """Two workers, with a database that does not exist at the start."""
    program = start_program(tmp_path, offline, "sweep ", *TWO_AT_A_TIME, "lr=0.1,0.2,0.3,0.4", "epochs=200")
    pid = kill_worker(tmp_path, "lr=0.2")
    assert pid != program.pid
    output = wait_for_exit(program)
    assert program.returncode == 1, output
    assert "Traceback" not in output
    assert "job 1  lr=0.2  KILLED: its process no longer exists" in output
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "KILLED", "FINISHED", "FINISHED"]
    assert parent.info.status == "FAILED"
    assert (
        len({json.loads(path.read_text())["pid"] for path in tmp_path.glob("multirun/*/*/*/run.json")}) == 3
    )

    done = run_py(tmp_path, "-m", "sweep.resume=last")  # with the launcher of the original command
    assert done.returncode == 0, done.stderr
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["FINISHED"] * 5
    assert all(loss_steps(tmp_path, run) == list(range(200 * STEPS)) for run in children)


@pytest.mark.parametrize("target", ["the sweep", "all processes, as on a terminal"])
def test_signal_stops_all_parallel_jobs_in_an_orderly_way(
    offline: dict[str, str], tmp_path: Path, target: str
) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command += ["dataset=digits", "report=none", "log_every=10", "epochs=100000", "lr=0.1,0.2,0.3"]
    program: Program = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=offline,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for name in ("lr=0.1", "lr=0.2"):
        wait_until(f"the job {name}", functools.partial(running_job, tmp_path, name, beyond=100))
    if target == "the sweep":
        program.send_signal(signal.SIGINT)
    else:
        os.killpg(program.pid, signal.SIGINT)
    output = wait_for_exit(program)
    assert program.returncode == 130, output
    assert "Traceback" not in output
    sync_unsent(tmp_path, offline)
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["KILLED"] * 3
    for run in [parent, *children]:
        assert run.data.tags["reason"] == "SIGINT"
    for job in directory.SweepDirectory(sweep_directory(tmp_path)).jobs():
        assert list((job.directory / "checkpoints").glob("*.json"))


def is_running(pid: int) -> bool:
    """Returns whether a process exists and is not a zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_workers_end_when_the_process_of_the_sweep_is_killed(offline: dict[str, str], tmp_path: Path) -> None:
    program = start_program(tmp_path, offline, "sweep ", *TWO_AT_A_TIME, "lr=0.1,0.2", "epochs=100000")
    jobs = [
        wait_until(f"the job {name}", functools.partial(running_job, tmp_path, name, beyond=100))
        for name in ("lr=0.1", "lr=0.2")
    ]
    program.kill()
    for job in jobs:
        assert job is not None
        directory, pid = job.directory, job.pid
        wait_until("the end of a worker", lambda d=directory: not lock.is_held(d))
        assert run_record.read(directory).status == "KILLED"
        wait_until("the end of its process", lambda p=pid: not is_running(p))


def test_other_packages_use_one_process_of_the_joblib_backend_by_default() -> None:
    backend = joblib_backend.OneProcessEach()
    assert [backend.effective_n_jobs(n) for n in (None, 1, 3)] == [1, 1, 3]
    assert backend.effective_n_jobs(-1) == joblib_backend.joblib.cpu_count()
