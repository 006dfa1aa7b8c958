"""The URI of the MLflow store: where it is, and whether it responds."""

import os
import re
import shlex
import socket
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import TrackingError
from mlp_tape.system import sqlite_file
from mlp_tape.system.formatting import are, count
from mlp_tape.system.redaction import without_password

ANSWER_SECONDS = 5.0  # seconds in which a server must respond
CHECK_SECONDS = 2.0  # maximum number of seconds to check the pages of a SQLite database before a run
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(settings: TrackingSettings) -> str:
    """Returns the URI as set, else MLFLOW_TRACKING_URI, else that of `mlflow.db` in the current directory."""
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or _here()


def _here() -> str:
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def recorded_uri(uri: str) -> str:
    """Returns a recorded URI with its password, which is not recorded and must be in the environment.

    Raises:
        TrackingError: the environment does not contain it.
    """
    if "***@" not in uri:
        return uri
    whole = os.environ.get("MLFLOW_TRACKING_URI", "")
    if without_password(whole) != uri:
        raise TrackingError(f"the password of {uri} is not recorded", "set MLFLOW_TRACKING_URI with it")
    return whole


def may_exist(uri: str) -> bool:
    """Returns whether a store may exist; MLflow would create a SQLite file that does not."""
    database = sqlite_file.path_of(uri)
    return database is None or database.exists()


def check_reachable(uri: str, check: float = 0.0) -> None:
    """Checks that a store responds, since MLflow itself would try for minutes.

    Args:
        uri: URI of the store.
        check: maximum number of seconds to check the pages of a SQLite database.

    Raises:
        TrackingError: there is no response within five seconds, or the file is not a SQLite database or is
            damaged.
    """
    database = sqlite_file.path_of(uri)
    if database is not None:
        why_not = _wrong_with(database, check)
        if why_not:
            raise unavailable_error(uri, why_not)
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises if it is not a number
    except ValueError as error:
        raise unavailable_error(uri, f"it is not a valid URI ({error})") from error
    if parts.scheme.partition("+")[0] not in _schemes():
        raise unavailable_error(uri, f"{parts.scheme} is not one of {', '.join(sorted(_schemes()))}")
    if parts.scheme in ("http", "https") and not parts.hostname:
        raise unavailable_error(uri, "it contains no host name")
    try:
        if parts.scheme in ("http", "https"):
            _ask(uri)
        elif parts.hostname:
            port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
            if port:
                socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:  # includes the errors of requests
        raise unavailable_error(uri, f"no answer ({type(error).__name__})") from error


def _schemes() -> set[str]:
    """Returns the URI schemes that MLflow and its plugins can open."""
    plugins = {point.name for point in metadata.entry_points(group="mlflow.tracking_store")}
    return {"", "http", "https", "file", "sqlite", "databricks", "databricks-uc", *PORTS, *plugins}


def _wrong_with(file: Path, check: float) -> str:
    """Returns why a file cannot be a SQLite store, which MLflow would try to open for two minutes; or "".

    The file is only opened by SQLite, as this process may have connections to it (see `sqlite_file`).
    """
    try:
        if file.is_dir():
            return "it is a directory"
        if not file.parent.is_dir():
            return f"{file.parent} is not a directory"
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            return "it is not writable"
        return sqlite_file.find_problem(file, check) if file.exists() else ""
    except OSError as error:
        return error.strerror or str(error)


def _ask(uri: str) -> None:
    """Sends a request; any response will do, even an error, which MLflow reports."""
    import requests

    try:
        requests.head(uri, timeout=ANSWER_SECONDS, allow_redirects=False)
    except requests.exceptions.SSLError:
        return


def unavailable_error(uri: str, why: str) -> TrackingError:
    """Returns the error for a store that cannot be opened."""
    if sqlite_file.is_damage(why):
        return damaged_error(uri, why)
    local = re.fullmatch(r"http://(?:localhost|127\.0\.0\.1):(\d+)/?", uri)
    start = f"start it with: mlflow server --port {local[1]}, or type" if local else "type"
    if "locate revision" in why:
        start = "it was created by another version of MLflow: install that, or type"
    if "error code 401" in why or "error code 403" in why:
        start = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or type"
    cure = f"{start} another tracking.uri=..., or tracking.enabled=false"
    if why == sqlite_file.NO_DATABASE:
        cure = f"type another tracking.uri=...; if it was MLflow's database: {rebuild_command(uri)}"
    return TrackingError(without_password(f"MLflow at {uri} cannot be opened: {why}"), cure)


def damaged_error(uri: str, why: str) -> TrackingError:
    """Returns the error for a damaged SQLite database, with the command that creates a new one."""
    return TrackingError(
        f"the database {sqlite_file.path_of(uri) or without_password(uri)} is damaged: {why}",
        f"the runs' directories hold all that it held; to make a new one from them: {rebuild_command(uri)}",
    )


def incomplete_error(uri: str, rows: int, why: str, hint: str = "") -> TrackingError:
    """Returns the error for a run of which MLflow has not received everything.

    Args:
        uri: URI of the store.
        rows: number of metric rows that were not delivered.
        why: reason.
        hint: what to do; if empty, to try again, or to rebuild a damaged database.
    """
    hint = damaged_error(uri, why).hint if sqlite_file.is_damage(why) else hint or "try again later"
    return TrackingError(f"{count(rows, 'row')} {are(rows)} left: {without_password(why)}", hint)


def rebuild_command(uri: str) -> str:
    """Returns the command that creates a new database in place of a damaged one."""
    return "python -m mlp_tape rebuild" + (
        f" --uri {shlex.quote(uri)}" if uri != resolve_uri(TrackingSettings()) else ""
    )


def missing_rows_message(uri: str, rows: int, why: str, sync: str) -> str:
    """Returns the message that MLflow is missing part of a run.

    Args:
        uri: URI of the store.
        rows: number of metric rows that were not delivered.
        why: reason.
        sync: command that delivers the rest once the store responds again.
    """
    first = f"MLflow is missing part of this run, {count(rows, 'row')} {are(rows)} left: {why}"
    if sqlite_file.is_damage(why):
        error = damaged_error(uri, why)
        return f"{first}\n{error.what[0].upper()}{error.what[1:]}.\n{error.hint[0].upper()}{error.hint[1:]}"
    return f"{first}\nThe run's directory holds all of it. To send it: {sync}"


def store_warnings(uri: str) -> list[str]:
    """Returns warnings about the location of a store."""
    database = sqlite_file.path_of(uri)
    return sqlite_file.warnings(database) if database else []
