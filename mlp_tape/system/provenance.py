"""Provenance of a run: the program, the commit, the machine and the packages."""

import functools
import getpass
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from mlp_tape.system import program, tensorflow_setup


def tags() -> dict[str, str]:
    """Returns MLflow tags for the source of a run: program, user, commit, and whether the tree is dirty."""
    found = {
        "mlflow.source.name": program.name(),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["mlflow.source.git.commit"] = commit
        found["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return found


def fingerprint() -> dict[str, str]:
    """Returns what bit-exact results depend on apart from settings and data: versions, processor, threads."""
    return {
        "commit": _git("rev-parse", "HEAD") or importlib.metadata.version("mlp_tape"),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "processor": f"{platform.machine()}, {_processor()}",
        "threads": str(tensorflow_setup.threads()),
    }


@functools.cache
def _processor() -> str:
    """Returns the processor's name, from /proc/cpuinfo on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user id has no name
        return str(os.getuid())


@functools.cache  # later changes to the checkout do not affect the code that is loaded
def _git(*arguments: str) -> str:
    """Returns git's output for the program's own checkout; empty without one, or if the command fails."""
    if not program.is_checkout():  # a repository above an installed package is another program's
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(program.ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@functools.cache
def environment() -> str:
    """Describes the machine and lists every installed package, one per line."""
    packages = {
        f"{package.metadata['Name']}=={package.version}" for package in importlib.metadata.distributions()
    }
    machine = [
        f"# python {platform.python_version()}",
        f"# {platform.platform()}, {os.cpu_count()} cores",
    ]
    return "\n".join([*machine, *sorted(packages, key=str.lower)]) + "\n"
