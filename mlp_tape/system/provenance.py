"""Where a run comes from: the command, the commit, the machine and the packages."""

import functools
import getpass
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from mlp_tape.system import tensorflow_setup

ROOT = Path(__file__).resolve().parents[2]


def tags() -> dict[str, str]:
    """Where a run's code comes from: the program, the commit, and whether the tree was dirty."""
    found = {
        "mlflow.source.name": "run.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["mlflow.source.git.commit"] = commit
        found["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return found


def makers() -> dict[str, str]:
    """What the bits of a run depend on, besides its settings and data."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "processor": f"{platform.machine()}, {_processor()}",
        "threads": str(tensorflow_setup.threads()),
    }


@functools.cache
def _processor() -> str:
    """The processor's name; Linux alone says it in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this number
        return str(os.getuid())


@functools.cache  # a process goes on with the code that it has loaded
def _git(*arguments: str) -> str:
    """What git says of the program's own checkout, or nothing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@functools.cache
def environment() -> str:
    """The machine and every installed package, a line each."""
    packages = {
        f"{package.metadata['Name']}=={package.version}" for package in importlib.metadata.distributions()
    }
    machine = [
        f"# python {platform.python_version()}",
        f"# {platform.platform()}, {os.cpu_count()} cores",
    ]
    return "\n".join([*machine, *sorted(packages, key=str.lower)]) + "\n"
