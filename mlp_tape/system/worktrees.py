"""A checkout of a recorded commit, with a virtual environment of recorded versions of packages."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mlp_tape.errors import ConfigError
from mlp_tape.system import program
from mlp_tape.system.atomic_files import cache_directory

COMPLETE = "complete"  # file that exists once an environment is complete


def prepared(
    commit: str, changes: str, packages: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Path, Path]:
    """Returns a checkout and the Python of its environment, which are created below the cache directory once.

    Args:
        commit: commit of this repository.
        changes: diff to apply to it; may be empty.
        packages: versions that its requirements are to have, by name.
        say: prints a line.

    Raises:
        ConfigError: the commit is not in this repository, or the packages cannot be installed.
    """
    if not program.is_checkout() or not commit:
        raise ConfigError(
            f"{program.ROOT} is not a clone of the repository, so it has no commits",
            "clone the repository, and type the command there",
        )
    versions = "".join(
        f"{name}=={version}\n" for name, version in sorted(packages.items()) if _is_public(name)
    )
    key = hashlib.sha256(f"{commit}\n{changes}\n{versions}\n{sys.version}".encode()).hexdigest()[:12]
    parent = cache_directory() / "reproduce" / f"{commit[:12]}-{key}"
    checkout, environment = parent / "checkout", parent / "environment"
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (parent / COMPLETE).exists():
        return checkout, python
    parent.mkdir(parents=True, exist_ok=True)
    if not (checkout / ".git").exists():
        say(f"checkout      of commit {commit[:12]} in {checkout}")
    _check_out(commit, changes, checkout)
    say(f"environment   with the recorded versions in {environment}, which takes a few minutes")
    constraints = parent / "constraints.txt"
    constraints.write_text(versions)
    _call([sys.executable, "-m", "venv", "--clear", str(environment)], "install the module venv of Python")
    install = [str(python), "-m", "pip", "install", "--quiet"]
    _call(
        [*install, "-c", str(constraints), "-e", str(checkout)],
        "reproduce the run without --at-commit, with the versions that are installed here",
    )
    (parent / COMPLETE).touch()
    return checkout, python


def _check_out(commit: str, changes: str, directory: Path) -> None:
    """Creates a worktree of a commit in a directory, or resets the one that is there, and applies changes."""
    git, here = ["git", "-C", str(program.ROOT)], ["git", "-C", str(directory)]
    if not (directory / ".git").exists():
        _call([*git, "worktree", "prune"], "")
        _call(
            [*git, "worktree", "add", "--detach", str(directory), commit],
            f"git fetch, so that this clone has the commit {commit}",
        )
    _call([*here, "reset", "--quiet", "--hard", commit], "")
    _call([*here, "clean", "--quiet", "-fd"], "")
    if changes:
        _call([*here, "apply", "--whitespace=nowarn", "-"], "reproduce the run without --at-commit", changes)


def has_file(commit: str, path: str) -> bool:
    """Returns whether a commit of this repository has a file; also True if the commit is not here."""
    known = ["git", "-C", str(program.ROOT), "cat-file", "-e"]
    here = subprocess.run([*known, commit], capture_output=True).returncode == 0
    return not here or subprocess.run([*known, f"{commit}:{path}"], capture_output=True).returncode == 0


def _is_public(name: str) -> bool:
    """Returns whether a package may be restricted to a version; pip itself and this program may not."""
    return name not in ("mlp_tape", "pip", "setuptools", "wheel")


def _call(command: list[str], hint: str, given: str = "") -> None:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=variables)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        what = next(
            (line for line in lines if line.lower().startswith(("error", "fatal"))), (lines or [""])[-1]
        )
        raise ConfigError(f"{' '.join(command[:4])} ... failed: {what}", hint or "correct it, and try again")
