"""Unusual environments: runs succeed, and no files are created in unexpected places."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import LIMIT, ROOT, Run, Server, start_program
from mlp_tape.storage import run_record

ARGUMENTS = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]"]
ENVIRONMENTS = [
    {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "10", "LANG": "C", "LC_ALL": "C"},
    {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONHASHSEED": "1", "TF_CPP_MIN_LOG_LEVEL": "0"},
    {"HOME": "/dev/null/home", "PATH": "/nowhere"},
    {"HOME": "", "TZ": "Pacific/Kiritimati"},
]


def check(directory: Path, done: "subprocess.CompletedProcess[str]", runs: int = 1) -> None:
    """Checks that the program succeeded and that MLflow has all losses of its runs."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("mlp_tape").experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"] * runs
    for run in found:
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 12


@pytest.mark.long
@pytest.mark.parametrize(
    "environment",
    ENVIRONMENTS,
    ids=lambda given: ",".join(f"{key}={value}" for key, value in given.items()),
)
def test_run_succeeds_in_unusual_environments(
    run_py: Run, tmp_path: Path, environment: dict[str, str]
) -> None:
    place = tmp_path / "a place with spaces, 中文 and $dollar's"
    place.mkdir()
    check(place, run_py(place, *ARGUMENTS, **environment))
    assert sorted(path.name for path in place.iterdir()) == [
        "mlflow.db",
        "mlflow.db.lock",
        "mlruns",
        "outputs",
    ]
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.long
def test_run_succeeds_without_the_home_variable(offline: dict[str, str], tmp_path: Path) -> None:
    environment = {key: value for key, value in offline.items() if key != "HOME"}
    command = [sys.executable, str(ROOT / "run.py"), *ARGUMENTS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    check(tmp_path, done)


@pytest.mark.long
def test_data_path_may_contain_spaces_and_non_ascii_characters(run_py: Run, tmp_path: Path) -> None:
    folder = tmp_path / "我的 数据" / "it's = 50% {new}, [old]"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, (60, 5, 5), np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": rng.integers(0, 3, 60) for split in ("train", "test")}
    np.savez(folder / "图像 1.npz", **arrays)
    quoted = str(folder / "图像 1.npz").replace("'", "\\'")
    done = run_py(tmp_path, "dataset=arrays", f"dataset.path='{quoted}'", "epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    assert run_record.read(directory).settings["dataset"]["path"] == str(folder / "图像 1.npz")
    done = run_py(tmp_path, "resume=last", "epochs=3")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_py(tmp_path, "-m", "dataset=arrays", f"dataset.path='{quoted}'", "epochs=1", "lr=0.1,0.2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """The checkout, mounted read-only."""
    place = tmp_path / "checkout"
    place.mkdir()
    mount = ["mount", "--bind", str(ROOT), str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount the checkout read-only")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.long
def test_program_runs_from_a_read_only_checkout(
    offline: dict[str, str], read_only: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, str(read_only / "run.py"), *ARGUMENTS]
    environment = offline | {"PYTHONPATH": str(read_only)}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    check(here, done)
    done = subprocess.run(command, cwd=read_only, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "Read-only file system" in done.stderr


GROUP, USERS = 61_000, (61_001, 61_002)


@pytest.fixture
def shared(offline: dict[str, str]) -> Iterator[Path]:
    """A directory writable for all members of a group; pytest's are accessible only to their owner."""
    place = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        pytest.skip("only root can start programs as other users")
    os.chown(place, 0, GROUP)
    place.chmod(0o2775)
    can_read = [sys.executable, "-c", f"open({str(ROOT / 'run.py')!r})"]
    try:
        ok = subprocess.run(can_read, capture_output=True, user=USERS[0], group=GROUP).returncode == 0
    except PermissionError:
        ok = False
    if not ok:
        pytest.skip("Python or the checkout is accessible only to root")
    yield place
    shutil.rmtree(place)


@pytest.mark.long
@pytest.mark.concurrency
def test_two_users_can_start_runs_in_one_directory_at_the_same_time(
    offline: dict[str, str], shared: Path
) -> None:
    programs = []
    for user in USERS:
        home = shared / f"home of {user}"
        home.mkdir()
        os.chown(home, user, GROUP)
        command = [sys.executable, str(ROOT / "run.py"), *ARGUMENTS]
        program = subprocess.Popen(
            command,
            cwd=shared,
            env=offline | {"HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            group=GROUP,
            extra_groups=[],
            umask=0o002,
        )
        programs.append(program)
    outputs = [program.communicate(timeout=LIMIT) for program in programs]
    for program, (out, err) in zip(programs, outputs, strict=True):
        check(shared, subprocess.CompletedProcess(command, program.returncode, out, err), runs=2)
    assert {path.stat().st_uid for path in shared.glob("outputs/*/*")} == set(USERS)


@pytest.mark.long
def test_run_succeeds_if_the_cache_is_not_writable(run_py: Run, tmp_path: Path) -> None:
    cache = tmp_path / "home" / ".cache" / "mlp_tape"
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in place of the directory")
    (tmp_path / "here").mkdir()
    check(tmp_path / "here", run_py(tmp_path / "here", *ARGUMENTS, HOME=str(tmp_path / "home")))


@pytest.mark.long
def test_packages_of_extras_are_optional(run_py: Run, tmp_path: Path) -> None:
    missing, here = tmp_path / "missing", tmp_path / "here"
    for folder in (missing, here):
        folder.mkdir()
    for name in ("psutil", "psycopg2", "hypothesis", "playwright", "pytest", "jax", "torch", "ray"):
        (missing / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    check(here, run_py(here, *ARGUMENTS, PYTHONPATH=str(missing)))


def test_password_of_a_tracking_uri_is_never_written_to_disk(run_py: Run, tmp_path: Path) -> None:
    for arguments in (["tracking.uri='http://me:hunter2@127.0.0.1:9'"], []):
        done = run_py(tmp_path, *ARGUMENTS, *arguments, MLFLOW_TRACKING_URI="http://me:hunter2@127.0.0.1:9")
        assert done.returncode == 2
        assert "hunter2" not in done.stdout + done.stderr
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not found


@pytest.mark.long
@pytest.mark.concurrency
def test_password_is_not_written_to_disk_during_a_sweep(
    server: Server, offline: dict[str, str], run_py: Run, tmp_path: Path
) -> None:
    uri = server.url.replace("://", "://me:hunter2@")
    arguments = ["-m", *ARGUMENTS, "lr=0.1,0.2", f"tracking.uri='{uri}'"]
    program = start_program(tmp_path, offline, "job 0", *arguments)
    program.kill()
    program.communicate()
    (file,) = tmp_path.glob("multirun/*/*/multirun.yaml")
    assert "MLFLOW_TRACKING_URI" in file.read_text()
    done = run_py(tmp_path, "-m", "sweep.resume=last", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not found
    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name("mlp_tape")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 3
