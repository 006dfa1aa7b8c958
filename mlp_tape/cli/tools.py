"""Commands other than training: `python -m mlp_tape --help`, or a first argument of `mlp-tape`."""

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from mlp_tape.config.settings import DEFAULT_EXPERIMENT, TrackingSettings
from mlp_tape.errors import ConfigError, DiskError
from mlp_tape.runs import resume
from mlp_tape.system import exit, program, signals, tensorflow_setup
from mlp_tape.tracking.uri import resolve_uri

WITH_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


def main() -> int:
    """Runs a command and returns its exit code: 0 success, 1 failure of a part or all, 2 invalid command."""
    exit.own_temporary_directory()
    try:
        arguments = _parsed(sys.argv[1:])
        return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        return 128 + (signals.received() or signal.SIGINT)
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as error:  # raised by the parser, after its message
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        if WITH_TRACEBACK:
            traceback.print_exception(error)
        from mlp_tape.cli import messages

        return messages.report_error(error)


def _parsed(typed: list[str]) -> argparse.Namespace:
    """Parses the command line; options may stand between runs, files and settings."""
    parser, commands = _parser()
    if typed and typed[0] in commands.choices:
        found: argparse.Namespace = commands.choices[typed[0]].parse_intermixed_args(typed[1:])
        found.command = typed[0]
        return found
    return parser.parse_args(typed)


def _parser() -> "tuple[argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]]":
    """Returns the parser of the command line, and those of the commands.

    Arguments with `nargs="*"` have a default, since the parser would call them required otherwise.
    """
    from mlp_tape.cli import data_tools, replay, reproduction  # which wrong settings are not to wait for

    parser = argparse.ArgumentParser(prog=program.tool(), description="Tools for finished runs and sweeps.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_tools_of_stores(commands)
    command = commands.add_parser(
        "walk", help="show the first step of a run, operation by operation, and two pitfalls"
    )
    command.add_argument(
        "settings", nargs="*", default=[], metavar="SETTING=VALUE", help="settings, as for training"
    )
    data_tools.add_config_dir(command)
    command = commands.add_parser("compare", help="compare the settings, results and curves of runs")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="MLflow run id, directory, or last; a sweep is replaced by its jobs",
    )
    command.add_argument("--uri", help="MLflow tracking URI, for runs that have no directory here")
    command.add_argument(
        "--png", type=Path, default=Path("comparison.png"), help="file of the plot (default: comparison.png)"
    )
    data_tools.add_parsers(commands)
    reproduction.add_parser(commands)
    replay.add_parser(commands)
    commands.add_parser("settings", help="print the settings reference, docs/settings.md")
    return parser, commands


