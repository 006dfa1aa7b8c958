"""A persistent cache of compiled XLA programs, which makes training start about a second earlier."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path

from mlp_tape.system.atomic_files import cache_directory

MAX_FILES = 200  # maximum number of files, of 50 to 200 KB each
MIN_FREE = 64 * 2**20  # bytes of free space required: XLA fails if it cannot write
FLAG = "--tf_xla_persistent_cache_directory"

_directory: Path | None = None


def enable() -> None:
    """Enables the cache through TF_XLA_FLAGS; must be called before TensorFlow is imported.

    Has no effect if the flag is already set, or if the cache directory is not writable or nearly full.
    """
    global _directory
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if FLAG in flags:
        return
    with contextlib.suppress(OSError, RuntimeError):
        directory = cache_directory() / f"xla-{_fingerprint()}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime)[:-MAX_FILES]:
            old.unlink(missing_ok=True)
        if os.access(directory, os.W_OK | os.X_OK) and shutil.disk_usage(directory).free > MIN_FREE:
            _directory = directory
            os.environ["TF_XLA_FLAGS"] = f"{flags} {FLAG}={_quoted(directory)}".strip()


def without_flag(flags: str) -> str:
    """Returns the value of TF_XLA_FLAGS without the flag of the cache, which has no effect on results."""
    return re.sub(rf'{FLAG}=("(\\.|[^"])*"|\S*)', "", flags).strip()


def _quoted(path: Path) -> str:
    """Quotes a path as one value in a list of flags; XLA treats a backslash as an escape character."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def clear() -> bool:
    """Empties the cache, in which a file may be damaged; returns whether there were any files."""
    files = list(_directory.iterdir()) if _directory else []
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files)


def _fingerprint() -> str:
    """Returns a hash of the compiler version and the processor, for which machine code is specific."""
    about = [importlib.metadata.version("tensorflow"), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]
