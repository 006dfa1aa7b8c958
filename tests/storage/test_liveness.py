"""A run's process is known by its lock, by its identity, and by its heartbeat, and not by a host's name."""

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from conftest import Run, ended_run, runs_in
from mlp_tape.mlflow_backend import abandoned, adoption, delivery
from mlp_tape.storage import liveness, lock, run_record
from mlp_tape.storage.liveness import Owner
from mlp_tape.system import sqlite_file

NOWHERE = Path("/nowhere")
IDENTITY = liveness.identity()
OTHER_BOOT = " ".join(["another", *IDENTITY.split()[1:]])
OTHER_CONTAINER = " ".join([IDENTITY.split()[0], "pid:[1]", *IDENTITY.split()[2:]])
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux identifies boots and PID namespaces")


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


@linux
@pytest.mark.parametrize(
    ("identity", "silent", "alive"),
    [
        (IDENTITY, 9_999, True),
        (IDENTITY + "0", 0, False),  # another process has received the same id
        (OTHER_BOOT, 0, True),
        (OTHER_BOOT, 9_999, False),
        (OTHER_CONTAINER, 0, True),
        (OTHER_CONTAINER, 9_999, False),
        ("", None, False),  # a run of an earlier version, whose id no process has
    ],
    ids=["it exists", "same id", "boot", "boot, silent", "container", "container, silent", "no identity"],
)
def test_process_whose_directory_cannot_be_seen(identity: str, silent: float | None, alive: bool) -> None:
    host = platform.node() if not identity else "any"
    pid = os.getpid() if identity else 2**22 + 1
    heartbeat = "" if silent is None else ago(silent)
    assert Owner(host, pid, identity, heartbeat).is_alive(NOWHERE) == alive


def test_process_of_an_earlier_version_on_another_machine_is_left_alone() -> None:
    assert Owner("another", 1).is_alive(NOWHERE)


@pytest.mark.parametrize("host", [platform.node(), "another"])
def test_lock_decides_where_the_directory_can_be_seen(host: str, tmp_path: Path) -> None:
    ended_run(tmp_path)
    owner = Owner(host, os.getpid(), OTHER_BOOT, ago(0))
    assert not owner.is_alive(tmp_path)
    program = f"""
from pathlib import Path
from mlp_tape.storage import lock
with lock.hold(Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert owner.is_alive(tmp_path)
    holder.kill()
    holder.wait()
    assert not owner.is_alive(tmp_path)


def test_lock_that_another_machine_may_hold_on_a_network_file_system_needs_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_run(tmp_path)
    monkeypatch.setattr(sqlite_file, "file_system", lambda path: "nfs4")
    assert Owner("another", 1, OTHER_BOOT).is_alive(tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (0, time.time() - 2 * liveness.SILENT))
    assert not Owner("another", 1, OTHER_BOOT).is_alive(tmp_path)


def running(directory: Path, host: str, **tags: str) -> tuple[mlflow.MlflowClient, str]:
    """Leaves a run RUNNING that another host has started."""
    record = ended_run(directory)
    record.mark_started()
    record.host = host
    record.save()
    for _ in delivery.deliver(directory, record.uri):
        pass
    client = mlflow.MlflowClient(record.uri)
    run_id = run_record.read(directory).run_id
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    return client, run_id


def test_run_of_a_container_that_is_gone_is_closed_where_its_directory_can_be_seen(tmp_path: Path) -> None:
    client, run_id = running(tmp_path, "0f3c1d2e4b5a", process=OTHER_CONTAINER)
    (line,) = abandoned.close_dead(client.tracking_uri, "mlp_tape")
    assert run_id in line
    assert f"resume={run_id}" in line
    assert client.get_run(run_id).info.status == "KILLED"


def test_run_that_cannot_be_seen_is_closed_when_its_heartbeat_has_stopped(tmp_path: Path) -> None:
    client, run_id = running(tmp_path, "another", heartbeat=ago(60), process=OTHER_BOOT)
    client.set_tag(run_id, "directory", "/somewhere/else")
    assert list(abandoned.close_dead(client.tracking_uri, "mlp_tape")) == []
    last = ago(2 * liveness.SILENT)
    client.set_tag(run_id, "heartbeat", last)
    (line,) = abandoned.close_dead(client.tracking_uri, "mlp_tape")
    assert f"no heartbeat since {last}" in line
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", f"no heartbeat since {last}")
    abandoned.beat(client, run_id)
    assert client.get_run(run_id).info.status == "RUNNING", "its network was interrupted"
    assert list(abandoned.close_dead(client.tracking_uri, "mlp_tape")) == []


@pytest.mark.parametrize(("silent", "refused"), [(60, True), (9_999, False)], ids=["alive", "dead"])
def test_run_that_a_process_elsewhere_may_be_recording_is_not_adopted(
    silent: float, refused: bool, tmp_path: Path
) -> None:
    """The id of a process on another machine says nothing about the process with that id here."""
    client, run_id = running(tmp_path, platform.node(), heartbeat=ago(silent), process=OTHER_BOOT)
    client.set_tag(run_id, "directory", "/somewhere/else")
    created = client.create_run(client.get_run(run_id).info.experiment_id)  # as yet without metrics
    for key in ("directory", "pid", "host", "process", "heartbeat"):
        client.set_tag(created.info.run_id, key, client.get_run(run_id).data.tags[key])
    found = adoption.adoptable(client.tracking_uri, created.info.run_id)
    assert found is not None
    assert bool(found.refusal) == refused


def test_run_of_another_program_is_left_alone(tmp_path: Path) -> None:
    client, run_id = running(tmp_path, "another")
    other = client.create_run(client.get_run(run_id).info.experiment_id)
    with lock.hold(tmp_path):
        pass
    list(abandoned.close_dead(client.tracking_uri, "mlp_tape"))
    assert client.get_run(other.info.run_id).info.status == "RUNNING"


@pytest.mark.long
@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another namespace")
def test_run_killed_in_a_container_is_closed_from_the_next_one(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    """Each command has host name and PID namespace of its own, as a container has."""
    from conftest import ROOT

    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "dataset=digits",
        "model.hidden_sizes=[8]",
        "epochs=100000",
    ]
    inside = "hostname first && exec " + subprocess.list2cmdline(command)
    program = subprocess.Popen(
        ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside],
        cwd=tmp_path,
        env=offline,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("epoch 1 "):
            break
    program.kill()
    program.wait()
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (run.info.status, run.data.tags["host"]) == ("RUNNING", "first")
    done = run_py(tmp_path, "dataset=digits", "model.hidden_sizes=[8]", "epochs=1", "report=none")
    assert f"to resume: python run.py resume={run.info.run_id}" in done.stdout
    (closed,) = (
        each for each in runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}") if each.info.run_id == run.info.run_id
    )
    assert closed.info.status == "KILLED"
