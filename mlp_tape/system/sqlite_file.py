"""A SQLite database as a file: its path, its integrity, and its file system.

The file is opened only through SQLite. When a process closes any descriptor of a file, POSIX releases all
locks that the process holds on it. If a process reads a database with `open` while it has SQLite connections
to it, other processes can therefore write at the same time, which corrupts the database.
Source: https://www.sqlite.org/howtocorrupt.html, section 2.2.
"""

import contextlib
import re
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

DAMAGED = "its pages are inconsistent"
NO_DATABASE = "it is not a SQLite database"
BUSY = 5.0  # seconds to wait for a lock; a file that stays locked for longer is in use, hence a database
STEPS = 10_000  # instructions of SQLite's virtual machine between two checks of the time limit
# Minimum speed of a page check in bytes per second; SQLite before 3.42 cannot interrupt the check.
SPEED = 32 * 2**20

# File systems on which locks may not work between machines, or not at all.
# Source: https://www.sqlite.org/howtocorrupt.html, section 2.1; https://www.sqlite.org/faq.html, question 5.
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|9p|lustre|ceph|gpfs|beegfs|glusterfs|pvfs2|orangefs|gfs2|ocfs2|virtiofs|"
    r"vboxsf|prl_fs|fuse|fuse\.(?!fuse-overlayfs).+"  # except the local disk of a container
)


def path_of(uri: str) -> Path | None:
    """Returns the file of a SQLite URI, with symbolic links resolved so that each database has one path.

    Args:
        uri: URI such as `sqlite:///mlflow.db`, with or without driver and options.

    Returns:
        The absolute path; None for other kinds of store and for in-memory databases.
    """
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    if not found or found[1].startswith((":memory:", "file:")):
        return None
    return Path(found[1]).resolve()


@contextlib.contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection to an existing database.

    The mode is `rw`, since a read-only connection cannot roll back the transaction of a killed process.
    """
    uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY)) as opened:
        yield opened


def find_problem(path: Path, seconds: float = 0.0) -> str:
    """Checks whether a file can be used as a database.

    Args:
        path: path of an existing file; an empty one is an empty database.
        seconds: time limit for checking the pages; if 0, or if the file is too large to be checked in this
            time, only the header and schema are read.

    Returns:
        A description of the problem; empty if there is none, or if the database is locked.
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
    except sqlite3.OperationalError:  # locked, or the time limit was reached
        return ""
    except sqlite3.DatabaseError as error:
        return str(error) if "malformed" in str(error) else NO_DATABASE


def is_damage(message: str) -> bool:
    """Returns whether an error message reports a damaged database."""
    return DAMAGED in message or "disk image is malformed" in message or "is not a database" in message


def warnings(path: Path) -> list[str]:
    """Returns warnings about the location of a database: a network file system, or a hard link.

    Args:
        path: path of the database, which need not exist yet.
    """
    found = []
    kind = file_system(path)
    if NETWORK.fullmatch(kind):
        found.append(
            f"{path} is on a network file system ({kind}), where SQLite's locks may not hold: "
            "processes that write at the same time can corrupt it.\n"
            "Use a server (mlflow server, then tracking.uri=http://...), or a database on a local disk: "
            "tracking.uri=sqlite:////local/path/mlflow.db"
        )
    with contextlib.suppress(OSError):
        if path.stat().st_nlink > 1:
            found.append(
                f"{path} has another name (a hard link). SQLite names its journal after the database, so two "
                "processes that use different names can corrupt it.\n"
                f"Remove the other name, which `find -samefile {path}` shows."
            )
    return found


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Returns the type of the file system of a path, such as `ext4` or `nfs4`; empty if unknown.

    Args:
        path: absolute path, which need not exist.
        mounts: Linux's mount table. Source: `man 5 proc`, mountinfo.
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
        if path.is_relative_to(point) and len(point) >= best:  # a later mount hides an earlier one
            best, kind = len(point), rest[0]
    return kind
