"""Import of TensorFlow: fast, without start-up messages, and with a configured number of threads."""

import contextlib
import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder

from mlp_tape.system import compilation_cache, timeline

# TensorFlow imports them if they are installed, for parts of it that are not used here. JAX alone takes a
# fifth of the time of the import, and 120 MiB.
UNUSED = ("jax", "h5py", "scipy")


@contextlib.contextmanager
def native_stderr() -> Iterator[None]:
    """Redirects file descriptor 2 to a temporary file, whose content is shown if the block fails.

    TensorFlow's C++ code writes to it before it reads TF_CPP_MIN_LOG_LEVEL.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        terminal = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(terminal, captured.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def threads() -> int:
    """Returns the number of threads for TensorFlow, which can affect the last bits of results.

    It is the value of TF_NUM_INTRAOP_THREADS, or else of OMP_NUM_THREADS, which launchers set for workers
    that share a machine, or else the number of cores available to this process.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disables garbage collection while a large library is imported, and then freezes its objects.

    The objects stay alive, and scanning them repeatedly takes a sixth of the import time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _NotInstalled(MetaPathFinder):
    """A finder for which packages are not installed, for the thread that creates it alone."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages, self._thread = packages, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raises ModuleNotFoundError for one of the packages, and leaves all others to the next finder."""
        if name in self._packages and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def as_not_installed(packages: Sequence[str]) -> Iterator[None]:
    """Hides packages from what this thread imports in the block, unless they have been imported before."""
    finder = _NotInstalled(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _is_no_advice_on_retracing(record: logging.LogRecord) -> bool:
    """Whether a message is not about functions that are traced often, as those of networks in a sweep are."""
    return "triggered tf.function retracing" not in record.getMessage()


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, and without Keras and UNUSED, which are not used."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").addFilter(_is_no_advice_on_retracing)
    if "tensorflow" in sys.modules:
        return
    compilation_cache.enable()
    is_set = "TF_USE_LEGACY_KERAS" in os.environ
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # imports Keras only on demand
    with (
        timeline.phase("import of TensorFlow"),
        native_stderr(),
        without_garbage_collection(),
        as_not_installed(UNUSED),
    ):
        import tensorflow  # noqa: F401
    if not is_set:  # a program that uses this package may demand the usual Keras
        del os.environ["TF_USE_LEGACY_KERAS"]
