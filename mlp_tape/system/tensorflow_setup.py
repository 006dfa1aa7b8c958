"""Imports TensorFlow as this program wants it: quickly, without start-up lines, with its share of cores."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator

from mlp_tape.system import compilation_cache


@contextlib.contextmanager
def native_stderr() -> Iterator[None]:
    """Sends what is written to file descriptor 2 to a temporary file; shows it if the block fails.

    TensorFlow's C++ code writes there before it looks at TF_CPP_MIN_LOG_LEVEL.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def threads() -> int:
    """How many threads TensorFlow gets, on which the last bits of a run depend.

    As many as TF_NUM_INTRAOP_THREADS says, or OMP_NUM_THREADS, which launchers set for workers that share a
    machine; else one for each core that this process may use.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Lets the collector rest while a large library is imported, and pass over what that made, later on.

    All of that stays; to look it through again and again takes a sixth of the import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up lines, and without Keras, which is not used."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keras is then imported only when asked for
    if "tensorflow" in sys.modules:
        return
    compilation_cache.switch_on()
    with native_stderr(), without_garbage_collection():
        import tensorflow  # noqa: F401
