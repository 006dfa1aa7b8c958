"""The command `replay`, which shows a step of a run."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_tape.cli.reproduction import dataset_path
from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import ConfigError, DiskError
from mlp_tape.runs import resume
from mlp_tape.storage.metric_keys import TRAIN_LOSS
from mlp_tape.system import tensorflow_setup
from mlp_tape.system.formatting import count
from mlp_tape.tracking.uri import resolve_uri

if TYPE_CHECKING:  # the command line of a run imports this module, too
    from mlp_tape.runs.recorded import Recorded
    from mlp_tape.runs.replay import Tensors


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the parser of the command line."""
    command = commands.add_parser("replay", help="show a step of a run, tensor by tensor")
    command.add_argument("run", metavar="RUN", help="MLflow run id, runs:/ID, directory, or last")
    command.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="step=N",
        help="step=N, counted from 0 (default: the step at which the run diverged); dataset.path=FILE",
    )
    command.add_argument("--uri", help="MLflow tracking URI, for runs that have no directory here")
    command.add_argument("--out", type=Path, metavar="FILE.npz", help="file for all tensors")
    command.add_argument("--png", type=Path, metavar="FILE.png", help="file for a plot of the batch's images")
    command.add_argument(
        "--notebook", type=Path, metavar="FILE.ipynb", help="file for a notebook of the step"
    )


def replay(arguments: argparse.Namespace) -> int:
    """Shows a step of a run; without `step=`, the one at which it diverged."""
    for text in arguments.settings:
        if not text.startswith(("step=", "dataset.path=")):
            raise ConfigError(
                f"{text}: a step is replayed with the settings of its run",
                f"type replay {arguments.run} step=0, or dataset.path=FILE where its data are",
            )
    steps = [text.partition("=")[2] for text in arguments.settings if text.startswith("step=")]
    if not steps:
        here = resume.here(arguments.run)
        tensorflow_setup.import_tensorflow()
        from mlp_tape.runs import divergence

        for line in divergence.replay(here.directory if here else Path(arguments.run)):
            print(line)
        return 0
    if not steps[-1].isdigit():
        raise ConfigError(
            f"step={steps[-1]}: expected an integer from 0", f"type replay {arguments.run} step=0"
        )
    from mlp_tape.runs import recorded

    step, uri = int(steps[-1]), resolve_uri(TrackingSettings(uri=arguments.uri))
    run = _one(list(recorded.find(arguments.run, uri)), arguments.run)
    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs import replay

    trainer = replay.trainer_of(run, dataset_path(arguments.settings), print)
    tensors = replay.replay(trainer, run.directory, step)
    epoch, in_epoch = divmod(step, trainer.steps_per_epoch)
    print(f"run           {run.name}  {run.run_id or run.directory}")
    print(f"step          {step:,}: epoch {epoch}, step {in_epoch}, lr {trainer.rate.at(step):g}")
    print(f"labels        {replay.labels_line(tensors[replay.LABELS], trainer.dataset.class_names)}")
    print(f"loss          {tensors[replay.LOSS]:.6f}{_as_recorded(run, step, float(tensors[replay.LOSS]))}")
    for line in replay.table(tensors):
        print(line)
    _write(arguments, tensors, trainer.dataset.class_names, run, step)
    return 0


def _one(found: "list[Recorded]", which: str) -> "Recorded":
    if len(found) != 1:
        raise ConfigError(
            f"{which} is a sweep of {count(len(found), 'job')}", "type the id of one of its jobs"
        )
    return found[0]


def _as_recorded(run: "Recorded", step: int, loss: float) -> str:
    """Returns whether a loss is the recorded one, of each place that has one."""
    known = {each.place: each.rows.get(TRAIN_LOSS, {}).get(step) for each in run.evidence}
    other = [f"{place} has {value!r}" for place, value in known.items() if value not in (None, loss)]
    if other:
        return f", but {', '.join(other)}"
    return (
        ", as recorded"
        if any(value is not None for value in known.values())
        else ", of which no row is recorded"
    )


def _write(
    arguments: argparse.Namespace, tensors: "Tensors", names: Sequence[str], run: "Recorded", step: int
) -> None:
    """Writes the files that were asked for."""
    import numpy as np

    from mlp_tape.reports import batch_sheet, notebook, prediction_plots

    if arguments.png and not prediction_plots.are_drawn(tensors["images"]):
        raise ConfigError("the batch has no images, but rows of a table", "leave out --png")
    writers: list[tuple[Path | None, Callable[[Path], None]]] = [
        (arguments.out, lambda path: np.savez(path, **tensors)),  # type: ignore[arg-type]
        (arguments.png, lambda path: batch_sheet.draw(path, tensors["images"], tensors["labels"], names)),
        (arguments.notebook, lambda path: notebook.write(path, str(run.directory or run.run_id), step)),
    ]
    for path, write in writers:
        if path:
            try:
                write(path.absolute())
            except OSError as error:
                raise DiskError(f"{path}: {error.strerror}", "choose another file") from error
            print(f"written       {path.absolute()}")
