"""A damaged database is reported as such, and rebuilt from the directories of its runs."""

import json
import os
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from conftest import SMALL, Run, mlp_tape, runs_in, sample
from mlp_tape.storage import lock, run_record
from mlp_tape.tracking.uri import missing_rows_message


def overwrite_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(40_000))


def overwrite_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"rubbish" * 100)


def cut_it(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def held(uri: str) -> dict[str, Any]:
    """Returns all runs, models and versions of a store."""
    client, found = mlflow.MlflowClient(uri), dict[str, Any]()

    def files(run_id: str, path: str | None = None) -> list[tuple[str, int]]:
        listed = client.list_artifacts(run_id, path)
        below = [each for item in listed if item.is_dir for each in files(run_id, item.path)]
        # The last lines on the console are about the delivery.
        own = [(item.path, 0 if item.path == "console.log" else item.file_size) for item in listed]
        return sorted(below + [each for each, item in zip(own, listed, strict=True) if not item.is_dir])

    for run in runs_in(uri):
        rows = {
            (key, row.step, row.value, row.timestamp)
            for key in run.data.metrics
            for row in client.get_metric_history(run.info.run_id, key)
        }
        found[run.info.run_id] = {
            "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
            "where": (run.info.experiment_id, run.info.artifact_uri),
            "params": run.data.params,
            "tags": run.data.tags,
            "rows": rows,
            "data": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs],
            "files": files(run.info.run_id),
        }
        found[run.info.experiment_id] = {
            model.model_id: (
                (model.source_run_id, str(model.status), model.tags, model.params, model.artifact_location),
                sorted(
                    (row.key, row.value, row.step, row.timestamp, row.dataset_name, row.dataset_digest)
                    for row in model.metrics or []
                ),
            )
            for model in client.search_logged_models([run.info.experiment_id])
        }
    for registered in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{registered.name}'")
        found[registered.name] = sorted((int(each.version), each.run_id, each.source) for each in versions)
    return found


