"""Jobs in processes of their own: one that dies costs its own job, and all of them end in order."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Program, Run, ended, send_the_rest, started, wait_until
from mlp_tape.storage import lock, run_record
from mlp_tape.sweeps import directory
from sweep_helpers import STEPS, at_work, losses, runs_in, the_sweep

pytestmark = [pytest.mark.long, pytest.mark.concurrency]
TWO_AT_A_TIME = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "dataset=digits", "report=none"]
TWO_AT_A_TIME += ["log_every=10"]


def killed_worker(directory: Path, name: str) -> int:
    """Kills the process of a job of a sweep, and says which it was."""
    victim = wait_until(f"the job {name}", lambda: at_work(directory, name, beyond=100, known=False))
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    return victim.pid


def test_in_parallel_a_worker_that_is_killed_costs_its_own_job_only(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    """Two workers, on a database that was not there before."""
    program = started(tmp_path, offline, "sweep ", *TWO_AT_A_TIME, "lr=0.1,0.2,0.3,0.4", "epochs=200")
    pid = killed_worker(tmp_path, "lr=0.2")
    assert pid != program.pid
    shown = ended(program)
    assert program.returncode == 1, shown
    assert "Traceback" not in shown
    assert "job 1  lr=0.2  KILLED: its process was gone" in shown
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "KILLED", "FINISHED", "FINISHED"]
    assert parent.info.status == "FAILED"
    assert (
        len({json.loads(path.read_text())["pid"] for path in tmp_path.glob("multirun/*/*/*/run.json")}) == 3
    )

    done = run_py(tmp_path, "-m", "sweep.resume=last")  # with the launcher that it had
    assert done.returncode == 0, done.stderr
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["FINISHED"] * 5
    assert all(losses(tmp_path, run) == list(range(200 * STEPS)) for run in children)


@pytest.mark.parametrize("whom", ["the sweep", "all, as on a terminal"])
def test_in_parallel_a_signal_ends_every_job_in_order(
    offline: dict[str, str], tmp_path: Path, whom: str
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
        wait_until(f"the job {name}", functools.partial(at_work, tmp_path, name, beyond=100))
    if whom == "the sweep":
        program.send_signal(signal.SIGINT)
    else:
        os.killpg(program.pid, signal.SIGINT)
    shown = ended(program)
    assert program.returncode == 130, shown
    assert "Traceback" not in shown
    send_the_rest(tmp_path, offline)
    (parent,), children = runs_in(tmp_path)
    assert [run.info.status for run in [parent, *children]] == ["KILLED"] * 3
    for run in [parent, *children]:
        assert run.data.tags["reason"] == "SIGINT"
    for job in directory.SweepDirectory(the_sweep(tmp_path)).jobs():
        assert list((job.directory / "checkpoints").glob("*.json"))


def lives(pid: int) -> bool:
    """Whether a process is there, and not only its number, which nobody has asked for yet."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_workers_end_when_the_sweeps_process_is_killed(offline: dict[str, str], tmp_path: Path) -> None:
    program = started(tmp_path, offline, "sweep ", *TWO_AT_A_TIME, "lr=0.1,0.2", "epochs=100000")
    jobs = [
        wait_until(f"the job {name}", functools.partial(at_work, tmp_path, name, beyond=100))
        for name in ("lr=0.1", "lr=0.2")
    ]
    program.kill()
    for job in jobs:
        assert job is not None
        directory, pid = job.directory, job.pid
        wait_until("the end of a worker", lambda d=directory, p=pid: not lock.is_held(d, p))
        assert run_record.read(directory).status == "KILLED"
        wait_until("the end of its process", lambda p=pid: not lives(p))
