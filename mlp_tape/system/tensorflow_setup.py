"""Import of TensorFlow: fast, without start-up messages, and with a configured number of threads."""

import contextlib
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from mlp_tape.system import compilation_cache, timeline


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


def _is_no_advice_on_retracing(record: logging.LogRecord) -> bool:
    """Whether a message is not about functions that are traced often, as those of networks in a sweep are."""
    return "triggered tf.function retracing" not in record.getMessage()


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, and without Keras, which is not used."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").addFilter(_is_no_advice_on_retracing)
    if "tensorflow" in sys.modules:
        return
    compilation_cache.enable()
    is_set = "TF_USE_LEGACY_KERAS" in os.environ
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # imports Keras only on demand
    with timeline.phase("import of TensorFlow"), native_stderr(), without_garbage_collection():
        import tensorflow  # noqa: F401
    if not is_set:  # a program that uses this package may demand the usual Keras
        del os.environ["TF_USE_LEGACY_KERAS"]
