"""Creation of a new SQLite database from the directories of runs and sweeps, to replace a damaged one."""

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

from mlflow import MlflowClient

from mlp_tape.errors import ConfigError, MlpTapeError
from mlp_tape.mlflow_backend import delivery, logged_model, store
from mlp_tape.mlflow_backend.delivery import RESULTS
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import program, sqlite_file
from mlp_tape.system.formatting import are, count
from mlp_tape.system.redaction import without_password

Say = Callable[[str], None]
SUFFIXES = ("", "-journal", "-wal", "-shm")  # of the files of a database


def rebuild(parents: list[Path], uri: str, say: Say) -> bool:
    """Delivers every run and sweep below some directories to a new database, and keeps the old file.

    Runs keep their ids. Changes that were made in the MLflow UI, such as tags and deletions, are lost, as
    they are in no directory.

    Args:
        parents: directories that contain directories of runs.
        uri: URI of the SQLite database; runs of other stores are not changed.
        say: called with a line about each run.

    Returns:
        Whether everything was delivered.

    Raises:
        ConfigError: the database is not damaged, one of its runs is still running, or there is no run.
        TrackingError: a new database cannot be created there.
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
            f"to rebuild it nevertheless, first: mv {file} {file}.old",
        )
    runs = _runs_of(file, parents, say)
    for run in runs:
        if lock.is_held(run.directory):
            raise ConfigError(f"{run.directory} is still running", "wait until it ends, or stop it")
    with store.making(file):
        new = store.make_beside(file)
        with store.without_pool():  # no connection may be open when it is renamed
            _create_experiments(MlflowClient(f"sqlite:///{new}"), file)
            made = [run for run in runs if _attempt(run, say, lambda run: _create(run, new))]
            _register_models(made, new)
            sent = sum(_attempt(run, say, lambda run: _send(run, new, file, say)) for run in made)
        kept = _put_in_place(new, file)
    what = f"{sent} of {count(len(runs), 'run')} {are(len(runs))} in {file}"
    say(f"{what}; the damaged database is {kept}" if kept else what)
    say("if mlflow ui is running, start it again: it has the old database open")
    return sent == len(runs)


def _runs_of(file: Path, parents: list[Path], say: Say) -> list[RunRecord]:
    """Returns the runs and sweeps of a database, in order of creation."""
    found, elsewhere = list[RunRecord](), 0
    for directory in dict.fromkeys(each for parent in parents for each in run_record.directories(parent)):
        try:
            run = run_record.read(directory)
        except MlpTapeError as error:
            say(error.what)
            continue
        database = sqlite_file.path_of(run.store)
        if database == file or (database is not None and not database.exists()):  # the directory was moved
            found.append(run)
        elif run.store:
            elsewhere += 1
    if elsewhere:
        say(f"{count(elsewhere, 'run')} recorded in other stores, left there")
    if not found:
        raise ConfigError(
            f"no run of {file} is below {', '.join(map(str, parents))}",
            f"{program.tool()} rebuild DIRECTORY",
        )
    return sorted(found, key=lambda run: run.created or run.began)


def _create_experiments(client: MlflowClient, damaged: Path) -> None:
    """Creates the experiments that can still be read, with their ids and artifact locations."""
    try:
        with sqlite_file.connection(damaged) as database:
            query = "SELECT name, artifact_location, lifecycle_stage FROM experiments WHERE experiment_id > 0"
            rows = database.execute(f"{query} ORDER BY experiment_id").fetchall()
    except sqlite3.Error:  # each is then created with its first run
        return
    for name, location, stage in rows:
        with contextlib.suppress(Exception):  # values from a damaged database may be invalid
            experiment_id = client.create_experiment(name, location)
            if stage == "deleted":
                client.delete_experiment(experiment_id)


def _attempt(run: RunRecord, say: Say, what: Callable[[RunRecord], None]) -> bool:
    """Calls a function with a run; returns whether it succeeded, and reports why not."""
    try:
        what(run)
    except (MlpTapeError, OSError) as error:
        say(f"{run.directory}: {error}".replace("\n", "; "))
        return False
    return True


def _create(run: RunRecord, new: Path) -> None:
    """Creates a run and its logged models under their old ids.

    The ids occur in commands, links and the names of directories. MLflow generates new ones; each is replaced
    before anything but tags refers to it.
    """

    def create(client: MlflowClient) -> None:
        experiment_id = store.experiment_id(client, run.experiment)
        generated = store.create_run(client, experiment_id, run).info.run_id
        with sqlite_file.connection(new) as database, database:
            for table in ("runs", "tags"):
                database.execute(
                    f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (run.run_id, generated)
                )
            database.execute(
                "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, run_uuid)", (generated,)
            )
        created = client.get_run(run.run_id)
        for model in _models(run):
            rows = (row for key in RESULTS for row in journal.rows(run.directory, key))
            last = {row.key: row for row in rows if row.step == model["step"]}
            exchange = functools.partial(_exchange, new, model)
            logged_model.restore(client, created, run, model, list(last.values()), exchange)

    if run.run_id:
        store.ask(f"sqlite:///{new}", create)


def _exchange(new: Path, model: dict[str, Any], generated: str) -> None:
    """Replaces the id and the location that MLflow generated for a logged model by the old ones."""
    with sqlite_file.connection(new) as database, database:
        for table in ("logged_models", "logged_model_tags", "logged_model_params"):
            query = f"UPDATE {table} SET model_id = ? WHERE model_id = ?"
            database.execute(query, (model["model_id"], generated))
        query = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
        database.execute(query, (model["location"], model["model_id"]))


def _models(run: RunRecord) -> list[dict[str, Any]]:
    """Returns the logged models of a run whose files still exist."""
    return [model for model in run.delivery.models if _is_there(model["location"])]


def _is_there(location: str) -> bool:
    """Returns whether an artifact location exists; one on another machine is assumed to."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path)).is_dir()
    return bool(parts.scheme) or Path(location).is_dir()


def _register_models(runs: list[RunRecord], new: Path) -> None:
    """Registers the models that were registered, under their old versions."""
    uri = f"sqlite:///{new}"
    registered = [(model, run.run_id) for run in runs for model in _models(run) if model["name"]]
    for model, run_id in sorted(registered, key=lambda each: each[0]["version"]):
        arguments = (model["name"], model["location"], run_id, model["model_id"])
        generated = store.ask(uri, functools.partial(_register, arguments))
        with sqlite_file.connection(new) as database, database:
            query = "UPDATE model_versions SET version = ? WHERE name = ? AND version = ?"
            database.execute(query, (model["version"], model["name"], generated))


def _register(arguments: tuple[str, str, str, str], client: MlflowClient) -> int:
    return logged_model.register(client, *arguments)


def _send(run: RunRecord, new: Path, file: Path, say: Say) -> None:
    """Delivers the directory of a run to the new database."""
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
    say(f"{directory}: {run.status}, {count(journal.count_after(directory, 0), 'row')}")


def _put_in_place(new: Path, file: Path) -> Path | None:
    """Renames the old database and puts the new one in its place; returns the new path of the old one."""
    kept = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    if file.exists():
        for suffix in SUFFIXES:
            part = file.with_name(f"{file.name}{suffix}")
            if part.exists():
                part.rename(f"{kept}{suffix}")
    store.give_name(new, file)
    return kept if kept.exists() else None
