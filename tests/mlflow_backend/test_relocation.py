"""A project that was moved, a database that two projects share, and lookups that create nothing."""

import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest

from conftest import Run, ended_run, mlp_tape, runs_in, sample
from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import ConfigError, TrackingError
from mlp_tape.mlflow_backend import abandoned, delivery, relocation, store
from mlp_tape.storage import run_record
from mlp_tape.tracking import uri
from mlp_tape.tracking.uri import recorded_uri, resolve_uri

SMALL = ["dataset=digits", "model.hidden_sizes=[8]", "epochs=1"]


def project(directory: Path) -> Path:
    """Creates a project with one delivered run; returns the directory of the run."""
    run = directory / "outputs" / "day" / "time"
    run.mkdir(parents=True)
    record = ended_run(run)
    record.uri = f"sqlite:///{directory / 'mlflow.db'}"
    record.save()
    delivery.deliver_all(run, record.uri)
    mlflow.MlflowClient(record.uri).create_experiment("elsewhere", "s3://bucket/runs")
    return run


def moved(tmp_path: Path, name: str) -> tuple[Path, Path, Path]:
    """Returns the old and the new directory of a project that was moved, and the directory of its run."""
    old, new = tmp_path / "old", tmp_path / name
    run = project(old)
    with store.without_pool():
        shutil.move(old, new)
    return old, new, new / run.relative_to(old)


@pytest.mark.parametrize("name", sample(["new", "with spaces, ü and #"], "new"))
def test_moved_database_is_found_and_its_paths_are_corrected_on_request(tmp_path: Path, name: str) -> None:
    old, new, directory = moved(tmp_path, name)
    record = run_record.read(directory)
    found = recorded_uri(record)
    assert found == f"sqlite:///{new / 'mlflow.db'}"
    record.mark_ended("KILLED", "once more")
    with pytest.raises(TrackingError, match="was moved or copied") as refused:
        delivery.deliver_all(directory, found)
    assert refused.value.hint.startswith("python -m mlp_tape relocate")
    with pytest.raises(TrackingError, match="was moved or copied"):
        store.ask(found, lambda client: store.experiment_id(client, "mlp_tape"))
    assert not old.exists()

    told: list[str] = []
    relocation.relocate([new / "outputs"], found, told.append)
    assert str(old) in told[0]
    delivery.deliver_all(directory, found)
    client, (run,) = mlflow.MlflowClient(found), runs_in(found)
    assert (run.info.status, run.data.tags["directory"]) == ("KILLED", str(directory))
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["config.yaml"]
    assert run.info.artifact_uri.startswith(str(new))
    experiments = {each.name: each.artifact_location for each in client.search_experiments()}
    assert experiments == {
        "Default": str(new / "mlruns" / "0"),
        "mlp_tape": str(new / "mlruns" / "1"),
        "elsewhere": "s3://bucket/runs",
    }
    assert run_record.read(directory).delivery.uri == found
    assert not old.exists()
    (copy,) = new.glob("mlflow.db.before-relocation-*")
    with sqlite3.connect(copy) as database:
        query = "SELECT artifact_location FROM experiments WHERE name = 'mlp_tape'"
        assert database.execute(query).fetchone() == (str(old / "mlruns" / "1"),)
    with pytest.raises(ConfigError, match="all artifacts"):
        relocation.relocate([new / "outputs"], found, told.append)


