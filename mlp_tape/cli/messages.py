"""What a person is told of an error: what is wrong, and what to type instead."""

import re
import sys

from hydra.errors import MissingConfigException, OverrideParseException

from mlp_tape.cli import multirun
from mlp_tape.config import validation
from mlp_tape.errors import ConfigError, DiskError, MlpTapeError
from mlp_tape.system.redaction import without_password


def report_error(error: Exception) -> int:
    """Prints what is wrong and what to type instead, and returns the exit code."""
    if isinstance(error, OSError) and error.strerror:
        error = DiskError(
            f"{error.strerror}: {error.filename or 'the disk'}",
            "make room there, or start in another directory",
        )
    if not isinstance(error, MlpTapeError):
        error = MlpTapeError(
            f"{type(error).__name__}: {error}", "HYDRA_FULL_ERROR=1 python run.py ... shows where"
        )
    print(without_password(f"error: {error.what}\n       {error.hint}"), file=sys.stderr)
    return error.exit_code


def composition_error(error: Exception) -> ConfigError:
    """What Hydra refused to compose or to begin, as a ConfigError that says what to type."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file) in multirun.EXTRAS:
        extra = multirun.EXTRAS[str(error.missing_cfg_file)]
        return ConfigError(f"{error.missing_cfg_file} is not installed", f"pip install -e '.[{extra}]'")
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return ConfigError(
            f"{group}={option}: expected one of: {', '.join(error.options)}",
            f"type for example {group}={error.options[0]}",
        )
    if isinstance(error, OverrideParseException):
        return ConfigError(f"cannot read {error.override}: {first}", "quote it for the shell: 'key=[1,2]'")
    unknown = re.match(r"Could not override '([^']+)'", first)
    if unknown:
        return validation.unknown_key(unknown[1])
    if first.startswith("Config group override must be"):
        return ConfigError(
            first, "name a file of the group, such as dataset=digits; python run.py --help lists them"
        )
    if first.startswith("Ambiguous value for argument"):
        return ConfigError(first, "to sweep over the values, type python run.py -m ...")
    if isinstance(error, OSError):
        return ConfigError(
            f"{type(error).__name__}: {first}", "start it in a directory that you can write to"
        )
    return ConfigError(first, " ".join(rest).strip() or "python run.py --help shows how")
