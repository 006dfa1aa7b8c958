"""Who is at work on a run: one process at a time, by a lock in the run's directory."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from mlp_tape.errors import ConfigError

LOCK = "run.lock"


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


def is_at_work(directory: Path, pid: int) -> bool:
    """Whether a process of this machine is at work on a run.

    Args:
        directory: of the run; where it was deleted, the number of the process has to do.
        pid: of the process that began it.
    """
    if not directory.is_dir():
        return exists(pid)
    try:
        with _lock(directory).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError as error:  # what is another person's is not ours to close
        return error.errno != errno.EROFS  # and on a read-only disk nobody can be at work


def _lock(directory: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(directory / LOCK)


def exists(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another person's
        return True
    return True