def test_copied_project_has_its_own_database_and_artifacts(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    directory = new / project(old).relative_to(old)
    shutil.copytree(old, new)
    record = run_record.read(directory)
    found = recorded_uri(record)
    assert found == f"sqlite:///{new / 'mlflow.db'}"
    record.mark_ended("KILLED", "once more")
    with pytest.raises(TrackingError, match="was moved or copied"):
        delivery.deliver_all(directory, found)
    relocation.relocate([new / "outputs"], found, print)
    delivery.deliver_all(directory, found)
    assert [run.info.status for run in runs_in(found)] == ["KILLED"]
    assert [run.info.status for run in runs_in(f"sqlite:///{old / 'mlflow.db'}")] == ["FAILED"]


def test_run_in_another_database_is_not_looked_for_in_the_one_of_its_project(tmp_path: Path) -> None:
    directory, shared = project(tmp_path / "project"), tmp_path / "shared" / "mlflow.db"
    shared.parent.mkdir()
    record = run_record.read(directory)
    record.delivery.uri, record.delivery.run_id = f"sqlite:///{shared}", "0" * 32
    shared.touch()
    assert recorded_uri(record) == f"sqlite:///{shared}"


def test_database_whose_artifacts_stayed_is_not_relocated(tmp_path: Path) -> None:
    old, new, directory = moved(tmp_path, "new")
    shutil.move(new / "mlruns", old / "mlruns")
    found = recorded_uri(run_record.read(directory))
    with pytest.raises(ConfigError, match="all artifacts"):
        relocation.relocate([new / "outputs"], found, print)
    store.ask(found, lambda client: store.experiment_id(client, "mlp_tape"))


def test_artifacts_are_next_to_their_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "b")
    address = f"sqlite:///{tmp_path / 'a' / 'mlflow.db'}"
    for number, experiment in enumerate(("first", "second"), 1):
        found = store.ask(address, lambda client, name=experiment: store.experiment_id(client, name))
        location = mlflow.MlflowClient(address).get_experiment(found).artifact_location
        assert location == str(tmp_path / "a" / "mlruns" / str(number))
    default = mlflow.MlflowClient(address).get_experiment("0").artifact_location
    assert default == str(tmp_path / "a" / "mlruns" / "0")
    assert list((tmp_path / "b").iterdir()) == []


def test_lookups_create_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = project(tmp_path / "project")
    shutil.move(tmp_path / "project" / "mlflow.db", tmp_path / "gone")
    with pytest.raises(TrackingError, match="does not exist") as refused:
        recorded_uri(run_record.read(directory))
    assert "rebuild" in refused.value.hint
    assert not (tmp_path / "project" / "mlflow.db").exists()
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert list(abandoned.close_dead(address, "mlp_tape")) == []
    assert [each.name for each in mlflow.MlflowClient(address).search_experiments()] == ["Default"]


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{}/mlflow.db"),
        ("sqlite:///sub/x.db?timeout=3", "sqlite:///{}/sub/x.db?timeout=3"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("mlruns", "{}/mlruns"),
        ("./mlruns", "{}/mlruns"),
        ("file:./mlruns", "{}/mlruns"),
        ("/srv/mlruns", "/srv/mlruns"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://me:secret@host/mlflow", "postgresql://me:secret@host/mlflow"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_relative_paths_are_relative_to_where_the_command_was_typed(
    typed: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(TrackingSettings(uri=typed)) == path.format(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", typed)
    assert resolve_uri(TrackingSettings()) == path.format(tmp_path)
    assert uri.absolute(path.format(tmp_path)) == path.format(tmp_path)


@pytest.mark.long
def test_moved_project_is_relocated_and_its_runs_and_sweeps_are_resumed(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    assert run_py(old, *SMALL, "tracking.uri=sqlite:///mlflow.db").returncode == 0
    assert run_py(old, "-m", *SMALL, "lr=0.1,0.2").returncode == 0
    shutil.move(old, new)
    refused = run_py(new, *SMALL)
    assert refused.returncode == 2
    assert "python -m mlp_tape relocate" in refused.stderr
    address = f"sqlite:///{new / 'mlflow.db'}"
    assert len(runs_in(address)) == 4, "nothing was created"
    assert mlp_tape(new, offline, "relocate").returncode == 0
    (single,) = (path.parent for path in new.glob("outputs/*/*/run.json"))
    assert run_py(new, f"resume={single}", "epochs=2").returncode == 0
    assert run_py(new, "-m", "sweep.resume=last", "lr=0.1,0.2,0.3").returncode == 0
    assert mlp_tape(new, offline, "sync").returncode == 0
    assert {run.info.status for run in runs_in(address)} == {"FINISHED"}
    assert not old.exists()


@pytest.mark.long
def test_run_is_not_resumed_in_a_database_that_does_not_have_it(run_py: Run, tmp_path: Path) -> None:
    assert run_py(tmp_path, *SMALL).returncode == 0
    refused = run_py(tmp_path, "resume=last", "epochs=2", "tracking.uri=sqlite:///other.db")
    assert refused.returncode == 2
    assert "other.db does not exist" in refused.stderr
    (tmp_path / "mlflow.db").unlink()
    refused = run_py(tmp_path, "resume=last", "epochs=2")
    assert refused.returncode == 2
    assert "does not exist" in refused.stderr
    done = run_py(tmp_path, "resume=last", "epochs=2", "tracking.enabled=false")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.db"))
