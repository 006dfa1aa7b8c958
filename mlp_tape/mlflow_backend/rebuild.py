"""Makes a damaged SQLite database anew from the directories of the runs and sweeps that it held."""

import contextlib
import functools
import math
import sqlite3
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlp_tape.errors import ConfigError, MlpTapeError
from mlp_tape.mlflow_backend import delivery, logged_model, store
from mlp_tape.mlflow_backend.delivery import RESULTS
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.system.redaction import without_password

# isort: split
from mlflow import MlflowClient

Say = Callable[[str], None]
BESIDE = ("", "-journal", "-wal", "-shm")  # the files of one database, by what follows its name


def rebuild(parents: list[Path], uri: str, say: Say) -> bool:
    """Delivers every run and sweep below some directories to a new database, and keeps the old one beside it.

    Runs keep their ids. What people changed in MLflow's UI alone, such as tags and deletions, is in no run's
    directory and does not come back.

    Args:
        parents: directories above those of runs.
        uri: of the SQLite database; runs that another store holds are left alone.
        say: is told what became of each run.

    Returns:
        Whether all were delivered.

    Raises:
        ConfigError: the database is whole, one of its runs is still running, or there is no run.
        TrackingError: a new database cannot be made there.
    """
    file = sqlite_file.path_of(uri)
    if file is None:
        raise ConfigError(
            f"{without_password(uri)} is not a SQLite database",
            "type --uri sqlite:///mlflow.db, or another file",
        )
    if file.exists() and file.stat().st_size and not sqlite_file.find_problem(file, math.inf):
        raise ConfigError(
            f"nothing is wrong with {file}: SQLite's integrity check passes",
            f"to make it anew all the same, first: mv {file} {file}.old",
        )
    runs = _runs_of(file, parents, say)
    for run in runs:
        if lock.is_held(run.directory, run.pid):
            raise ConfigError(f"{run.directory} is still running", "wait until it ends, or stop it")
    with store.making(file):
        new = store.make_beside(file)
        with store.without_pool():  # no connection may be open when it is renamed
            _create_experiments(MlflowClient(f"sqlite:///{new}"), file)
            made = [run for run in runs if _attempt(run, say, lambda run: _create(run, new))]
            _register_models(made, new)
            sent = sum(_attempt(run, say, lambda run: _send(run, new, file, say)) for run in made)
        kept = _put_in_place(new, file)
    what = f"{sent} of {len(runs)} runs are in {file}"
    say(f"{what}; the damaged database is {kept}" if kept else what)
    say("if mlflow ui is running, start it again: it has the old database open")
    return sent == len(runs)


def _runs_of(file: Path, parents: list[Path], say: Say) -> list[RunRecord]:
    """The runs and sweeps that a database held, those that were created first coming first."""
    found, elsewhere = list[RunRecord](), 0
    for directory in dict.fromkeys(each for parent in parents for each in run_record.directories(parent)):
        try:
            run = run_record.read(directory)
        except MlpTapeError as error:
            say(error.what)
            continue
        database = sqlite_file.path_of(run.store)
        if database == file or (database is not None and not database.exists()):  # the project was moved
            found.append(run)
        elif run.store:
            elsewhere += 1
    if elsewhere:
        say(f"{elsewhere} runs are recorded in other stores, and stay there")
    if not found:
        raise ConfigError(
            f"no run of {file} is below {', '.join(map(str, parents))}",
            "python -m mlp_tape rebuild DIRECTORY",
        )
    return sorted(found, key=lambda run: run.created or run.began)


def _create_experiments(client: MlflowClient, damaged: Path) -> None:
    """Creates the experiments that can still be read, with the numbers and artifact locations they had."""
    try:
        with sqlite_file.connection(damaged) as database:
            query = "SELECT name, artifact_location, lifecycle_stage FROM experiments WHERE experiment_id > 0"
            rows = database.execute(f"{query} ORDER BY experiment_id").fetchall()
    except sqlite3.Error:  # then each is created with its first run
        return
    for name, location, stage in rows:
        with contextlib.suppress(Exception):  # what is read of a damaged database may be nonsense
            experiment_id = client.create_experiment(name, location)
            if stage == "deleted":
                client.delete_experiment(experiment_id)


