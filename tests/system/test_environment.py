"""Strange surroundings: the run is as good as elsewhere, and nothing lies where it should not."""

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

from conftest import LIMIT, ROOT, Run, Server, started
from mlp_tape.storage import run_record

ARGUMENTS = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]"]
ENVIRONMENTS = [
    {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "10", "LANG": "C", "LC_ALL": "C"},
    {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONHASHSEED": "1", "TF_CPP_MIN_LOG_LEVEL": "0"},
    {"HOME": "/dev/null/home", "PATH": "/nowhere"},
    {"HOME": "", "TZ": "Pacific/Kiritimati"},
]


def check(directory: Path, done: "subprocess.CompletedProcess[str]", runs: int = 1) -> None:
    """All is recorded, and nothing but the run's own and MLflow's is left."""
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
def test_the_environment_changes_nothing(run_py: Run, tmp_path: Path, environment: dict[str, str]) -> None:
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
def test_without_a_home_in_the_environment(offline: dict[str, str], tmp_path: Path) -> None:
    environment = {key: value for key, value in offline.items() if key != "HOME"}
    command = [sys.executable, str(ROOT / "run.py"), *ARGUMENTS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    check(tmp_path, done)


@pytest.mark.long
def test_a_file_with_spaces_and_chinese_characters_in_its_path(run_py: Run, tmp_path: Path) -> None:
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
    """The checkout, where nobody may write to it."""
    place = tmp_path / "checkout"
    place.mkdir()
    mount = ["mount", "--bind", str(ROOT), str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount the checkout so that it cannot be written to")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.long
def test_a_checkout_that_cannot_be_written_to(
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


GROUP, PEOPLE = 61_000, (61_001, 61_002)


@pytest.fixture
def shared(offline: dict[str, str]) -> Iterator[Path]:
    """A directory in which all members of a group may write; pytest's are their owner's alone."""
    place = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        pytest.skip("only root may start programs as other people")
    os.chown(place, 0, GROUP)
    place.chmod(0o2775)
    can_read = [sys.executable, "-c", f"open({str(ROOT / 'run.py')!r})"]
    try:
        reached = subprocess.run(can_read, capture_output=True, user=PEOPLE[0], group=GROUP).returncode == 0
    except PermissionError:
        reached = False
    if not reached:
        pytest.skip("Python or the checkout lies where root alone may look")
    yield place
    shutil.rmtree(place)


@pytest.mark.long
@pytest.mark.concurrency
def test_two_people_who_start_in_one_directory_in_the_same_second_are_both_recorded(
    offline: dict[str, str], shared: Path
) -> None:
    programs = []
    for person in PEOPLE:
        home = shared / f"home of {person}"
        home.mkdir()
        os.chown(home, person, GROUP)
        command = [sys.executable, str(ROOT / "run.py"), *ARGUMENTS]
        program = subprocess.Popen(
            command,
            cwd=shared,
            env=offline | {"HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=person,
            group=GROUP,
            extra_groups=[],
            umask=0o002,
        )
        programs.append(program)
    told = [program.communicate(timeout=LIMIT) for program in programs]
    for program, (out, err) in zip(programs, told, strict=True):
        check(shared, subprocess.CompletedProcess(command, program.returncode, out, err), runs=2)
    assert {path.stat().st_uid for path in shared.glob("outputs/*/*")} == set(PEOPLE)


@pytest.mark.long
def test_a_cache_that_cannot_be_written_to(run_py: Run, tmp_path: Path) -> None:
    cache = tmp_path / "home" / ".cache" / "mlp_tape"
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in place of the directory")
    (tmp_path / "here").mkdir()
    check(tmp_path / "here", run_py(tmp_path / "here", *ARGUMENTS, HOME=str(tmp_path / "home")))


@pytest.mark.long
def test_what_comes_with_an_extra_is_not_needed(run_py: Run, tmp_path: Path) -> None:
    missing, here = tmp_path / "missing", tmp_path / "here"
    for folder in (missing, here):
        folder.mkdir()
    for name in ("psutil", "psycopg2", "hypothesis", "playwright", "pytest", "jax", "torch", "ray"):
        (missing / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    check(here, run_py(here, *ARGUMENTS, PYTHONPATH=str(missing)))


def test_no_password_of_a_tracking_uri_is_kept_anywhere(run_py: Run, tmp_path: Path) -> None:
    for arguments in (["tracking.uri='http://me:hunter2@127.0.0.1:9'"], []):
        done = run_py(tmp_path, *ARGUMENTS, *arguments, MLFLOW_TRACKING_URI="http://me:hunter2@127.0.0.1:9")
        assert done.returncode == 2
        assert "hunter2" not in done.stdout + done.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not kept


@pytest.mark.long
@pytest.mark.concurrency
def test_no_password_of_a_sweep_is_kept_while_it_lasts(
    server: Server, offline: dict[str, str], run_py: Run, tmp_path: Path
) -> None:
    uri = server.url.replace("://", "://me:hunter2@")
    arguments = ["-m", *ARGUMENTS, "lr=0.1,0.2", f"tracking.uri='{uri}'"]
    program = started(tmp_path, offline, "job 0", *arguments)
    program.kill()
    program.communicate()
    (file,) = tmp_path.glob("multirun/*/*/multirun.yaml")
    assert "MLFLOW_TRACKING_URI" in file.read_text()
    done = run_py(tmp_path, "-m", "sweep.resume=last", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not kept
    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name("mlp_tape")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 3
