"""The process that keeps runs in MLflow for another one: `courier.py` starts it and asks."""

import json
import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mlp_tape.errors import MlpTapeError, TrackingError
from mlp_tape.mlflow_backend import store, sync
from mlp_tape.mlflow_backend.run import MlflowRun
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import exit

if TYPE_CHECKING:
    from mlp_tape.mlflow_backend.system_metrics import SystemMetrics

_known: dict[str, tuple[RunRecord, MlflowRun, Journal]] = {}
_measured: "dict[str, SystemMetrics]" = {}
_writing = threading.Lock()
_out: TextIO


def main() -> None:
    """Answers each line of the standard input by one on the standard output, until the input ends."""
    global _out
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # where what a library prints does no harm
    in_order: dict[str, ThreadPoolExecutor] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        number, what, directory = asked.pop("number"), asked.pop("what"), asked["directory"]
        if directory not in in_order:
            in_order[directory] = ThreadPoolExecutor(1)
        in_order[directory].submit(_answer, number, what, asked)
        if what in LAST:
            in_order.pop(directory).shutdown(wait=False)
    exit.leave(0)  # whoever asked is gone, or has all that it asked for


def _answer(number: int, what: str, about: dict[str, Any]) -> None:
    try:
        answer = {"answer": ANSWERS[what](**about)}
    except MlpTapeError as error:
        answer = {"error": [type(error).__name__, error.what, error.hint]}
    except Exception as error:
        told = f"MLflow: {type(error).__name__}: {error}"
        answer = {"error": [TrackingError.__name__, told, "type tracking.enabled=false to do without it"]}
    _say({"number": number} | answer)


def _say(what: dict[str, Any]) -> None:
    with _writing:
        print(json.dumps(what), file=_out, flush=True)


def _tell(directory: str, what: str, answer: object) -> None:
    """Says something of a run that was not asked for."""
    _say({"directory": directory, "told": what, "answer": answer})


def _know(directory: str, uri: str, experiment: str, record: dict[str, Any]) -> list[str]:
    """Gets ready for a run; opens the store where the run is not a sweep's, whose store is open."""
    note = RunRecord(**record | {"directory": Path(directory)})
    journal = Journal(note.directory)
    run = MlflowRun(uri, experiment, note, journal, lambda: _tell(directory, "opened", _of(note, run)))
    _known[directory] = note, run, journal
    return [] if note.parent else list(store.close_dead(uri, experiment))


def _updated(directory: str, record: dict[str, Any]) -> tuple[RunRecord, MlflowRun]:
    note, run, _journal = _known[directory]
    for key, value in record.items():
        if key not in ("directory", "uri", "run_id", "name"):  # which are known better here
            setattr(note, key, value)
    return note, run


def _of(note: RunRecord, run: MlflowRun) -> dict[str, str]:
    return {"run_id": note.run_id, "name": note.name, "link": run.link, "overview": run.overview}


def _open(directory: str, record: dict[str, Any]) -> dict[str, str]:
    note, run = _updated(directory, record)
    run.open()
    return _of(note, run)


def _begin(directory: str, record: dict[str, Any]) -> None:
    note, run = _updated(directory, record)
    run.begin()
    if note.settings.get("tracking", {}).get("system_metrics") and note.kind == "run":
        from mlp_tape.mlflow_backend.system_metrics import (
            SystemMetrics,  # imports psutil, which not everybody has
        )

        _measured[directory] = SystemMetrics(run.uri, lambda values: _tell(directory, "measured", values))
        _measured[directory].start()


def _measure_last(directory: str) -> None:
    if directory in _measured:
        _measured.pop(directory).finish()


def _give_model(directory: str) -> None:
    _known[directory][1].give_model()


def _close(directory: str, record: dict[str, Any], patience: float, at_most: float | None) -> str:
    run = _updated(directory, record)[1]
    why_not = run.close(patience, math.inf if at_most is None else at_most, lambda rows: None)
    _known.pop(directory)[2].close()
    return why_not


def _send(directory: str, at_most: float | None) -> None:
    sync.send(Path(directory), None, math.inf if at_most is None else at_most)


LAST = ("close", "send")  # after which nothing is asked of a run
ANSWERS: dict[str, Callable[..., Any]] = {
    "know": _know,
    "open": _open,
    "begin": _begin,
    "measure_last": _measure_last,
    "give_model": _give_model,
    "close": _close,
    "send": _send,
}
