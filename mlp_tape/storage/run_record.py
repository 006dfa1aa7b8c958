"""What a run's directory says of the run: what it is, and how it ended."""

import contextlib
import dataclasses
import json
import os
import platform
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlp_tape.errors import BrokenFileError, ConfigError
from mlp_tape.storage import journal, lock
from mlp_tape.system import atomic_files

FILE = "run.json"
_saving = threading.Lock()
GONE = "its process was gone"


@dataclass
class RunRecord:
    """`run.json`: rewritten whenever one of these changes.

    Attributes:
        directory: of the run; not in the file.
        kind: `run`, or `sweep` for the one whose jobs are runs.
        name: shown in the UI; of a sweep's job, what was swept. Where empty, MLflow makes one up.
        parent: MLflow's id of the sweep; empty where there is none.
        settings: all of them, nested, without passwords.
        data_sha256: of the data set.
        params: what MLflow calls so: settings and data, flat.
        first_params: those that MLflow was given first, for it never changes one.
        overrides: as typed on the command line, without passwords.
        uri: of the MLflow store, without password; empty for a run that is not tracked.
        run_id: MLflow's; empty until it is known.
        status: RUNNING, FINISHED, FAILED or KILLED.
        reason: why it did not finish.
        token: a random name by which its run is found in MLflow where the answer to its creation was lost.
        source: the tags that say where its code comes from, as of the process that began it.
        made_by: versions and machine of the process that began it, by name.
        full: whether it leaves pictures and a model, too.
        steps: how many there are to train.
        results: the last value of each of test/loss, test/accuracy and, if there is one, validation/accuracy.
        tags: what MLflow is told of it at its end.
        sent: whether MLflow holds all of it, the status included.
        created: seconds since 1970, of the first process that was at work on it.
        began: likewise of the last one.
        ended: likewise; 0 while it lasts.
        seconds: of training, by all processes that reached an end.
        host: the machine of that process.
        pid: its number.
    """

    directory: Path
    kind: str = "run"
    name: str = ""
    parent: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    data_sha256: str = ""
    params: dict[str, str] = field(default_factory=dict)
    first_params: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    uri: str = ""
    run_id: str = ""
    status: str = "RUNNING"
    reason: str = ""
    token: str = ""
    source: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    full: bool = True
    steps: int = 0
    results: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    sent: bool = False
    created: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    host: str = ""
    pid: int = 0

    @property
    def chosen_by(self) -> float:
        """The accuracy by which a run that has finished is to be preferred to others, 0 to 1."""
        return self.results.get("validation/accuracy", self.results["test/accuracy"])

    @property
    def command(self) -> str:
        """What to type to repeat it."""
        return shlex.join(["python", "run.py", *(["-m"] if self.kind == "sweep" else []), *self.overrides])

    @property
    def resume(self) -> str:
        """What to type to go on with it."""
        if self.kind == "sweep":
            return f"python run.py -m sweep.resume={self.run_id or shlex.quote(str(self.directory))}"
        return f"python run.py resume={self.run_id or shlex.quote(str(self.directory))}"

    @property
    def sync(self) -> str:
        """What to type to send what MLflow has not got."""
        return f"python -m mlp_tape sync {shlex.quote(str(self.directory))}"

    def begins(self) -> None:
        """Notes that this process is at work on the run; it is not saved."""
        self.status, self.reason, self.sent, self.ended = "RUNNING", "", False, 0.0
        self.began, self.host, self.pid = time.time(), platform.node(), os.getpid()
        self.created = self.created or self.began
        self.first_params = self.params | self.first_params

    @property
    def process(self) -> dict[str, str]:
        """The tags by which a later start knows whether the run's process still lives."""
        return {"host": self.host, "pid": str(self.pid), "directory": str(self.directory)}

    def ends(self, status: str, reason: str) -> None:
        """Notes how it ended, now."""
        self.status, self.reason, self.ended = status, reason, time.time()
        self.save()

    def save(self) -> None:
        """Writes the file, as it is now: also the thread that delivers has something to note."""
        with _saving:
            values = dataclasses.asdict(self)
            del values["directory"]
            atomic_files.write(self.directory / FILE, json.dumps(values, indent=1).encode())


def read(directory: Path) -> RunRecord:
    """Reads a run's record.

    Raises:
        ConfigError: there is none.
        BrokenFileError: it cannot be read.
    """
    path = directory / FILE
    try:
        return RunRecord(directory, **json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} is not the directory of a run", "give one of outputs/*/*") from error
    except (ValueError, TypeError, OSError) as error:
        raise BrokenFileError(f"{path} is damaged", "start the run anew") from error


def left(directory: Path) -> RunRecord:
    """What is to be said of a run whose process is gone: KILLED, if that could not say otherwise."""
    try:
        found = read(directory)
    except (ConfigError, BrokenFileError):
        found = RunRecord(directory)
    if found.status == "RUNNING":
        rows = directory / journal.FILE
        found.status, found.reason = "KILLED", GONE
        found.ended = rows.stat().st_mtime if rows.exists() else time.time()
    return found


def directories(parent: Path) -> Iterator[Path]:
    """Yields the directories of the runs below a directory, or that one itself."""
    for path in sorted(parent.glob(f"**/{FILE}")):
        yield path.parent


def forget(directory: Path) -> None:
    """Removes what a run that was refused before it began has left: a lock, and a journal of no rows.

    Its directory goes too, and the day's, where they are empty and in the place that the program gives them.
    """
    if (directory / FILE).exists():
        return
    with contextlib.suppress(OSError):  # something else lies there
        for name in (lock.LOCK, journal.FILE):
            if (directory / name).exists() and not (directory / name).stat().st_size:
                (directory / name).unlink()
        day, outputs = directory.parents[:2]
        if outputs.name == "outputs":
            for each in (directory, day, outputs):
                each.rmdir()
