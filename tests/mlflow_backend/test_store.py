"""The embedded database on a busy machine: it is never damaged, and nothing in it is duplicated."""

import dataclasses
import multiprocessing
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run as MlflowEntity

from conftest import ROOT, SMALL, Run, Server, mlp_tape, runs_in
from mlp_tape.config.settings import Settings, TrackingSettings, to_dict
from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import delivery, store
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.tracking.uri import check_reachable, store_warnings
from proxy import Proxy

WATCH = """
    import os, sys
    LOG, DATABASE = os.environ["WATCH_LOG"], os.environ["WATCH_DATABASE"]
    CHANGES = {"os.rename", "os.link", "os.remove", "os.truncate", "os.utime"}
    busy = False
    def note(event, arguments):
        global busy
        if busy or (event != "open" and event not in CHANGES) or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        busy = True
        try:
            name, found = os.path.basename(os.fsdecode(path)), ""
            if name.startswith(os.path.basename(DATABASE)) and not name.endswith(".lock"):
                found = name
            else:
                try:
                    if os.path.samefile(DATABASE, path):
                        found = "another name of it: " + name
                except OSError:
                    pass
            if event == "open" and len(arguments) > 2 and arguments[2] & os.O_EXCL:
                found = ""  # a new file has no locks
            if found:
                with open(LOG, "a") as log:
                    log.write(f"{event} {found}\\n")
        finally:
            busy = False
    sys.addaudithook(note)
"""
MADE = {"os.link mlflow.db.making", "os.remove mlflow.db.making"}  # before any process can have it open


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python processes log accesses to the database other than by SQLite."""
    folder = tmp_path / "watch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(WATCH))
    (tmp_path / "here").mkdir()
    return {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "WATCH_LOG": str(tmp_path / "watch.log"),
        "WATCH_DATABASE": str(tmp_path / "here" / "mlflow.db"),
    }


def touched(watched: dict[str, str]) -> set[str]:
    log = Path(watched["WATCH_LOG"])
    return (
        {line.rpartition("-")[0] or line for line in log.read_text().splitlines()} if log.exists() else set()
    )


@pytest.mark.long
def test_database_is_accessed_only_through_sqlite(
    run_py: Run, offline: dict[str, str], watched: dict[str, str], tmp_path: Path
) -> None:
    """By a run, sweeps, a resumed run, `sync` and `compare`, by its path and by a symbolic link."""
    here = tmp_path / "here"
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    (tmp_path / "link.db").symlink_to(here / "mlflow.db")
    for arguments in (
        [*SMALL, "report=full"],
        ["resume=last", "epochs=2", f"tracking.uri=sqlite:///{tmp_path / 'link.db'}"],
        ["-m", *SMALL, "lr=0.1,1e20"],
        ["-m", *joblib, *SMALL, "lr=0.1,0.2"],
    ):
        done = run_py(here, *arguments, **watched)
        assert done.returncode in (0, 1), done.stderr
    for arguments in (["sync"], ["compare", "last"]):
        done = mlp_tape(here, offline | watched, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert touched(watched) == MADE
    assert {path.name for path in here.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize("how", ["open(path, 'rb').read(16)", "import os; os.utime(path)", "open('link.db')"])
def test_other_accesses_to_the_database_are_logged(watched: dict[str, str], tmp_path: Path, how: str) -> None:
    here = tmp_path / "here"
    (here / "mlflow.db").touch()
    (here / "link.db").symlink_to(here / "mlflow.db")
    program = f"path = {watched['WATCH_DATABASE']!r}; {how}"
    subprocess.run([sys.executable, "-c", program], cwd=here, env=os.environ | watched, check=True)
    assert touched(watched)


def insert(path: str, number: int, transactions: int) -> None:
    """Inserts rows in transactions of 40, while a thread checks whether the store can be opened."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            check_reachable(f"sqlite:///{path}", 0.01)

    threading.Thread(target=look, daemon=True).start()
    database = sqlite3.connect(path, timeout=600)
    for turn in range(transactions):
        with database:
            rows = ((number, 40 * turn + row, "x" * 100) for row in range(40))
            database.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
    over.set()


@pytest.mark.long
@pytest.mark.concurrency
def test_check_of_the_database_releases_no_lock(tmp_path: Path) -> None:
    """With a check that opens the file itself, three of three databases were malformed within seconds."""
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE rows (process, number, content)")
        database.execute("CREATE INDEX by_number ON rows (process, number)")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=insert, args=(str(path), number, 150)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with sqlite_file.connection(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*) FROM rows").fetchone() == (3 * 150 * 40,)


