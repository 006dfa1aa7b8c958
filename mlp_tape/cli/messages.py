"""Error messages of the command line: what is wrong, and what to type instead."""

import re
import sys

from hydra.errors import MissingConfigException, OverrideParseException

from mlp_tape.cli import multirun
from mlp_tape.config import validation
from mlp_tape.errors import ConfigError, DiskError, MlpTapeError
from mlp_tape.system.redaction import without_password


def report_error(error: Exception) -> int:
    """Prints an error in two lines, the problem and a correction, and returns its exit code."""
    if isinstance(error, OSError) and error.strerror:
        error = DiskError(
            f"{error.strerror}: {error.filename or 'the disk'}",
            "free some space, or start the program in another directory",
        )
    if not isinstance(error, MlpTapeError):
        error = MlpTapeError(
            f"{type(error).__name__}: {error}", "HYDRA_FULL_ERROR=1 python run.py ... prints a traceback"
        )
    print(without_password(f"error: {error.what}\n       {error.hint}"), file=sys.stderr)
    return error.exit_code


def composition_error(error: Exception) -> ConfigError:
    """Returns a ConfigError with a correction, for an error that Hydra raised before the run started."""
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
        return ConfigError(
            f"cannot parse {error.override}: {first}", "quote it for the shell, such as 'key=[1,2]'"
        )
    unknown = re.match(r"Could not override '([^']+)'", first)
    if unknown:
        return validation.unknown_key(unknown[1])
    if first.startswith("Config group override must be"):
        return ConfigError(
            first, "type an option of the group, such as dataset=digits; python run.py --help lists them"
        )
    if first.startswith("Ambiguous value for argument"):
        return ConfigError(first, "to sweep over these values, type python run.py -m ...")
    if isinstance(error, OSError):
        return ConfigError(
            f"{type(error).__name__}: {first}", "start the program in a directory that you can write to"
        )
    return ConfigError(first, " ".join(rest).strip() or "see python run.py --help")
