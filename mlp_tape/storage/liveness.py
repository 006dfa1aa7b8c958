"""Whether the process of a run still exists: by its lock, by its own identity, or by its heartbeat.

A host's name does not identify a machine: a container that is started anew has another one, and two machines
may have the same. Where the directory of the run can be seen, its lock decides. Elsewhere, the process is
looked up if it belongs to the same boot and PID namespace as this one; if not, its heartbeat decides.
"""

import contextlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from mlp_tape.storage import lock, run_paths
from mlp_tape.system import sqlite_file

BEAT = 60.0  # seconds between two heartbeats
SILENT = 600.0  # seconds without a heartbeat after which a process no longer exists


def identity(pid: int | None = None) -> str:
    """Returns the boot, the PID namespace, the id and the start of a process; empty if they are unknown.

    Args:
        pid: id of a process on this machine; None for this one.
    """
    pid = os.getpid() if pid is None else pid
    with contextlib.suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
        # The second field is a name in parentheses, which may contain spaces. Source: man 5 proc, stat.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot} {namespace} {pid} {started}"
    return ""


def heartbeat(seconds: float) -> str:
    """Returns a heartbeat, a time in UTC, for a time in seconds since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Owner:
    """The process that started or resumed a run, as it is recorded.

    Attributes:
        host: name of its machine.
        pid: its id there.
        identity: as returned by `identity`; empty for a run of an earlier version.
        heartbeat: time of its last heartbeat; empty for a run of an earlier version.
    """

    host: str
    pid: int
    identity: str = ""
    heartbeat: str = ""

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self:
        """Returns the owner of a run with the given MLflow tags (`RunRecord.owner_tags`)."""
        host, process, last = (tags.get(key, "") for key in ("host", "process", "heartbeat"))
        return cls(host, int(tags.get("pid", 0)), process, last)

    def is_alive(self, directory: Path) -> bool:
        """Returns whether the process exists, as far as this machine can tell; if in doubt, it does.

        Args:
            directory: directory of the run, which this machine may not see.
        """
        here = self.host == platform.node()
        if (directory / run_paths.RECORD).exists():
            if lock.is_held(directory):
                return True
            is_shared = not here and sqlite_file.NETWORK.fullmatch(sqlite_file.file_system(directory))
            return bool(is_shared) and _is_recent(_last_write(directory))  # its locks may not be visible
        exists = self.exists_here()
        if exists is not None:
            return exists
        return not self.heartbeat or _is_recent(datetime.fromisoformat(self.heartbeat).timestamp())

    def exists_here(self) -> bool | None:
        """Returns whether the process exists on this machine; None if it belongs to another one."""
        if self.identity:
            is_ours = self.identity.split()[:2] == identity().split()[:2]
            return identity(self.pid) == self.identity if is_ours else None
        return lock.process_exists(self.pid) if self.host == platform.node() else None


def _is_recent(seconds: float) -> bool:
    return time.time() - seconds < SILENT


def _last_write(directory: Path) -> float:
    """Returns when a process last wrote to the directory of a run, in seconds since the Unix epoch."""
    paths = (directory / name for name in (run_paths.LOCK, run_paths.JOURNAL, run_paths.RECORD))
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