def _attempt(run: RunRecord, say: Say, what: Callable[[RunRecord], None]) -> bool:
    """Does something with a run; returns whether it could be done, and says why not."""
    try:
        what(run)
    except (MlpTapeError, OSError) as error:
        say(f"{run.directory}: {error}".replace("\n", "; "))
        return False
    return True


def _create(run: RunRecord, new: Path) -> None:
    """Creates a run with the models that were logged of it, under the ids that they had.

    Those stand in commands, links and the names of directories. MLflow draws ids of its own, so each is
    exchanged before anything but tags refers to it.
    """

    def create(client: MlflowClient) -> None:
        experiment_id = store.experiment_id(client, run.settings["tracking"]["experiment"])
        drawn = store.create_run(client, experiment_id, run).info.run_id
        with sqlite_file.connection(new) as database, database:
            for table in ("runs", "tags"):
                database.execute(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (run.run_id, drawn))
            database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, run_uuid)", (drawn,))
        created = client.get_run(run.run_id)
        for noted in _models(run):
            rows = (row for key in RESULTS for row in journal.rows(run.directory, key))
            last = {row.key: row for row in rows if row.step == noted["step"]}
            exchange = functools.partial(_exchange, new, noted)
            logged_model.restore(client, created, noted, list(last.values()), exchange)

    if run.run_id:
        store.ask(f"sqlite:///{new}", create)


def _exchange(new: Path, noted: dict[str, Any], drawn: str) -> None:
    """Gives a logged model, in place of the id that MLflow drew, the one and the location that it had."""
    with sqlite_file.connection(new) as database, database:
        for table in ("logged_models", "logged_model_tags"):
            query = f"UPDATE {table} SET model_id = ? WHERE model_id = ?"
            database.execute(query, (noted["model_id"], drawn))
        query = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
        database.execute(query, (noted["location"], noted["model_id"]))


def _models(run: RunRecord) -> list[dict[str, Any]]:
    """What was logged as models of a run, if the files are still where they were."""
    return [model for model in run.delivery.models if _is_there(model["location"])]


def _is_there(location: str) -> bool:
    """Whether an artifact location on this machine exists; any other one is taken to exist."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path)).is_dir()
    return bool(parts.scheme) or Path(location).is_dir()


def _register_models(runs: list[RunRecord], new: Path) -> None:
    """Registers the models that were registered, each as the version that it was."""
    uri = f"sqlite:///{new}"
    registered = [(noted, run.run_id) for run in runs for noted in _models(run) if noted["name"]]
    for noted, run_id in sorted(registered, key=lambda each: each[0]["version"]):
        model = (noted["name"], noted["location"], run_id, noted["model_id"])
        drawn = store.ask(uri, functools.partial(_register, model))
        with sqlite_file.connection(new) as database, database:
            query = "UPDATE model_versions SET version = ? WHERE name = ? AND version = ?"
            database.execute(query, (noted["version"], noted["name"], drawn))


def _register(model: tuple[str, str, str, str], client: MlflowClient) -> int:
    return logged_model.register(client, *model)


def _send(run: RunRecord, new: Path, file: Path, say: Say) -> None:
    """Sends all that a run's directory holds to the new database."""
    directory = run.directory
    with lock.hold(directory):
        run = run_record.close_abandoned(directory)
        before = run.delivery
        state = DeliveryRecord(run_id=run.run_id, name=before.name, models=_models(run))
        state.save(directory)
        try:
            delivery.deliver_all(directory, f"sqlite:///{new}")
            state = run_record.read(directory).delivery
        except BaseException:
            before.save(directory)
            raise
        state.uri = f"sqlite:///{file}"
        state.save(directory)
    say(f"{directory}: {run.status}, {journal.count_after(directory, 0):,} rows")


def _put_in_place(new: Path, file: Path) -> Path | None:
    """Renames the old database and gives its name to the new one; returns what the old one is called now."""
    kept = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    if file.exists():
        for end in BESIDE:
            part = file.with_name(f"{file.name}{end}")
            if part.exists():
                part.rename(f"{kept}{end}")
    store.give_name(new, file)
    return kept if kept.exists() else None
