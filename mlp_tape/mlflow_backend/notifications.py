"""Notifications from the process that delivers to MLflow to the process that trains: lines of JSON."""

import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

INTERVAL = 0.5  # seconds between two signs of life

_out: TextIO
_writing = threading.Lock()


def start() -> None:
    """Takes over standard output, to which libraries print, and gives a sign of life at an interval.

    Call it before the import of MLflow, which takes seconds.
    """
    global _out
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_beat, name="heartbeat", daemon=True).start()


def send(directory: str, event: str, **details: Any) -> None:
    """Sends a notification about a run.

    Args:
        directory: directory of the run; empty for a sign of life of the process itself.
        event: what happened.
        details: values of JSON types.
    """
    with _writing:
        print(json.dumps({"directory": directory, "event": event} | details), file=_out, flush=True)


at_each_beat: list[Callable[[], None]] = []


def _beat() -> None:
    while True:
        send("", "alive")
        for each in at_each_beat:
            try:
                each()
            except Exception:  # without the heartbeat, the process would count as one that does not run
                traceback.print_exc()
        time.sleep(INTERVAL)
