"""What a run's directory says of the run: what it is, who is at work on it, and how it ended."""

import contextlib
import dataclasses
import errno
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

import filelock

from mlp_tape import files
from mlp_tape.errors import BrokenFileError, ConfigError

FILE, LOCK = "run.json", "run.lock"
_saving = threading.Lock()
GONE = "its process was gone"


@dataclass
class Record:
    """`run.json`: rewritten whenever one of these changes.

    Attributes:
        directory: of the run; not in the file.
        kind: `run`, or `sweep` for the one whose jobs are runs.
        name: shown in the UI; of a sweep's job, what was swept. Where empty, MLflow makes one up.
        parent: MLflow's id of the sweep; empty where there is none.
        settings: all of them, nested, without passwords.
        data_sha256: of the data set.
        params: what MLflow calls so: settings and data, flat.
        overrides: as typed on the command line, without passwords.
        uri: of the MLflow store, without password; empty for a run that is not tracked.
        run_id: MLflow's; empty until it is known.
        status: RUNNING, FINISHED, FAILED or KILLED.
        reason: why it did not finish.
        made_by: versions and machine of the process that began it, by name.
        full: whether it leaves pictures and a model, too.
        steps: how many there are to train.
        results: the last value of each of test/loss, test/accuracy and, if there is one, validation/accuracy.
        tags: what MLflow is told of it at its end.
        sent: whether MLflow holds all of it, the status included.
        began: seconds since 1970, of the last process that was at work on it.
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
    overrides: list[str] = field(default_factory=list)
    uri: str = ""
    run_id: str = ""
    status: str = "RUNNING"
    reason: str = ""
    made_by: dict[str, str] = field(default_factory=dict)
    full: bool = True
    steps: int = 0
    results: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    sent: bool = False
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
        """Notes that this process is at work on the run."""
        self.status, self.reason, self.sent, self.ended = "RUNNING", "", False, 0.0
        self.began, self.host, self.pid = time.time(), platform.node(), os.getpid()
        self.save()

    def ends(self, status: str, reason: str) -> None:
        """Notes how it ended, now."""
        self.status, self.reason, self.ended = status, reason, time.time()
        self.save()

    def save(self) -> None:
        """Writes the file, as it is now: also the thread that delivers has something to note."""
        with _saving:
            values = dataclasses.asdict(self)
            del values["directory"]
            files.write(self.directory / FILE, json.dumps(values, indent=1).encode())


def read(directory: Path) -> Record:
    """Reads a run's record.

    Raises:
        ConfigError: there is none.
        BrokenFileError: it cannot be read.
    """
    path = directory / FILE
    try:
        return Record(directory, **json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} is not the directory of a run", "give one of outputs/*/*") from error
    except (ValueError, TypeError, OSError) as error:
        raise BrokenFileError(f"{path} is damaged", "start the run anew") from error


def left(directory: Path) -> Record:
    """What is to be said of a run whose process is gone: KILLED, if that could not say otherwise."""
    try:
        found = read(directory)
    except (ConfigError, BrokenFileError):
        found = Record(directory)
    if found.status == "RUNNING":
        journal = directory / "journal.jsonl"
        found.status, found.reason = "KILLED", GONE
        found.ended = journal.stat().st_mtime if journal.exists() else time.time()
    return found


def directories(parent: Path) -> Iterator[Path]:
    """Yields the directories of the runs below a directory, or that one itself."""
    for path in sorted(parent.glob(f"**/{FILE}")):
        yield path.parent


@contextlib.contextmanager
def at_work(directory: Path, wait: float = 2.0) -> Iterator[None]:
    """Keeps other processes away from a run; the system ends this with the process, however that ends.

    Args:
        directory: of the run.
        wait: seconds for another to end, for others look for a moment whether somebody is at work; below 0
            for ever.

    Raises:
        ConfigError: another process is at work on it.
    """
    lock = _lock(directory)
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout as error:
        raise ConfigError(
            f"another process is at work on {directory}", "wait for its end, or stop it"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be written to: {error.strerror}", "make it writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


def forget(directory: Path) -> None:
    """Removes what is there of a run that was refused before it began, and then empty directories."""
    if (directory / FILE).exists():
        return
    with contextlib.suppress(OSError):  # something else lies there
        for path in directory.iterdir():
            if not path.stat().st_size:  # the lock, and a journal of no rows
                path.unlink()
        directory.rmdir()
        directory.parent.rmdir()
        directory.parent.parent.rmdir()


def is_at_work(directory: Path, pid: int) -> bool:
    """Whether a process of this machine is at work on a run.

    Args:
        directory: of the run; where it was deleted, the number of the process has to do.
        pid: of the process that began it.
    """
    if not directory.is_dir():
        return _exists(pid)
    try:
        with _lock(directory).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError as error:  # what is another person's is not ours to close
        return error.errno != errno.EROFS  # and on a read-only disk nobody can be at work


def _lock(directory: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(directory / LOCK)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another person's
        return True
    return True
