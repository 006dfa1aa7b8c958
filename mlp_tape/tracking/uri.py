"""The URI of the MLflow store: where it is, and whether it responds."""

import functools
import os
import re
import shlex
import socket
import sqlite3
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import TrackingError
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import program, sqlite_file
from mlp_tape.system.formatting import are, count
from mlp_tape.system.redaction import without_password

WEB_PAGE = "the answer is a web page, as of a proxy or of another program"
REDIRECTS = "it redirects to"
ANSWER_SECONDS = 5.0  # seconds in which a server must respond
CHECK_SECONDS = 2.0  # maximum number of seconds to check the pages of a SQLite database before a run
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(settings: TrackingSettings) -> str:
    """Returns the URI as set, else MLFLOW_TRACKING_URI, else that of `mlflow.db` in the current directory."""
    return absolute(settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri())


def default_uri() -> str:
    """Returns the URI of `mlflow.db` in the current directory."""
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def absolute(uri: str) -> str:
    """Returns a URI in which the path of a SQLite database or of a directory is absolute."""
    database = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)([^?]+)(.*)", uri)
    if database:
        return f"{database[1]}{Path.cwd() / database[2]}{database[3]}"
    directory = re.fullmatch(r"(?:file:(?!/))?([^:]+)", uri)
    return str(Path.cwd() / directory[1]) if directory and uri != "databricks" else uri


def recorded_uri(run: RunRecord) -> str:
    """Returns the URI of the store that has a run, with its password; nothing is created.

    A SQLite database that was moved or copied together with the directory of the run is found above that
    directory.

    Raises:
        TrackingError: the database does not exist, or the password, which is not recorded, is not in the
            environment.
    """
    uri = run.store
    if "***@" in uri:
        whole = os.environ.get("MLFLOW_TRACKING_URI", "")
        if without_password(whole) != uri:
            raise TrackingError(f"the password of {uri} is not recorded", "set MLFLOW_TRACKING_URI with it")
        return whole
    recorded = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:)([^?]+)(.*)", uri)
    if not recorded or not run.run_id:
        return uri
    path = Path(recorded[2])
    above = [each / path.name for each in run.directory.parents]
    moved = [each for each in above if each != path and _has_run(each, run.run_id)]
    for found in [*moved, *([path] if path.is_absolute() else above)]:  # relative in earlier versions
        if found.is_file():
            return f"{recorded[1]}{found}{recorded[3]}"
    raise TrackingError(
        f"the database {path} with the {run.kind} {run.run_id} does not exist",
        f"put it above {run.directory}, or make a new one from the directories of its runs: "
        f"{program.tool()} rebuild",
    )


def _has_run(database: Path, run_id: str) -> bool:
    """Returns whether a file is a SQLite database of MLflow with a run."""
    try:
        if not database.is_file():
            return False
        with sqlite_file.connection(database) as opened:
            return bool(opened.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone())
    except (OSError, sqlite3.Error):
        return False


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


@functools.cache  # reading what is installed takes 20 ms, and each job of a sweep asks
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
    """Sends a request; raises TrackingError if the response is a web page instead of MLflow's version.

    Any other response will do, even an error, which MLflow reports.
    """
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=ANSWER_SECONDS, allow_redirects=False)
    except requests.exceptions.SSLError:
        return
    if answer.status_code in (301, 302, 303):
        raise unavailable_error(uri, f"{REDIRECTS} {answer.headers.get('Location', 'another address')}")
    if answer.status_code == 200 and "<html" in answer.text.lower():
        raise unavailable_error(uri, WEB_PAGE)


def unavailable_error(uri: str, why: str) -> TrackingError:
    """Returns the error for a store that cannot be opened."""
    if sqlite_file.is_damage(why):
        return damaged_error(uri, why)
    local = re.fullmatch(r"http://(?:localhost|127\.0\.0\.1):(\d+)/?", uri)
    start = f"start it with: mlflow server --port {local[1]}, or type" if local else "type"
    if "not in a valid JSON format" in why:
        why = WEB_PAGE
    if why == WEB_PAGE:
        start = "check the address and, for a proxy, HTTP_PROXY and NO_PROXY, or type"
        if local:
            start = f"port {local[1]} belongs to another program: mlflow server --port ANOTHER, and type"
    if why.startswith(REDIRECTS):
        start = "type the address of MLflow itself, or"
    if "out-of-date database schema" in why:
        why = "its tables are those of an earlier version of MLflow"
        start = f"make a copy of it and type mlflow db upgrade {shlex.quote(without_password(uri))}, or type"
    if "locate revision" in why:
        start = "it was created by another version of MLflow: install that, or type"
    if "error code 401" in why or "error code 403" in why:
        start = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or type"
    if "CERTIFICATE_VERIFY_FAILED" in why:
        start = "set MLFLOW_TRACKING_SERVER_CERT_PATH to a file with its certificate, or type"
    if "CERTIFICATE_REQUIRED" in why:
        start = "set MLFLOW_TRACKING_CLIENT_CERT_PATH to a file with your certificate and key, or type"
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
    left = f"{count(rows, 'row')} {are(rows)} left: " if rows else ""
    return TrackingError(left + without_password(why), hint)


def rebuild_command(uri: str) -> str:
    """Returns the command that creates a new database in place of a damaged one."""
    return f"{program.tool()} rebuild{_option(uri)}"


def relocate_command(uri: str) -> str:
    """Returns the command that corrects the paths in a database that was moved."""
    return f"{program.tool()} relocate{_option(uri)}"


def mlflow_command(uri: str, command: str) -> str:
    """Returns a command of MLflow for a store, which it would otherwise expect in the current directory."""
    where = "" if uri == default_uri() else f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} "
    return f"{where}mlflow {command}"


def _option(uri: str) -> str:
    return "" if uri == resolve_uri(TrackingSettings()) else f" --uri {shlex.quote(uri)}"


def missing_rows_message(uri: str, rows: int, why: str, sync: str) -> str:
    """Returns the message that MLflow is missing part of a run.

    Args:
        uri: URI of the store.
        rows: number of metric rows that were not delivered.
        why: reason.
        sync: command that delivers the rest once the store responds again.
    """
    left = f", {count(rows, 'row')} {are(rows)} left" if rows else ""
    first = f"MLflow is missing part of this run{left}: {why}"
    if sqlite_file.is_damage(why):
        error = damaged_error(uri, why)
        return f"{first}\n{error.what[0].upper()}{error.what[1:]}.\n{error.hint[0].upper()}{error.hint[1:]}"
    return f"{first}\nThe run's directory holds all of it. To send it: {sync}"


def store_warnings(uri: str) -> list[str]:
    """Returns warnings about the location of a store."""
    database = sqlite_file.path_of(uri)
    return sqlite_file.warnings(database) if database else []
