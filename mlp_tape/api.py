"""The Python API: settings, runs, and a training block by block. `import mlp_tape` exports it."""

import atexit
import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_tape.cli import command_line, composition
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, TrackingSettings, defaults_with, flatten, groups
from mlp_tape.data import contents, datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, DataError, DiskError
from mlp_tape.reports import plot_process
from mlp_tape.runs import resume
from mlp_tape.runs.run import execute_run, resolved
from mlp_tape.storage import checkpoint, journal, run_paths, run_record
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.system import program, signals, tensorflow_setup
from mlp_tape.tracking import client_process
from mlp_tape.tracking.uri import resolve_uri

if TYPE_CHECKING:
    from mlp_tape.runs.blocks import Blocks

Given = str | Mapping[str, Any] | DictConfig | Settings


def settings(*given: Given, config_dir: str | Path | None = None) -> Settings:
    """Returns validated settings, composed as on the command line.

    Hydra's own state, if the calling program uses Hydra, is left as it is.

    Args:
        given: overrides, such as `lr=0.1`, `optimizer=adam` or `+experiment=tuned`; and settings as a
            mapping, an OmegaConf config or other settings, of which some may be left out.
        config_dir: directory of one's own configs, such as `experiment/mine.yaml`.

    Raises:
        ConfigError: a setting is unknown or invalid, the directory does not exist, or the run of `resume=`
            cannot be resumed.
    """
    overrides = []
    for each in given:
        if isinstance(each, str):
            overrides.append(each)
        else:
            whole = each if isinstance(each, Settings) else _of_mapping(each)
            overrides += composition.as_overrides(whole)
    own_configs = None if config_dir is None else Path(config_dir)
    found = composition.settings_of(program.conf(), overrides, own_configs)
    if found.resume is None:
        return found
    names = resume.typed_keys(command_line.key(text).partition("@")[0] for text in overrides)
    return _resumed(found, names)


def train(
    settings: Settings,
    x_train: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    x_validation: ArrayLike | None = None,
    y_validation: ArrayLike | None = None,
    directory: str | Path | None = None,
    show: bool = True,
) -> "Run":
    """Trains a network, records it as `python run.py` does, and returns the run.

    Ctrl-C, or the stop button of a notebook, closes the run as KILLED and raises KeyboardInterrupt;
    `settings("resume=last")` resumes it.

    Args:
        settings: settings, as returned by `settings`.
        x_train: images or rows of features [n, ...], instead of those of `settings.dataset`.
        y_train: their labels, [n].
        x_test: like x_train; None to split off `dataset.test_fraction`.
        y_test: their labels.
        x_validation: images for model selection, like x_train.
        y_validation: their labels.
        directory: directory of the run, created if it does not exist; None for a new one in `outputs/`.
        show: whether to print what the program prints; `console.log` in the directory has it in any case.

    Raises:
        MlpTapeError: the settings, the data or the tracking store are not usable, or the loss is not finite.
    """
    arrays = x_train, y_train, x_validation, y_validation, x_test, y_test
    dataset = _of_arrays(settings, *arrays)
    if settings.resume:
        settings = _resumed(settings, [key for key, _ in flatten(settings)])
        place = Path(settings.resume or "")
    else:
        place = Path(directory).absolute() if directory else run_paths.new()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{error.filename}: {error.strerror}", "choose another directory") from error
    command = Command([], composition.as_overrides(settings))
    with client_process.ended_when_idle(), signals.on_interrupt():
        try:
            execute_run(settings, place, command, dataset=dataset, on_screen=show)
        except BaseException:
            run_record.forget(place)
            plot_process.stop()  # it may be waiting for the end of this run
            raise
    return Run(place)


def blocks(
    settings: Settings,
    x_train: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    x_validation: ArrayLike | None = None,
    y_validation: ArrayLike | None = None,
) -> "Blocks":
    """Returns a training to iterate over, block by block. Nothing is tracked or written.

    Args:
        settings: settings, as returned by `settings`.
        x_train: as in `train`, like the other arrays.
        y_train: as in `train`.
        x_test: as in `train`.
        y_test: as in `train`.
        x_validation: as in `train`.
        y_validation: as in `train`.

    Raises:
        MlpTapeError: the settings or the data are not usable.
    """
    arrays = x_train, y_train, x_validation, y_validation, x_test, y_test
    dataset = _of_arrays(settings, *arrays) or datasets.load(**dataclasses.asdict(settings.dataset))
    settings, dataset = resolved(settings, dataset)
    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs import blocks as in_blocks

    return in_blocks.blocks(settings, dataset)


