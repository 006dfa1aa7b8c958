"""What is done with runs that are over: `python -m mlp_tape --help`."""

import argparse
import sys
from pathlib import Path

from mlp_tape import quiet, resume
from mlp_tape.errors import ConfigError, MlpTapeError


def main() -> int:
    """Runs a command; returns the exit code: 0 done, 1 not all could be done, 2 the command was wrong."""
    parser = argparse.ArgumentParser(prog="python -m mlp_tape", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sync", help="sends to MLflow what it has not got of runs that are over")
    command.add_argument(
        "directory", nargs="?", type=Path, help="of a run, or above it; outputs/ and multirun/ if not given"
    )
    command.add_argument("--uri", help="of the MLflow store, where it is not the one the run was tracked in")
    command = commands.add_parser(
        "replay", help="shows the step at which a run went astray, tensor by tensor"
    )
    command.add_argument("directory", type=Path, help="of the run")
    arguments = parser.parse_args()
    try:
        return _sync(arguments) if arguments.command == "sync" else _replay(arguments)
    except MlpTapeError as error:
        print(f"error: {error.what}\n       {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _sync(arguments: argparse.Namespace) -> int:
    parents = [Path(parent) for parent in resume.PARENTS]
    if arguments.directory:
        parents = [arguments.directory.absolute()]
    if not any(parent.is_dir() for parent in parents):
        raise ConfigError(f"{parents[0].absolute()} is not there", "python -m mlp_tape sync DIRECTORY")
    from mlp_tape.sync import sync

    return 0 if sync([parent.absolute() for parent in parents], arguments.uri, print) else 1


def _replay(arguments: argparse.Namespace) -> int:
    quiet.import_tensorflow()
    from mlp_tape import divergence

    for line in divergence.replay(arguments.directory):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
