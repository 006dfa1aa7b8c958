"""The commands `data`, which shows how data are understood, and `predict`."""

import argparse
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import ConfigError, DataError
from mlp_tape.runs import resume
from mlp_tape.system import program
from mlp_tape.system.formatting import count
from mlp_tape.tracking.uri import resolve_uri

if TYPE_CHECKING:  # the command line of a run imports this module, too, and nothing large before TensorFlow
    import pandas as pd

    from mlp_tape.data.datasets import Dataset

SHOWN = 30  # classes, and columns of a table


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the two commands to the parser of the command line."""
    command = commands.add_parser("data", help="show how a file or a directory of data is understood")
    command.add_argument("path", metavar="PATH", help="file or directory, or the name of a data set")
    command.add_argument(
        "settings", nargs="*", default=[], metavar="SETTING=VALUE", help="such as dataset.label=digit"
    )
    command.add_argument(
        "--png", type=Path, default=Path("samples.png"), help="file of the images (default: samples.png)"
    )
    add_config_dir(command)
    command = commands.add_parser("predict", help="predict the classes of images, rows of a table, or arrays")
    command.add_argument(
        "run", metavar="RUN", help="MLflow run id, directory of a run, last, or a model: models:/NAME/VERSION"
    )
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="file, or directory of images")
    command.add_argument("--uri", help="MLflow tracking URI, for runs that have no directory here")
    command.add_argument("--csv", type=Path, help="file for all predictions, with probabilities")
    command.add_argument("--submission", type=Path, help="file of ids and classes, as for Kaggle")
    command.add_argument(
        "--columns",
        metavar="ID,CLASS",
        help="names of its columns (default: as in the table, else ImageId,Label)",
    )


def add_config_dir(command: argparse.ArgumentParser) -> None:
    """Adds the option to a command that takes settings."""
    command.add_argument("--config-dir", type=Path, help="directory of your own configs, as for training")


def data(arguments: argparse.Namespace) -> int:
    """Shows how data are understood: shapes, dtypes, ranges, scale, classes, doubts, and sample images."""
    from mlp_tape.cli import composition
    from mlp_tape.data import datasets
    from mlp_tape.reports import prediction_plots, summary

    typed = _dataset(arguments.path)
    settings = composition.settings_of(program.conf(), [*typed, *arguments.settings], arguments.config_dir)
    dataset = datasets.load(**dataclasses.asdict(settings.dataset), say=print)
    for line in [*summary.of_arrays(dataset), *_classes(dataset), *_columns(dataset)]:
        print(line)
    for doubt in (dataset.warning, *dataset.doubts):
        if doubt:
            print(f"doubt  {doubt}")
    if prediction_plots.are_drawn(dataset.x_train):
        from mlp_tape.reports import sample_sheet

        path = arguments.png.absolute()
        try:
            sample_sheet.draw(path, dataset)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}", "type --png FILE") from error
        print(f"images {path}")
    options = [f"--config-dir={arguments.config_dir}"] if arguments.config_dir else []
    print(f"train  {program.train()} {shlex.join([*options, *typed, *arguments.settings])}")
    return 0


def _dataset(path: str) -> list[str]:
    """Returns the overrides that select a file, a directory, a named data set or a function."""
    if not Path(path).expanduser().exists():
        if path.isidentifier():
            return [f"dataset={path}"]
        module, _, function = path.rpartition(".")
        if function.isidentifier() and Path(f"{module.replace('.', '/')}.py").exists():
            return [f"dataset.name={path}"]
    return ["dataset=arrays", f"dataset.path={path}"]


def _classes(dataset: "Dataset") -> Iterator[str]:
    """Yields a table of the classes with the number of rows in each part."""
    import numpy as np

    parts = {"train": dataset.y_train, "validation": dataset.y_validation, "test": dataset.y_test}
    rows = {part: np.bincount(y, minlength=dataset.n_classes) for part, y in parts.items() if len(y)}
    names = list(dataset.class_names[:SHOWN])
    width = max(map(len, [*names, "class"]))
    yield f"{'class':<{width}}" + "".join(f"{part:>12}" for part in rows)
    for k, name in enumerate(names):
        yield f"{name:<{width}}" + "".join(f"{n[k]:>12,}" for n in rows.values())
    if dataset.n_classes > SHOWN:
        yield f"... and {count(dataset.n_classes - SHOWN, 'more class')}"


def _columns(dataset: "Dataset") -> Iterator[str]:
    """Yields a table of the columns of a table with their ranges."""
    x = dataset.x_train
    if x.ndim != 2 or x.shape[1] > SHOWN:
        return
    yield f"{'column':<8}" + "".join(f"{what:>14}" for what in ("min", "max", "mean", "deviation"))
    for k in range(x.shape[1]):
        column = x[:, k].astype(float)
        values = column.min(), column.max(), column.mean(), column.std()
        yield f"{k:<8}" + "".join(f"{value:>14.6g}" for value in values)


def predict_files(arguments: argparse.Namespace) -> int:
    """Prints the class of each image or row, and writes them to files."""
    import pandas as pd

    from mlp_tape.data import inputs
    from mlp_tape.runs import predict

    run = resume.here(arguments.run, "run")
    if run is None and (arguments.run == "last" or Path(arguments.run).exists()):
        raise ConfigError(f"{arguments.run}: no such run below this directory", "type the directory of a run")
    if run is None:
        from mlp_tape.mlflow_backend import logged_model

        uri = resolve_uri(TrackingSettings(uri=arguments.uri))
        predictor = predict.Predictor(logged_model.load(arguments.run, uri))
    else:
        predictor = predict.of_run(run)
    tables, submissions = [], []
    for path in arguments.files:
        found = inputs.read(path, predictor.shape)
        table = predictor.predict(found)
        for text in (*found.remarks, *predictor.doubts(found)):
            print(f"       {text}")
        for line in predict.lines(found, table):
            print(line)
        columns = _pair(arguments.columns)
        submissions.append(predict.submission(found, table, columns))
        table.insert(0, "file", found.names)
        tables.append(table)
    if arguments.csv:
        _write(pd.concat(tables), arguments.csv)
    if arguments.submission:
        if len(submissions) > 1:
            raise ConfigError("a submission is made of one file", "type predict RUN FILE --submission ...")
        _write(submissions[0], arguments.submission)
    return 0


def _pair(typed: str | None) -> tuple[str, str] | None:
    if typed is None:
        return None
    first, sign, second = typed.partition(",")
    if not first or not second or not sign:
        raise ConfigError(f"--columns {typed}: expected two names", "type for example --columns Id,Class")
    return first, second


def _write(table: "pd.DataFrame", path: Path) -> None:
    try:
        table.to_csv(path, index=False)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", "type another file") from error
    print(f"{count(len(table), 'row')} in {path.absolute()}")
