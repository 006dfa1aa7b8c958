"""The lock of a run, which only one process holds at a time."""

import contextlib
import errno
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from mlp_tape.errors import ConfigError
from mlp_tape.storage import run_paths
from mlp_tape.system import signals

LOOK = 0.5  # seconds between two looks whether the run is to stop


@contextlib.contextmanager
def hold(directory: Path, wait: float = 2.0) -> Iterator[None]:
    """Holds the lock of a run; the operating system releases it when the process ends, however it ends.

    Args:
        directory: directory of the run.
        wait: seconds to wait for the lock, since `is_held` holds it for a moment in other processes;
            negative to wait indefinitely.

    Raises:
        ConfigError: another process holds the lock, or the directory is not writable.
        Stopped: the run is to stop.
    """
    lock = _lock(directory)
    try:
        _acquire(lock, wait)
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be written to: {error.strerror}", "make it writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, wait: float) -> None:
    """Acquires a lock; the wait ends on a signal and on the stop file of a sweep."""
    ends = math.inf if wait < 0 else time.monotonic() + wait
    while True:
        try:
            lock.acquire(timeout=min(LOOK, max(0.0, ends - time.monotonic())))
            return
        except filelock.Timeout as error:
            signals.raise_if_stopped()
            if time.monotonic() >= ends:
                raise ConfigError(
                    f"another process is using {Path(lock.lock_file).parent}",
                    "wait until it ends, or stop it",
                ) from error


def is_held(directory: Path) -> bool:
    """Returns whether a process is running the run in a directory; False if the directory does not exist."""
    if not directory.is_dir():
        return False
    try:
        with _lock(directory).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError as error:  # a run of another user counts as running
        return error.errno != errno.EROFS  # on a read-only disk, no process can be running it


def _lock(directory: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(directory / run_paths.LOCK)


def process_exists(pid: int) -> bool:
    """Returns whether a process with this id exists on this machine."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True