@dataclass(frozen=True)
class Run:
    """A run on this machine, read from its directory.

    Attributes:
        directory: directory of the run.
    """

    directory: Path

    def __post_init__(self) -> None:
        """Reads the record of the run."""
        _ = self._record

    @functools.cached_property
    def _record(self) -> RunRecord:
        return run_record.read(self.directory)

    @property
    def run_id(self) -> str:
        """MLflow run id; empty if the run is not tracked."""
        return self._record.run_id

    @property
    def status(self) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return self._record.status

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, with the name of the data set that was used, without passwords."""
        return resume.recorded(self._record)

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images, 0 to 1."""
        return self._result(TEST_ACCURACY)

    @property
    def loss(self) -> float:
        """The mean loss on the test images."""
        return self._result(TEST_LOSS)

    def _result(self, key: str) -> float:
        if key not in self._record.results:
            raise ConfigError(
                f"the run has no {key}: it is {self.status}", f"resume it: {self._record.resume}"
            )
        return self._record.results[key]

    @functools.cached_property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """The values of each metric in the order of its steps, by its key in MLflow.

        `train/loss` has one for each step, `test/loss` and `test/accuracy` (with validation images,
        `validation/loss` and `validation/accuracy`) one for each epoch.
        """
        return {key: np.array([value for _, value in rows]) for key, rows in self._rows.items()}

    @functools.cached_property
    def steps(self) -> dict[str, NDArray[np.int64]]:
        """The global step of each value in `history`."""
        return {key: np.array([step for step, _ in rows]) for key, rows in self._rows.items()}

    @functools.cached_property
    def _rows(self) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for row in journal.rows_after(self.directory, 0, sys.maxsize)[0]:
            found.setdefault(row.key, []).append((row.step, row.value))
        return found

    @functools.cached_property
    def params(self) -> dict[str, NDArray[np.float32]]:
        """The parameters w1, b1, w2, b2, ..., from the first layer to the last."""
        path = self.directory / run_paths.WEIGHTS
        if path.exists():
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        for found in checkpoint.usable(self.directory / run_paths.CHECKPOINTS, lambda text: None):
            return checkpoint.params(found)
        raise ConfigError(f"{self.directory} has no parameters yet", "train it for at least an epoch")

    def scores(self, x: ArrayLike) -> NDArray[np.float32]:
        """Returns the logits of images [n, ...], with values as in the data, float32 [n, classes].

        Raises:
            DataError: the images are not such as the network was trained on.
            ConfigError: the run has no model.
        """
        scores: NDArray[np.float32] = self._answer(x)[0]
        return scores

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Returns the label of each image of [n, ...], with values as in the data: [n].

        Raises:
            DataError: the images are not such as the network was trained on.
            ConfigError: the run has no model.
        """
        scores, about = self._answer(x)
        labels = np.asarray(about.get("classes", range(scores.shape[1])))
        found: NDArray[Any] = labels[scores.argmax(axis=1)]
        return found

    def _answer(self, x: ArrayLike) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if not (self.directory / run_paths.NETWORK).exists():
            raise ConfigError(
                f"{self.directory} has no model", "train it to the end, with report=light or full"
            )
        tensorflow_setup.import_tensorflow()
        from mlp_tape.reports import saved_model

        module, about = saved_model.load(self.directory)
        images, shape = np.asarray(x), tuple(about["shape"])
        if images.shape[1:] not in (shape, (int(np.prod(shape)),)):
            raise DataError(
                f"the images are of shape {list(images.shape)}", f"use [n, {', '.join(map(str, shape))}]"
            )
        return saved_model.scores(module, images), about


def find(which: str | Path) -> Run:
    """Returns a run on this machine.

    Args:
        which: its directory, its MLflow run id, or `last`, the one started last below the current directory.

    Raises:
        ConfigError: it was not found.
    """
    return Run(resume.find(str(which), resolve_uri(TrackingSettings())))


def replay(run: Run | str | Path, step: int) -> dict[str, NDArray[Any]]:
    """Returns the tensors of a step of a run, which is trained up to it bit by bit.

    Args:
        run: a run, or its directory, its MLflow run id, `runs:/ID`, or `last`. Of a run that has no directory
            on this machine, MLflow has the settings.
        step: global number of the step, from 0.

    Returns:
        `images` and `labels` of the batch, the parameters `w1`, `b1`, ... before the step, and so on, in
        order of computation, as `runs.replay.replay` returns them.

    Raises:
        ConfigError: there is no such run or step.
        DataError: the data of the run were not found.
    """
    from mlp_tape.runs import recorded

    which = str(run.directory if isinstance(run, Run) else run)
    found = next(recorded.find(which, resolve_uri(TrackingSettings())))
    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs import replay as of_step

    trainer = of_step.trainer_of(found, None, lambda text: None)
    return of_step.replay(trainer, found.directory, step)


def _resumed(given: Settings, typed: Iterable[str]) -> Settings:
    """Returns the settings with which to resume the run of `resume=`.

    Args:
        given: settings, with `resume`.
        typed: keys of the settings that are not to be those of the run.
    """
    directory = resume.find(str(given.resume), resolve_uri(given.tracking))
    return resume.settings(directory, given, set(typed))


atexit.register(client_process.stop_all)


def _of_mapping(given: Mapping[str, Any] | DictConfig) -> Settings:
    """Returns settings of which some may be left out; of a group, its option is enough."""
    if not isinstance(given, Mapping | DictConfig):
        raise ConfigError(f"{given!r} are no settings", "pass texts such as 'lr=0.1', or a mapping")
    config = given if isinstance(given, DictConfig) else OmegaConf.create(dict(given))
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0], "give it a value") from error
    values = {
        str(key): {"name": value} if key in groups() and isinstance(value, str) else value
        for key, value in plain.items()
        if key != "hydra"
    }
    config = OmegaConf.create(defaults_with(values))
    config.merge_with(values)
    return validation.parse(config)


def _of_arrays(settings: Settings, *arrays: ArrayLike | None) -> Dataset | None:
    """Returns a data set of the images and labels of each part, in the order of PARTS; None without any."""
    names = [f"{kind}_{part}" for part in contents.PARTS for kind in "xy"]
    given = {name: np.asanyarray(each) for name, each in zip(names, arrays, strict=True) if each is not None}
    if not given:
        return None
    wanted = {"x_train", "y_train"} | {f"{kind}{name[1:]}" for name in given for kind in "xy"}
    if wanted > set(given):
        missing = " and ".join(name for name in names if name in wanted - set(given))
        raise DataError(f"{missing}: there is no such array", "pass images and their labels")
    data = settings.dataset
    return datasets.prepared(
        contents.of_arrays(given),
        scale=data.scale,
        test_fraction=data.test_fraction,
        split_seed=data.split_seed,
    )