@pytest.mark.concurrency
def test_database_has_one_lock_and_one_journal_for_all_its_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "real" / "store.db")
    paths = [tmp_path / "real" / "store.db", tmp_path / "linked" / "store.db", tmp_path / "mlflow.db"]
    assert {sqlite_file.path_of(f"sqlite:///{path}?timeout=5") for path in paths} == {paths[0]}
    store.ask(f"sqlite:///{paths[2]}", lambda client: client.search_experiments())
    assert paths[2].is_symlink(), "the database is made where the link points to"
    assert {path.name for path in (tmp_path / "real").iterdir()} == {"store.db", "store.db.lock"}


@pytest.mark.concurrency
def test_new_database_never_replaces_that_of_another_program(tmp_path: Path) -> None:
    """Such as `mlflow ui`, started in the same second, which creates its tables in place."""
    (tmp_path / "mlflow.db").touch()
    before = (tmp_path / "mlflow.db").stat().st_ino
    store.ask(f"sqlite:///{tmp_path / 'mlflow.db'}", lambda client: client.search_experiments())
    assert (tmp_path / "mlflow.db").stat().st_ino == before
    new = tmp_path / "new"
    new.touch()
    with pytest.raises(FileExistsError):
        store.give_name(new, tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").stat().st_ino == before
    assert not new.exists()


@pytest.mark.concurrency
def test_locked_store_is_waited_for(tmp_path: Path) -> None:
    """MLflow itself gives up if the database is locked between a read and a write."""
    uri, asked = f"sqlite:///{tmp_path / 'mlflow.db'}", []

    def question(client: mlflow.MlflowClient) -> str:
        asked.append(1)
        if len(asked) < 3:
            raise mlflow.MlflowException("(sqlite3.OperationalError) database is locked")
        return str(client.get_experiment("0").name)

    assert store.ask(uri, question) == "Default"
    with pytest.raises(TrackingError, match="no_such_thing"):
        store.ask(uri, lambda client: client.no_such_thing())  # type: ignore[attr-defined]


def ended_run(directory: Path, uri: str) -> RunRecord:
    """Saves the record of a run that has ended, and the files that it wrote."""
    for name in ("config.yaml", "environment.txt"):
        (directory / name).touch()
    settings = dataclasses.replace(Settings(), tracking=TrackingSettings(uri=uri))
    record = RunRecord(directory, settings=to_dict(settings), uri=uri, token="a token")
    record.mark_ended("FAILED", "no reason")
    return record


@pytest.mark.concurrency
def test_run_that_was_created_although_an_error_was_reported_has_no_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, create, tries = f"sqlite:///{tmp_path / 'mlflow.db'}", mlflow.MlflowClient.create_run, list[int]()

    def commits_and_raises(*arguments: Any, **more: Any) -> MlflowEntity:
        tries.append(1)
        made = create(*arguments, **more)
        if len(tries) == 1:
            raise mlflow.MlflowException("(sqlite3.OperationalError) disk I/O error")
        return made

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", commits_and_raises)
    ended_run(tmp_path, uri)
    delivery.deliver_all(tmp_path, uri)
    (only,) = runs_in(uri)
    assert (only.info.run_id, only.info.status) == (run_record.read(tmp_path).run_id, "FAILED")
    assert len(tries) == 1


@pytest.mark.concurrency
@pytest.mark.long
def test_lost_responses_duplicate_nothing(run_py: Run, server: Server, tmp_path: Path) -> None:
    """The server creates experiment, run, model, registered model and version; responses are lost."""
    created = ("experiments/create", "runs/create", "logged-models", "registered-models/create")
    with Proxy(server.url, lose=(*created, "model-versions/create", "runs/log-batch")) as proxy:
        arguments = [*SMALL, f"tracking.uri={proxy.url}", "tracking.register_as=mine", "report=full"]
        done = run_py(tmp_path, *arguments, "tracking.patience=600")
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(created) <= set(proxy.lost)
    assert "WARNING" not in done.stdout + done.stderr
    (run,) = runs_in(server.url)
    assert run.info.status == "FINISHED"
    client = mlflow.MlflowClient(server.url)
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert str(model.status) == "READY"
    (version,) = client.search_model_versions("name = 'mine'")
    assert version.run_id == run.info.run_id


@pytest.mark.concurrency
@pytest.mark.long
def test_request_that_the_server_executes_late_leaves_no_duplicate(server: Server, tmp_path: Path) -> None:
    """The client gave up, found no run and sent it again; then the first request was executed as well."""
    record = ended_run(tmp_path, server.url)
    assert next(delivery.deliver(tmp_path, server.url)) == delivery.OPENED
    client = mlflow.MlflowClient(server.url)
    late = store.create_run(client, store.experiment_id(client, "mlp_tape"), record)
    delivery.deliver_all(tmp_path, server.url)
    states = {each.info.run_id: each.info.lifecycle_stage for each in runs_in(server.url)}
    assert states == {run_record.read(tmp_path).run_id: "active", late.info.run_id: "deleted"}


@pytest.mark.concurrency
@pytest.mark.long
def test_duplicate_run_of_an_earlier_version_is_closed_at_the_next_start(run_py: Run, tmp_path: Path) -> None:
    assert run_py(tmp_path, *SMALL).returncode == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (run,) = runs_in(uri)
    tags = {"host": platform.node(), "pid": "1", "directory": run.data.tags["directory"]}
    twin = mlflow.MlflowClient(uri).create_run(run.info.experiment_id, run.info.start_time, tags)
    done = run_py(tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"{twin.info.run_id} ({twin.info.run_name}) was created twice; the run of this" in done.stdout
    found = {each.info.run_id: each for each in runs_in(uri)}
    assert found[twin.info.run_id].info.status == "KILLED"
    assert run.info.run_id in found[twin.info.run_id].data.tags["reason"]
    assert found[run.info.run_id].info.status == "FINISHED"
    assert [path.parent.name for path in tmp_path.glob("outputs/*/*/run.json")]


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /home rw - nfs4 server:/home rw
24 22 0:22 / /data\\040sets rw - cifs //server/data rw
25 22 0:23 / /mnt/ssh rw - fuse.sshfs me@server: rw
26 22 0:24 / /scratch rw,flock - lustre 10.0.0.1@tcp:/scratch rw
27 23 8:2 / /home/me/local rw - xfs /dev/sdb1 rw
28 22 0:25 / /container rw - fuse.fuse-overlayfs fuse-overlayfs rw
29 22 8:3 / /usb rw - fuseblk /dev/sdc1 rw
30 22 0:26 / /late rw - ext4 /dev/sdd1 rw
31 22 0:27 / /late rw - nfs server:/late rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "warned"),
    [
        ("/srv/mlflow.db", "ext4", False),
        ("/home/me/mlflow.db", "nfs4", True),
        ("/home/me/local/mlflow.db", "xfs", False),
        ("/homes/mlflow.db", "ext4", False),
        ("/data sets/x/mlflow.db", "cifs", True),
        ("/mnt/ssh/mlflow.db", "fuse.sshfs", True),
        ("/scratch/mlflow.db", "lustre", True),
        ("/container/mlflow.db", "fuse.fuse-overlayfs", False),
        ("/usb/mlflow.db", "fuseblk", False),
        ("/late/mlflow.db", "nfs", True),
    ],
)
def test_network_file_system_is_recognized_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, warned: bool
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert sqlite_file.file_system(Path(path), tmp_path / "mounts") == kind
    assert sqlite_file.file_system(Path(path), tmp_path / "nothing") == ""
    monkeypatch.setattr(sqlite_file, "file_system", lambda path: kind)
    found = store_warnings(f"sqlite:///{path}")
    assert bool(found) == warned
    assert all(path in each and "mlflow server" in each for each in found)
    assert store_warnings("http://127.0.0.1:5000") == []


