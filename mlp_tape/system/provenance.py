"""Provenance of a run: the program, the commit, the machine and the packages."""

import functools
import getpass
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlp_tape.system import compilation_cache, program, tensorflow_setup
from mlp_tape.system.redaction import without_secrets

MOST = 2**18  # bytes of uncommitted changes that are recorded
TEXTS = (".py", ".yaml", ".yml", ".toml")  # new files that are part of the program
# Environment variables that select how TensorFlow and XLA compute.
FLAGS = (
    "XLA_FLAGS",
    "TF_XLA_FLAGS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "TF_DETERMINISTIC_OPS",
    "NVIDIA_TF32_OVERRIDE",
)
INSTRUCTIONS = ("avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


class Environment(NamedTuple):
    """What the results of a run depend on apart from settings and data.

    Attributes:
        facts: machine, code and flags, by name.
        packages: version of each installed package, by its name in lower case.
    """

    facts: dict[str, str]
    packages: dict[str, str]

    def with_facts(self, others: Mapping[str, str]) -> "Environment":
        """Returns the environment with facts that it lacks, as earlier versions recorded them elsewhere."""
        known = {key: value for key, value in others.items() if value}
        return self._replace(facts=known | self.facts)


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
        "processor": f"{platform.machine()}, {_of_processor('model name') or platform.processor()}",
        "threads": str(tensorflow_setup.threads()),
    }


@functools.cache
def _of_processor(key: str) -> str:
    """Returns what Linux says of the processor; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(": ")[2] for line in lines if line.startswith(key)), "")


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
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    differs = "--no-index" in arguments and done.returncode == 1
    return done.stdout.rstrip("\n") if differs or not done.returncode else ""


@functools.cache
def environment() -> Environment:
    """Returns the environment of this process."""
    packages: dict[str, str] = {}
    for package in importlib.metadata.distributions():  # of two, the first is the one that is imported
        about = package.metadata  # reads and parses a file each time
        packages.setdefault(about["Name"].lower(), about["Version"])
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "instructions": " ".join(_instructions()),
        **{key: value for key, value in fingerprint().items() if key != "tensorflow"},
    }
    changed = uncommitted_changes()
    if changed:
        facts["uncommitted changes"] = hashlib.sha256(changed.encode()).hexdigest()
    for name in FLAGS:
        value = compilation_cache.without_flag(os.environ.get(name, ""))
        if value:
            facts[name] = value
    return Environment(facts, packages)


def as_text(environment: Environment) -> str:
    """Returns an environment as the requirements of pip, after comments with the other facts."""
    facts = [f"# {key}: {value}" for key, value in environment.facts.items()]
    packages = [f"{name}=={version}" for name, version in sorted(environment.packages.items())]
    return "\n".join([*facts, *packages]) + "\n"


def from_text(text: str) -> Environment:
    """Returns the environment of which `as_text` returned a text; earlier versions recorded fewer facts."""
    facts: dict[str, str] = {}
    packages: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            is_earlier = line.startswith("# python ")  # as earlier versions wrote it
            key, separator, value = line[2:].partition(" " if is_earlier else ": ")
            facts |= {key: value} if separator else {}
        elif "==" in line:
            name, _, version = line.partition("==")
            packages[name.lower()] = version
    return Environment(facts, packages)


@functools.cache  # later changes to the checkout do not affect the code that is loaded
def uncommitted_changes() -> str:
    """Returns the changes to the program's checkout since its commit, as a diff without secrets.

    New files are part of it if they are code or configs. It is empty if nothing was changed, and one line
    that says so if it would have more than MOST bytes.
    """
    changed = _git("diff", "HEAD", "--no-color", "--no-ext-diff")
    names = _git("ls-files", "--others", "--exclude-standard").splitlines()
    new = [name for name in names if name.endswith(TEXTS)]
    added = (_git("diff", "--no-color", "--no-ext-diff", "--no-index", "/dev/null", name) for name in new)
    whole = "\n".join(filter(None, [changed, *added]))
    if len(whole.encode()) > MOST:
        return f"# The changes are not recorded, as they have {len(whole.encode()):,} bytes.\n"
    return without_secrets(whole) + "\n" if whole else ""


def _instructions() -> list[str]:
    """Returns the sets of instructions of the processor that select kernels, on Linux."""
    found = _of_processor("flags") or _of_processor("Features")
    return [name for name in INSTRUCTIONS if name in found.split()]
