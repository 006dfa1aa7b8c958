"""A real PostgreSQL server for tests."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import LIMIT, Server


class Postgres:
    """A PostgreSQL server on the loopback interface, run by an unprivileged user, as PostgreSQL requires."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found or importlib.util.find_spec("psycopg2") is None:
            pytest.skip("apt-get install postgresql, pip install psycopg2-binary to run this test")
        self._bin = found[-1].parent
        # The temporary directories of pytest and of the program are accessible only to their owner.
        self._home = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR", "/tmp")))
        self._data = self._home / "data"
        self._as: list[str] = []
        if os.getuid() == 0:
            user = "postgres" if any(each.pw_name == "postgres" for each in pwd.getpwall()) else "nobody"
            self._as = ["runuser", "-u", user, "--"]
            shutil.chown(self._home, user)
        self._port = int(Server(self._home).url.rpartition(":")[2])
        self.uri = f"postgresql+psycopg2://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Creates a database cluster and starts the server."""
        quiet = {"stdout": subprocess.DEVNULL, "cwd": "/"}
        initdb = [
            *self._as,
            str(self._bin / "initdb"),
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        subprocess.run(initdb, check=True, **quiet)
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._control("start", "-w", "-t", f"{LIMIT:.0f}", "-o", options, "-l", f"{self._data}.log")

    def stop(self) -> None:
        """Stops the server immediately, and deletes its data."""
        self._control("stop", "-m", "immediate")
        shutil.rmtree(self._home)

    def _control(self, *arguments: str) -> None:
        command = [*self._as, str(self._bin / "pg_ctl"), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
