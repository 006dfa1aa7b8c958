"""A SQLite database that was moved or copied: the paths in it, and in the records of its runs."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from mlp_tape.errors import ConfigError, MlpTapeError
from mlp_tape.mlflow_backend.failures import IncompleteError
from mlp_tape.storage import run_record
from mlp_tape.system import sqlite_file
from mlp_tape.system.formatting import count
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import relocate_command

ARTIFACTS = "mlruns"  # MLflow's name of the directory of artifacts next to a database
# Tables and columns of MLflow's database that contain paths, and in which rows.
PATHS = (
    ("experiments", "artifact_location", "true"),
    ("runs", "artifact_uri", "true"),
    ("logged_models", "artifact_location", "true"),
    ("model_versions", "source", "true"),
    ("model_versions", "storage_location", "true"),
    ("tags", "value", "key = 'directory'"),
)
Say = Callable[[str], None]


def check(uri: str, location: str) -> None:
    """Checks that the artifact location of a run belongs to the SQLite database that has the run.

    Args:
        uri: URI of the store.
        location: artifact location of a run or an experiment.

    Raises:
        IncompleteError: it does not, as the database was moved or copied together with its artifacts. MLflow
            would create the old directory again, or mix up the artifacts of two projects.
    """
    file = sqlite_file.path_of(uri)
    old = _moved_from(location, file) if file else None
    if file and old:
        raise IncompleteError(
            f"the artifacts of {file} were in {old / ARTIFACTS}, from where it was moved or copied",
            relocate_command(uri),
            permanent=True,
        )


def relocate(parents: list[Path], uri: str, say: Say) -> None:
    """Replaces the paths in a moved or copied database, and in the records of its runs, by the present ones.

    Args:
        parents: directories that contain directories of runs.
        uri: URI of the database.
        say: called with a line about what was changed.

    Raises:
        ConfigError: the URI is not that of an existing SQLite database, or nothing in it was moved.
    """
    file = sqlite_file.path_of(uri)
    if file is None or not file.exists():
        raise ConfigError(
            f"{without_password(uri)} is not a SQLite database that exists", "type --uri sqlite:///mlflow.db"
        )
    with sqlite_file.connection(file) as database:
        found = database.execute("SELECT artifact_location FROM experiments").fetchall()
    moved = sorted({old for (location,) in found if (old := _moved_from(location, file))})
    if not moved:
        raise ConfigError(f"all artifacts of {file} are where it says", "there is nothing to do")
    kept = file.with_name(f"{file.name}.before-relocation-{time.strftime('%Y%m%d-%H%M%S')}")
    with sqlite_file.connection(file) as database:
        database.execute("VACUUM INTO ?", (str(kept),))
        for old in moved:
            with database:
                changed = sum(_replace(database, old, new) for old, new in _spellings(old, file.parent))
            say(f"{old} is now {file.parent}: {count(changed, 'path')} changed in {file}")
    for directory in dict.fromkeys(each for parent in parents for each in run_record.directories(parent)):
        _rerecord(directory, moved, file)
    say(f"a copy of the database as it was: {kept}")


def _moved_from(location: str, file: Path) -> Path | None:
    """Returns the directory from which a database was moved or copied, with the artifacts at a location.

    None, if the location does not show that: the artifacts of a database may well be elsewhere.
    """
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parts.path) if parts.scheme else location)
    old = next((each.parent for each in path.parents if each.name == ARTIFACTS), None)
    if old is None or old == file.parent:
        return None
    if (old / ARTIFACTS).is_dir():
        return old if (file.parent / path.relative_to(old)).is_dir() else None
    return old if not old.is_dir() or (file.parent / ARTIFACTS).is_dir() else None


def _spellings(old: Path, new: Path) -> list[tuple[str, str]]:
    """Returns the ways in which the path of a directory occurs, with what replaces each."""
    return [(str(old), str(new)), (f"file://{quote(str(old))}", f"file://{quote(str(new))}")]


def _replace(database: sqlite3.Connection, old: str, new: str) -> int:
    """Replaces a directory in all paths below it; returns the number of paths."""
    changed = 0
    for table, column, condition in PATHS:
        known = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if column in known:
            changed += database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ? AND {condition}",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            ).rowcount
    return changed


def _rerecord(directory: Path, olds: list[Path], file: Path) -> None:
    """Replaces the paths in what is recorded of the delivery of a run."""
    try:
        run = run_record.read(directory)
    except MlpTapeError:  # reported when it is requested
        return
    if sqlite_file.path_of(run.store) not in [old / file.name for old in olds]:
        return
    state = run.delivery
    state.uri = f"sqlite:///{file}"
    for model in state.models:
        for old, new in (pair for each in olds for pair in _spellings(each, file.parent)):
            if model["location"].startswith(f"{old}/"):
                model["location"] = new + model["location"].removeprefix(old)
    state.save(directory)
