"""Keeps what XLA has compiled for the next process, which then starts to train a second earlier."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from mlp_tape.system.atomic_files import cache_directory

KEPT = 200  # files, of 50 to 200 KB each
ROOM = 64 * 2**20  # bytes that have to be free: XLA fails where it cannot write
FLAG = "--tf_xla_persistent_cache_directory"

_directory: Path | None = None


def switch_on() -> None:
    """Tells TensorFlow, which must not be imported yet; not where it was told before, or cannot write."""
    global _directory
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if FLAG in flags:
        return
    with contextlib.suppress(OSError, RuntimeError):
        directory = cache_directory() / f"xla-{_fingerprint()}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        if os.access(directory, os.W_OK | os.X_OK) and shutil.disk_usage(directory).free > ROOM:
            _directory = directory
            os.environ["TF_XLA_FLAGS"] = f"{flags} {FLAG}={_quoted(directory)}".strip()


def _quoted(path: Path) -> str:
    """A path as one value in a list of flags, whatever it holds; XLA takes a backslash as an escape."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def empty() -> bool:
    """Removes what was kept, one file of which may be damaged; returns whether there was any."""
    files = list(_directory.iterdir()) if _directory else []
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files)


def _fingerprint() -> str:
    """Stands for the compiler and the processor: machine code is good for no other."""
    about = [importlib.metadata.version("tensorflow"), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]