@pytest.fixture(scope="module")
def project(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory with runs of each kind and a sweep, and the content of its database; created once."""
    place = tmp_path_factory.mktemp("project") / "here"
    place.mkdir()
    assert run_py(place, *SMALL, "tracking.enabled=false").returncode == 0
    elsewhere = f"tracking.uri=sqlite:///{place.parent / 'elsewhere.db'}"
    assert run_py(place, *SMALL, elsewhere).returncode == 0
    assert run_py(place, *SMALL, "tracking.experiment=other").returncode == 0
    assert (
        run_py(place, "-m", *SMALL, "lr=0.1,1e20", "report=full", "tracking.register_as=mine").returncode == 1
    )
    assert run_py(place, *SMALL, "epochs=2", "report=full", "tracking.register_as=mine").returncode == 0
    assert run_py(place, "resume=last", "epochs=3").returncode == 0
    return place, held(f"sqlite:///{place / 'mlflow.db'}")


@pytest.mark.long
@pytest.mark.parametrize(
    "damage", sample([overwrite_the_middle, overwrite_the_header, cut_it], overwrite_the_middle)
)
def test_damaged_database_is_reported_and_rebuilt_completely(
    run_py: Run, offline: dict[str, str], project: tuple[Path, dict[str, Any]], damage: Any
) -> None:
    place, before = project
    database = place / "mlflow.db"
    assert len([each for each in before.values() if "rows" in each]) == 4  # a sweep, its two jobs and a run
    assert [version for version, *_ in before["mine"]] == [1, 2, 3]  # of a job, and of a run before and after
    damage(database)

    files = sorted(place.rglob("*"))
    for arguments in (SMALL, ["-m", *SMALL, "lr=0.1,0.2"], ["resume=last", "epochs=4"]):
        done = run_py(place, *arguments)
        assert done.returncode == 2, done.stdout
        first, second = done.stderr.splitlines()
        damaged = f"the database {database} is damaged: "
        no_database = f"MLflow at sqlite:///{database} cannot be opened: it is not a SQLite database"
        assert first.startswith("error: " + (no_database if damage is overwrite_the_header else damaged))
        assert second.endswith("python -m mlp_tape rebuild")
        assert "Nothing is lost" not in done.stderr
    assert sorted(place.rglob("*")) == files, "nothing was started"

    done = mlp_tape(place, offline, "rebuild")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 run recorded in other stores, left there" in done.stdout
    assert f"5 of 5 runs are in {database}; the damaged database is {database}.damaged-" in done.stdout
    after = held(f"sqlite:///{database}?again={time.time_ns()}")  # MLflow keeps connections by their URI
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key] == value, key
    done = mlp_tape(place, offline, "rebuild")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: nothing is wrong with {database}")
    for kept in place.glob("mlflow.db.damaged-*"):
        kept.unlink()


def test_database_that_is_damaged_during_a_run_is_reported_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "(sqlite3.DatabaseError) database disk image is malformed"
    monkeypatch.chdir(tmp_path)
    told = missing_rows_message(f"sqlite:///{tmp_path / 'mlflow.db'}", 1234, why, "python -m mlp_tape sync x")
    assert "1,234 rows are left" in told
    assert "python -m mlp_tape rebuild" in told
    assert "sync" not in told, "it cannot help"
    told = missing_rows_message(f"sqlite:///{tmp_path / 'other.db'}", 1, why, "")
    assert f"python -m mlp_tape rebuild --uri sqlite:///{tmp_path / 'other.db'}" in told
    told = missing_rows_message("http://h", 1, "no answer", "python -m mlp_tape sync x")
    assert told.endswith("To send it: python -m mlp_tape sync x")


REFUSED = [
    (["--uri", "http://127.0.0.1:9"], "http://127.0.0.1:9 is not a SQLite database"),
    (["--uri", "sqlite:///nothing.db"], "no run of "),
    (["nowhere"], "no run of "),
]


@pytest.mark.parametrize(("arguments", "what"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_database_that_cannot_be_rebuilt_is_not_changed(
    offline: dict[str, str], tmp_path: Path, arguments: list[str], what: str
) -> None:
    done = mlp_tape(tmp_path, offline, "rebuild", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_database_with_a_running_run_is_not_rebuilt(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    assert run_py(tmp_path, *SMALL).returncode == 0
    (directory,) = tmp_path.glob("outputs/*/*")
    overwrite_the_middle(tmp_path / "mlflow.db")
    with lock.hold(directory):
        done = mlp_tape(tmp_path, offline, "rebuild")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {directory} is still running")
    assert not list(tmp_path.glob("mlflow.db.*damaged*"))


@pytest.mark.long
def test_run_of_an_earlier_version_is_rebuilt(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    """Its record has no token, no creation time and no source; three files record the delivery."""
    assert run_py(tmp_path, *SMALL).returncode == 0
    (directory,) = tmp_path.glob("outputs/*/*")
    state = json.loads((directory / "delivery.json").read_text())
    values = json.loads((directory / "run.json").read_text())
    for key in ("token", "source", "created", "version", "model_ready"):
        del values[key]
    values |= {"run_id": state["run_id"], "name": state["name"], "sent": True}
    (directory / "run.json").write_text(json.dumps(values))
    (directory / "journal.sent").write_text(str(state["position"]))
    (directory / "models.json").write_text(json.dumps(state["models"]))
    (directory / "delivery.json").unlink()
    before = run_record.read(directory)
    assert (before.run_id, before.sent) == (state["run_id"], True)
    assert (before.delivery.position, before.delivery.models) == (state["position"], state["models"])
    (tmp_path / "mlflow.db").rename(tmp_path / "mlflow.db.old")
    done = mlp_tape(tmp_path, offline, "rebuild")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (run.info.run_id, run.info.status) == (state["run_id"], "FINISHED")
    assert run_record.read(directory).sent
