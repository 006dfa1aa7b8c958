"""The command `reproduce`, which trains a run again and compares."""

import argparse
import dataclasses
import os
import random
import shlex
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlp_tape.config.settings import Settings, TrackingSettings, to_dict
from mlp_tape.errors import ConfigError
from mlp_tape.runs import resume
from mlp_tape.storage.run_record import Command
from mlp_tape.system import program, signals, worktrees
from mlp_tape.system.formatting import count
from mlp_tape.tracking import client_process
from mlp_tape.tracking.uri import resolve_uri

if TYPE_CHECKING:  # the command line of a run imports this module, too
    from mlp_tape.runs.recorded import Recorded

CHANGEABLE = ("dataset.path", "tracking.")  # settings that may differ from those of the run
WIDTH = 44  # characters of a cell


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the parser of the command line."""
    command = commands.add_parser("reproduce", help="train a run again, and compare it value by value")
    command.add_argument(
        "run", metavar="RUN", help="MLflow run id, runs:/ID, directory, or last; of a sweep, all of its jobs"
    )
    command.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="SETTING=VALUE",
        help="dataset.path=FILE, or settings of tracking",
    )
    command.add_argument("--uri", help="MLflow tracking URI, for runs that have no directory here")
    command.add_argument("--epochs", type=_positive, help="compare only the first epochs")
    command.add_argument(
        "--sample", type=_positive, metavar="N", help="of a sweep, only N jobs, chosen at random"
    )
    command.add_argument(
        "--explain", action="store_true", help="tell which part of a step was the first that differed"
    )
    command.add_argument(
        "--at-commit",
        action="store_true",
        help="with the recorded code and versions of packages, in a checkout and an environment of their own",
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected an integer from 1")
    return int(text)


def reproduce(arguments: argparse.Namespace) -> int:
    """Trains a run, or the jobs of a sweep, again; returns 0 if all were reproduced, else 1."""
    from mlp_tape.runs import recorded

    uri = resolve_uri(TrackingSettings(uri=arguments.uri))
    found = list(recorded.find(arguments.run, uri))
    if arguments.sample and arguments.sample < len(found):
        found = random.sample(found, arguments.sample)
    one = _at_commit if arguments.at_commit else _reproduced
    try:
        with signals.on_signals():
            equal = [one(run, arguments, uri) for run in found]
    finally:
        client_process.stop_all()
    if len(found) > 1:
        print(f"{sum(equal)} of {count(len(found), 'job')} reproduced")
    return 0 if all(equal) else 1


def _reproduced(run: "Recorded", arguments: argparse.Namespace, uri: str) -> bool:
    from mlp_tape.cli import composition
    from mlp_tape.runs import recorded_data, reproduce

    print(
        f"reproduces    {run.name}  {run.run_id or run.directory}  {run.status}, {count(run.steps, 'step')}"
    )
    changed = reproduce.changed_environment(run)
    if changed:
        for line in _table([("differs", "then", "now"), *changed]):
            print(line)
    else:
        print("environment   as recorded: code, packages, processor and threads")
    settings = _with_overrides(_recorded_beside(run, run.uri or uri), arguments.settings)
    place, dataset = recorded_data.find(run, dataset_path(arguments.settings), print)
    settings = reproduce.new_settings(run, dataclasses.replace(settings, dataset=place))
    command = Command([], composition.as_overrides(settings))
    done = reproduce.reproduce(run, settings, dataset, command, print, arguments.epochs)
    for line in done.explanation if arguments.explain else ():
        print(f"explanation   {line}")
    for problem in done.problems:
        print(f"problem       {problem}")
    print(
        f"verdict       {done.verdict}" + ("" if done.is_equal or not done.problems else "; see the problems")
    )
    return done.is_equal


def _at_commit(run: "Recorded", arguments: argparse.Namespace, uri: str) -> bool:
    """Reproduces a run with the code and the versions that are recorded of it."""
    commit, packages = run.environment.facts.get("commit", ""), run.environment.packages
    if commit and not worktrees.has_file(commit, "mlp_tape/cli/reproduction.py"):
        raise ConfigError(
            f"the commit {commit[:12]} is of a version that has no command reproduce", "leave out --at-commit"
        )
    checkout, python = worktrees.prepared(commit, run.changes, packages, print)
    which = str(run.directory or run.run_id)
    more = ["--uri", run.uri or uri, *(["--explain"] if arguments.explain else [])]
    more += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    command = [str(python), "-P", "-m", "mlp_tape", "reproduce", which, *arguments.settings, *more]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(checkout)})
    if done.returncode not in (0, 1):
        raise ConfigError(f"{shlex.join(command)} ended with exit code {done.returncode}", "see above")
    return done.returncode == 0


def _recorded_beside(run: "Recorded", uri: str) -> Settings:
    """Returns the settings of a run, such that a new run is recorded in a given store, in its experiment."""
    tracking = dataclasses.replace(run.settings.tracking, uri=uri, experiment=run.experiment)
    return dataclasses.replace(run.settings, tracking=tracking)


def dataset_path(typed: Sequence[str]) -> str | None:
    """Returns the path that was typed as `dataset.path=`; None if there was none."""
    values = [text.partition("=")[2] for text in typed if text.startswith("dataset.path=")]
    return values[-1] if values else None


def _with_overrides(settings: Settings, typed: Sequence[str]) -> Settings:
    """Returns settings with those that were typed.

    Raises:
        ConfigError: a setting must not differ from that of the run.
    """
    for text in typed:
        if "=" not in text or not text.startswith(CHANGEABLE):
            raise ConfigError(
                f"{text}: a run is reproduced with its own settings",
                f"leave it out; dataset.path=FILE and tracking.... may differ, others with {program.train()}",
            )
    values = OmegaConf.merge(OmegaConf.create(to_dict(settings)), OmegaConf.from_dotlist(list(typed)))
    return resume.of_values(OmegaConf.to_container(values))  # type: ignore[arg-type]


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Returns the lines of a table of three columns."""
    cells = [[_short(cell or "-") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