def _add_tools_of_stores(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the parsers of the commands that deliver runs to MLflow's stores, or mend these."""
    command = commands.add_parser("sync", help="deliver the data of finished runs that MLflow is missing")
    command.add_argument(
        "runs",
        nargs="*",
        default=[],
        metavar="RUN",
        help="MLflow run id, directory of a run or above runs, or last (default: outputs/ and multirun/)",
    )
    command.add_argument(
        "--uri", help="copy all of the runs, also those that were delivered, to this MLflow tracking URI"
    )
    rebuild = commands.add_parser(
        "rebuild", help="recreate a damaged database from the directories of its runs and sweeps"
    )
    command = commands.add_parser("doctor", help="try the tracking store and the artifact store")
    command.add_argument("--uri", help="MLflow tracking URI (default: that of a run in this directory)")
    command.add_argument("--experiment", help="name of the experiment (default: that of a run)")
    relocate = commands.add_parser(
        "relocate", help="correct the paths in a database that was moved or renamed"
    )
    above = "directory above the runs (default: outputs/ and multirun/)"
    for command in rebuild, relocate:
        command.add_argument("directory", nargs="?", type=Path, help=above)
        command.add_argument(
            "--uri", help="URI of the database (default: sqlite:///mlflow.db in this directory)"
        )


def _sync(arguments: argparse.Namespace) -> int:
    parents = [_directory(run) for run in arguments.runs] or [
        Path(each).absolute() for each in resume.PARENTS
    ]
    if not any(parent.is_dir() for parent in parents):
        raise ConfigError(f"{parents[0]} does not exist", f"type {program.tool()} sync DIRECTORY")
    from mlp_tape.mlflow_backend import sync

    if arguments.uri:
        return 0 if sync.copy(parents, _uri(arguments), print) else 1
    return 0 if sync.sync(parents, print) else 1


def _directory(run: str) -> Path:
    """Returns the directory of a run by its id, of the last one, or of several as it was typed."""
    found = None if Path(run).is_dir() else resume.here(run)
    return found.directory if found else Path(run).absolute()


def _replay(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import replay

    return replay.replay(arguments)


def _walk(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import composition
    from mlp_tape.data import datasets

    settings = composition.settings_of(program.conf(), arguments.settings, arguments.config_dir)
    dataset = datasets.load(**dataclasses.asdict(settings.dataset), say=print)
    if dataset.warning:
        print(f"WARNING  {dataset.warning}", file=sys.stderr)
    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs.trainer import Trainer
    from mlp_tape.runs.walkthrough import walkthrough

    for line in walkthrough(Trainer(settings, dataset)):
        print(line)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import compare
    from mlp_tape.reports import terminal_plots

    entries = compare.find(arguments.runs, _uri(arguments))
    for line in compare.table(entries).as_text():
        print(line)
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    lines_of_frame = {} if utf8 else terminal_plots.FRAME
    colour = sys.stdout.isatty() and utf8 and not os.environ.get("NO_COLOR")
    for title, lines in compare.curves(entries).items():
        plot = terminal_plots.curves(title, lines, shutil.get_terminal_size().columns, colour)
        if plot:
            print(f"\n{plot}".translate(lines_of_frame))
    try:
        compare.draw(arguments.png.absolute(), entries)
    except OSError as error:
        raise DiskError(
            f"{error.strerror}: {arguments.png.absolute()}",
            "type --png=FILE with a directory you can write to",
        ) from error
    print(f"\ncurves        {arguments.png.absolute()}")
    link = compare.link(entries)
    if link:
        print(f"in MLflow     {link.url}\nto see it     {link.how_to_open}")
    return 0


def _rebuild(arguments: argparse.Namespace) -> int:
    from mlp_tape.mlflow_backend.rebuild import rebuild

    return 0 if rebuild(_parents(arguments), _uri(arguments), print) else 1


def _doctor(arguments: argparse.Namespace) -> int:
    from mlp_tape.mlflow_backend.doctor import diagnose

    experiment = arguments.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    return 0 if diagnose(_uri(arguments), experiment, print) else 1


def _relocate(arguments: argparse.Namespace) -> int:
    from mlp_tape.mlflow_backend.relocation import relocate

    relocate(_parents(arguments), _uri(arguments), print)
    return 0


def _parents(arguments: argparse.Namespace) -> list[Path]:
    """Returns the directory that was typed, else those in which runs and sweeps are by default."""
    typed = [arguments.directory] if arguments.directory else [Path(parent) for parent in resume.PARENTS]
    return [parent.absolute() for parent in typed]


def _uri(arguments: argparse.Namespace) -> str:
    return resolve_uri(TrackingSettings(uri=arguments.uri))


def _settings(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli.settings_reference import reference

    print(reference(), end="")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import data_tools

    return data_tools.data(arguments)


def _predict(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import data_tools

    return data_tools.predict_files(arguments)


def _reproduce(arguments: argparse.Namespace) -> int:
    from mlp_tape.cli import reproduction

    return reproduction.reproduce(arguments)


COMMANDS = {
    "reproduce": _reproduce,
    "sync": _sync,
    "rebuild": _rebuild,
    "doctor": _doctor,
    "relocate": _relocate,
    "replay": _replay,
    "walk": _walk,
    "compare": _compare,
    "data": _data,
    "predict": _predict,
    "settings": _settings,
}
