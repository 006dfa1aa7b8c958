"""Links to MLflow's UI, and what has to be done so that they can be opened."""

import contextlib
import json
import os
import re
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

from mlp_tape.storage.metric_keys import TEST_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.system.redaction import without_password

PORT = 5000  # of `mlflow ui`
PORTS = 100  # maximum number of ports to try
CONNECT_SECONDS = 0.1  # seconds in which a program that listens on a local port accepts a connection
ANSWER_SECONDS = 2.0  # seconds in which a UI on a local port must respond; a busy one takes one
MOST = 65_536  # maximum number of bytes of a response to read; the id of a run is at its beginning
TRAINING = "workflowType=machine_learning"  # otherwise the UI opens its GenAI section


class Link(NamedTuple):
    """A link to MLflow's UI.

    Attributes:
        url: its URL.
        how_to_open: what to do so that it can be opened.
    """

    url: str
    how_to_open: str


def link(uri: str, record: RunRecord) -> Link:
    """Returns a link to the charts of a run, or to the list of the jobs of a sweep.

    If the store has the view for it (`mlflow_backend.ui_views`), loss and accuracy are the first charts, and
    the list has columns for the swept settings and the accuracy. Otherwise, the page of the run is opened.

    Args:
        uri: URI of the store.
        record: record of a run that the store has.
    """
    state, mode, tab = record.delivery, "", ""
    if record.kind == "run":
        mode, tab = "&compareRunsMode=CHART", "/model-metrics"
    which = f"?viewStateShareKey={state.view}{mode}&" if state.view else f"/{state.run_id}{tab}?"
    server, how_to_open = _server(uri, state.run_id)
    return Link(f"{server}/#/experiments/{state.experiment_id}/runs{which}{TRAINING}", how_to_open)


def comparison(uri: str, runs: Sequence[str], experiments: Sequence[str]) -> Link:
    """Returns a link to the curves of the test accuracy of several runs, and a table of their values.

    Args:
        uri: URI of the store.
        runs: their MLflow run ids, at least one.
        experiments: MLflow ids of their experiments.
    """
    query = {
        "runs": runs,
        "experiments": sorted(set(experiments)),
        "metric": TEST_ACCURACY,
        "plot_metric_keys": [TEST_ACCURACY],
    }
    encoded = {key: json.dumps(value, separators=(",", ":")) for key, value in query.items()}
    server, how_to_open = _server(uri, runs[0])
    return Link(
        f"{server}/#/metric?{urlencode(encoded, quote_via=quote)}&x_axis=step&{TRAINING}", how_to_open
    )


def _server(uri: str, run_id: str) -> tuple[str, str]:
    """Returns the address of the UI that shows a store, and what to do so that it can be opened.

    For a store without a server of its own, this is an `mlflow ui` that is running, or the port on which to
    start one.

    Args:
        uri: URI of the store.
        run_id: MLflow run id of a run in the store, by which its UI is recognized.
    """
    if uri.startswith("http"):
        return without_password(uri.rstrip("/"), instead=""), "open the link; the server is already running"
    usual = os.environ.get("MLFLOW_PORT", "")  # `mlflow ui` reads it, too
    first = int(usual) if usual.isdigit() else PORT
    ends, port, taken = time.monotonic() + ANSWER_SECONDS, first, ""
    for port in range(first, first + PORTS):
        shows = _shows(port, run_id, ends)
        if shows:
            return f"http://127.0.0.1:{port}", "open the link; mlflow ui is already running"
        if shows is None:
            break
        taken = f"; port {first} is in use"
    options = [] if port == first else ["--port", str(port)]
    if sqlite_file.path_of(uri) != Path.cwd() / "mlflow.db":
        options += ["--backend-store-uri", without_password(uri)]
    return f"http://127.0.0.1:{port}", f"{shlex.join(['mlflow', 'ui', *options])}, then open the link{taken}"


def _shows(port: int, run_id: str, ends: float) -> bool | None:
    """Returns whether a local port belongs to an MLflow server that has a run; None if nothing listens there.

    Args:
        port: the port.
        run_id: MLflow run id.
        ends: value of `time.monotonic` after which not to wait for a response.
    """
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
    except (OSError, OverflowError):  # MLFLOW_PORT may be too large
        return None
    path, host = f"/api/2.0/mlflow/runs/get?run_id={run_id}", f"127.0.0.1:{port}"
    expected = re.compile(rb'HTTP/1.[01] 200 .*"run_id": *"%s"' % run_id.encode(), re.DOTALL)
    received, more = b"", b" "
    with connection, contextlib.suppress(OSError):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while more and len(received) < MOST and time.monotonic() < ends:
            connection.settimeout(max(0.01, ends - time.monotonic()))
            more = connection.recv(MOST)
            received += more
            if expected.match(received):
                return True
    return False
