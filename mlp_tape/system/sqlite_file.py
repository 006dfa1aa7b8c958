"""A SQLite database as a file: where it lies and whether it is whole. It is opened through SQLite alone.

As soon as a process closes any descriptor of a file, POSIX drops all locks that the process holds on it. To
read a database with `open` in a process that also has SQLite connections to it lets other processes write at
the same time, which destroys the database. Source: https://www.sqlite.org/howtocorrupt.html, section 2.2.
"""

import contextlib
import re
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

DAMAGED = "its pages contradict each other"
NO_DATABASE = "it is no SQLite database"
BUSY = 5.0  # seconds to wait for a lock; a database that stays locked for longer is in use, and so it is one
STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock
SPEED = (
    32 * 2**20
)  # bytes a second at which pages are checked at least; SQLite before 3.42 cannot be interrupted

# File systems on which locks may not hold between machines, or not at all.
# Source: https://www.sqlite.org/howtocorrupt.html, section 2.1; https://www.sqlite.org/faq.html, question 5.
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|9p|lustre|ceph|gpfs|beegfs|glusterfs|pvfs2|orangefs|gfs2|ocfs2|virtiofs|"
    r"vboxsf|prl_fs|fuse|fuse\.(?!fuse-overlayfs).+"  # but for a container's local disk
)


def path_of(uri: str) -> Path | None:
    """The file of a SQLite URI, symbolic links resolved, so that one database has one name.

    Args:
        uri: such as `sqlite:///mlflow.db`, with or without a driver and options.

    Returns:
        The absolute path; None for another kind of store, and for a database in memory.
    """
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    if not found or found[1].startswith((":memory:", "file:")):
        return None
    return Path(found[1]).resolve()


@contextlib.contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that exists.

    With `mode=rw`, since a reader that may not write cannot roll back what a killed process left half done.
    """
    uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY)) as opened:
        yield opened


def wrong_with(path: Path, seconds: float = 0.0) -> str:
    """Finds out why a file cannot be used as a database.

    Args:
        path: of an existing file; an empty one is an empty database.
        seconds: how long to check its pages at most; 0 reads the header alone, and so it is where the file is
            too large to be checked in that time.

    Returns:
        What is wrong; an empty string where nothing is, or where it is too busy to be looked at.
    """
    ends = time.monotonic() + seconds
    try:
        with connection(path) as database:
            database.execute("PRAGMA schema_version").fetchone()
            if path.stat().st_size > seconds * SPEED:
                return ""
            database.set_progress_handler(lambda: int(time.monotonic() > ends), STEPS)
            found = str(database.execute("PRAGMA integrity_check(1)").fetchone()[0])
            return "" if found == "ok" else f"{DAMAGED}: {' '.join(found.split())}"
    except sqlite3.OperationalError:  # locked, or the time is over
        return ""
    except sqlite3.DatabaseError as error:
        return str(error) if "malformed" in str(error) else NO_DATABASE


def is_damage(message: str) -> bool:
    """Whether an error message says that a database is damaged."""
    return DAMAGED in message or "disk image is malformed" in message or "is not a database" in message


def warnings(path: Path) -> list[str]:
    """What endangers a database where it lies: a network file system, or a second name.

    Args:
        path: of the database, which need not exist yet.
    """
    found = []
    kind = file_system(path)
    if NETWORK.fullmatch(kind):
        found.append(
            f"{path} is on a network file system ({kind}), where SQLite's locks may not hold: "
            "two processes that write at once can destroy it.\n"
            "Use a server (mlflow server, then tracking.uri=http://...), or a database on a local disk: "
            "tracking.uri=sqlite:////local/path/mlflow.db"
        )
    with contextlib.suppress(OSError):
        if path.stat().st_nlink > 1:
            found.append(
                f"{path} has another name (a hard link). SQLite names its journal after the database, so two "
                "processes that use two names can destroy it.\n"
                f"Remove the other name, which `find -samefile {path}` shows."
            )
    return found


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds a path, such as `ext4` or `nfs4`; empty where it is unknown.

    Args:
        path: absolute; need not exist.
        mounts: Linux's table of what is mounted. Source: `man 5 proc`, mountinfo.
    """
    best, kind = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 5:
            continue
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4])
        if path.is_relative_to(point) and len(point) >= best:  # of two on one point, the later one is seen
            best, kind = len(point), rest[0]
    return kind