@pytest.mark.long
def test_database_on_a_network_file_system_causes_one_warning(run_py: Run, tmp_path: Path) -> None:
    """With a real file system in user space, such as sshfs."""
    if shutil.which("bindfs") is None or os.geteuid() != 0:
        pytest.skip("apt-get install bindfs, and run as root, for a file system in user space")
    (tmp_path / "disk").mkdir()
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["bindfs", str(tmp_path / "disk"), str(place)], capture_output=True).returncode:
        pytest.skip("no file system in user space can be mounted here")
    try:
        for arguments in ([*SMALL], ["-m", *SMALL, "lr=0.1,0.2"]):
            done = run_py(place, *arguments, "report=none")
            assert done.returncode == 0, done.stderr
            assert done.stderr.count("is on a network file system (fuse") == 1
            assert "tracking.uri=http://" in done.stderr
        local = f"tracking.uri=sqlite:///{tmp_path / 'local.db'}"
        assert "network" not in run_py(place, *SMALL, local).stderr
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_second_name_of_a_database_causes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert store_warnings(f"sqlite:///{path}") == []
    path.touch()
    assert store_warnings(f"sqlite:///{path}") == []
    os.link(path, tmp_path / "copy.db")
    (warning,) = store_warnings(f"sqlite:///{path}")
    assert "hard link" in warning
