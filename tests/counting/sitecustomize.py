"""Counts what a process of the program does, for tests/test_counts.py, and writes it to a file at its exit.

Python imports this module at its start if its directory is in PYTHONPATH.
"""

import gc
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

_written: list[str] = []
_statements: list[str] = []
_connect, _exit = sqlite3.connect, os._exit


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        _written.append(str(Path.cwd() / arguments[0]))


def _counted_connect(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = _connect(*arguments, **keywords)
    connection.set_trace_callback(_statements.append)
    return connection


def _traces() -> dict[str, int]:
    """Returns how often each of the program's functions was traced for TensorFlow."""
    if "tensorflow" not in sys.modules:
        return {}
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    found: dict[str, int] = {}
    for each in gc.get_objects():
        if type(each) is Function:
            function = getattr(each.python_function, "func", each.python_function)  # of a partial
            if function.__module__.startswith("mlp_tape"):
                found[function.__name__] = (
                    found.get(function.__name__, 0) + each.experimental_get_tracing_count()
                )
    return found


def _leave(code: int) -> None:
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    counts = {
        "is_mlflow": sys.argv[0] == "-c",
        "written": _written,
        "statements": _statements,
        "modules": sorted(sys.modules),
        "traces": _traces(),
        "bytes_read": int(io["rchar"]),
    }
    path = Path(os.environ["COUNTS"], f"{os.getpid()}.json")
    path.write_text(json.dumps(counts))
    _exit(code)


if "COUNTS" in os.environ:
    sys.addaudithook(_watch)
    sqlite3.connect = sqlite3.dbapi2.connect = _counted_connect
    os._exit = _leave
