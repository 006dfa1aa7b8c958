"""The record of a run in its directory: identity, settings, progress and outcome, written by training."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import platform
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mlp_tape.config.settings import DEFAULT_EXPERIMENT
from mlp_tape.errors import BrokenFileError, ConfigError
from mlp_tape.storage import delivery_record, liveness, run_paths
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.metric_keys import TEST_ACCURACY, VALIDATION_ACCURACY
from mlp_tape.system import atomic_files, program


class Command(NamedTuple):
    """What was typed after the name of the program, as far as it is part of the command that repeats a run.

    Attributes:
        options: options that select configs, such as `--config-dir=mine`.
        overrides: overrides.
        is_multirun_by_config: whether the configs of a sweep set `hydra.mode` to MULTIRUN, so that the
            command of a job has to set it to RUN.
    """

    options: list[str]
    overrides: list[str]
    is_multirun_by_config: bool = False


_saving = threading.Lock()
ARRAYS = ", x_train, y_train, x_test, y_test"
GONE = "its process no longer exists"


@dataclass
class RunRecord:
    """The content of `run.json`.

    Attributes:
        directory: directory of the run; not in the file.
        kind: `run`, or `sweep` for the run of a sweep itself.
        name: requested name in the MLflow UI; for a job, its swept settings. If empty, MLflow generates one.
        is_named: whether the name of a sweep was given, and not made from what was typed.
        parent: MLflow run id of the sweep; empty if there is none.
        adopts: id of the MLflow run, created by another program, in which the run is recorded; empty if there
            is none.
        settings: all settings, nested, without passwords.
        data_sha256: SHA-256 of the data set.
        data_source: path of the data set, as `Dataset.source`.
        params: MLflow params: settings and data, flat.
        first_params: params as first sent to MLflow, which does not allow changes.
        options: options of the command line that select configs, such as `--config-dir=mine`.
        overrides: overrides as typed on the command line, without passwords.
        program: how the program that created the run was started, as `program.name`.
        is_multirun_by_config: as in `Command`.
        uri: URI of the MLflow store in which the run is to be recorded, without password; empty for a run
            that is not tracked.
        status: RUNNING, FINISHED, FAILED or KILLED.
        reason: why the run did not finish.
        token: random string that identifies the run in MLflow if the response to its creation was lost.
        source: MLflow tags for the source of the code, from the process that created the run.
        made_by: versions and machine of the process that created the run, by name.
        full: whether the run also leaves plots and a model; of a sweep, whether its best job or each does.
        steps: number of steps to train; once the run has finished, number of steps trained.
        results: final test/loss, test/accuracy, test/balanced_accuracy and test/macro_f1, with rare classes
            test/majority_accuracy, and with validation images the same of these, validation/accuracy and so
            on. A pruned job has no results on the test images.
        best_epochs: number of epochs after which the weights were best on the validation images; 0 if there
            are none.
        pruned: number of epochs after which a search ended the job; 0 if it did not.
        tags: tags that MLflow receives when the run ends.
        swept: for a sweep, the settings in which its jobs differ.
        search: for a sweep that is a search, what its jobs have to know of it, as `sweeps.study` defines.
        model_ready: whether the files of the model are complete; only for a run with `full`.
        version: number that increases whenever there is something to deliver to MLflow besides rows.
        created: time at which the run was created, in seconds since the Unix epoch.
        began: time at which the run was last started or resumed, in seconds since the Unix epoch.
        ended: time at which it ended, in seconds since the Unix epoch; 0 while it is running.
        seconds: total training time of all processes, except those that were killed.
        host: name of the machine of the last process.
        pid: id of the last process.
        process: as returned by `liveness.identity` for the last process.
    """

    directory: Path
    kind: str = "run"
    name: str = ""
    is_named: bool = False
    parent: str = ""
    adopts: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    data_sha256: str = ""
    data_source: str = ""
    params: dict[str, str] = field(default_factory=dict)
    first_params: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    program: str = field(default_factory=program.name)
    is_multirun_by_config: bool = False
    uri: str = ""
    status: str = "RUNNING"
    reason: str = ""
    token: str = ""
    source: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    full: bool = True
    steps: int = 0
    results: dict[str, float] = field(default_factory=dict)
    best_epochs: int = 0
    pruned: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    swept: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)
    model_ready: bool = False
    version: int = 0
    created: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    host: str = ""
    pid: int = 0
    process: str = ""

    @functools.cached_property
    def delivery(self) -> DeliveryRecord:
        """What MLflow has received, as of the first access."""
        return delivery_record.read(self.directory)

    @property
    def run_id(self) -> str:
        """MLflow run id; empty if it is not known."""
        return self.delivery.run_id

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return str(self.settings.get("tracking", {}).get("experiment") or DEFAULT_EXPERIMENT)

    @property
    def folder(self) -> str:
        """Directory of a job relative to that of its sweep, such as `3`; for another run, its name."""
        parents = self.directory.parents
        sweep = next((path for path in parents if (path / run_paths.JOBS).exists()), parents[0])
        return str(self.directory.relative_to(sweep))

    @property
    def title(self) -> str:
        """Name in the MLflow UI; the name of the directory if MLflow has none."""
        return self.name or self.delivery.name or self.directory.name

    @property
    def store(self) -> str:
        """URI of the MLflow store that has the run, or is to have it, without password; may be empty."""
        return self.delivery.uri or self.uri

    @property
    def sent(self) -> bool:
        """Whether MLflow has received the whole run, including its status."""
        return self.delivery.version == self.version

    def metric(self, key: str) -> float | None:
        """Returns a metric of a finished run; None if it was not measured.

        Args:
            key: a key of `config.metrics.METRICS`.
        """
        if key == "seconds":
            return self.seconds
        if key == "parameters":
            sizes = json.loads(self.params.get("layer_sizes", "[]"))
            return float(sum((d_in + 1) * d_out for d_in, d_out in itertools.pairwise(sizes)))
        return self.results.get(key)

    def chosen_by(self, key: str | None = None) -> float | None:
        """Returns a metric of a finished run; for None, its validation accuracy, or else test accuracy."""
        if key:
            return self.metric(key)
        return self.results.get(VALIDATION_ACCURACY, self.results.get(TEST_ACCURACY))

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        if self.program == program.API:
            return self._call(*self.overrides)
        multirun = ["-m"] if self.kind == "sweep" else []
        return shlex.join([*program.train(self.program).split(), *multirun, *self.options, *self.overrides])

    @property
    def command_on_all_images(self) -> str:
        """The command that trains with the same settings, without images held out for validation.

        If training ended early, by the validation images, it ends after as many epochs.
        """
        keys: tuple[str, ...] = "validation_fraction=", "sweep.", "stopping.monitor="
        more = ["validation_fraction=0"]
        if self.settings.get("stopping", {}).get("patience") is not None:
            keys += ("stopping.", "epochs=")
            more += ["stopping.patience=null", f"epochs={self.best_epochs}"]
        kept = [text for text in self.overrides if not text.startswith(keys)]
        return dataclasses.replace(self, overrides=kept + more).command

    @property
    def resume(self) -> str:
        """The command that resumes the run."""
        which = self.run_id or str(self.directory)
        if self.program == program.API:
            return self._call(f"resume={which}")
        key = "-m sweep.resume" if self.kind == "sweep" else "resume"
        return f"{program.train(self.program)} {key}={shlex.quote(which)}"

    @property
    def reproduce(self) -> str:
        """The command that repeats the run and compares both; empty if its data were passed as arrays."""
        if self._has_arrays:
            return ""
        return f"{program.tool()} reproduce {shlex.quote(self.run_id or str(self.directory))}"

    @property
    def _has_arrays(self) -> bool:
        data = self.settings.get("dataset", {})
        return data.get("name") == "arrays" and not data.get("path")

    def _call(self, *overrides: str) -> str:
        """The call of the Python API with overrides, and with the arrays that a run was given."""
        arrays = ARRAYS if self._has_arrays else ""
        return f"{program.API}(mlp_tape.settings({', '.join(map(repr, overrides))}){arrays})"

    @property
    def sync(self) -> str:
        """The command that sends what MLflow is missing."""
        return f"{program.tool()} sync {shlex.quote(str(self.directory))}"

    def mark_started(self) -> None:
        """Records that this process is running the run; does not save the file."""
        self.status, self.reason, self.ended, self.model_ready = "RUNNING", "", 0.0, False
        self.version += 1
        self.began, self.host, self.pid = time.time(), platform.node(), os.getpid()
        self.process = liveness.identity()
        self.created = self.created or self.began
        self.first_params = self.params | self.first_params

    @property
    def owner_tags(self) -> dict[str, str]:
        """The MLflow tags from which it can be determined whether the run's process still exists."""
        tags = {"host": self.host, "pid": str(self.pid), "directory": str(self.directory)}
        return tags | {"process": self.process, "heartbeat": liveness.heartbeat(self.began)}

    @property
    def owner(self) -> liveness.Owner:
        """The last process."""
        return liveness.Owner(self.host, self.pid, self.process)

    @property
    def has_diverged(self) -> bool:
        """Whether the run failed because its loss was not finite, so that it would fail again."""
        return self.status == "FAILED" and self.reason.startswith("DivergenceError")

    @property
    def is_alive(self) -> bool:
        """Whether the process of the run exists, as far as this machine can tell."""
        return self.owner.is_alive(self.directory)

    def mark_ended(self, status: str, reason: str) -> None:
        """Records status, reason and the current time as the end of the run, and saves the file."""
        self.status, self.reason, self.ended = status, reason, time.time()
        self.version += 1
        self.save()

    def save(self) -> None:
        """Writes `run.json`; several threads may call it."""
        with _saving:
            values = dataclasses.asdict(self)
            del values["directory"]
            atomic_files.write_text(self.directory / run_paths.RECORD, json.dumps(values, indent=1))


def read(directory: Path) -> RunRecord:
    """Reads the record of a run.

    Raises:
        ConfigError: the directory contains no record.
        BrokenFileError: the record is damaged.
    """
    path = directory / run_paths.RECORD
    try:
        values = json.loads(path.read_bytes())
        known = {each.name for each in dataclasses.fields(RunRecord)}
        return RunRecord(directory, **{key: value for key, value in values.items() if key in known})
    except FileNotFoundError as error:
        raise ConfigError(
            f"{directory} is not the directory of a run", "specify a directory such as outputs/*/*"
        ) from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise BrokenFileError(f"{path} is damaged", "start a new run") from error


def read_abandoned(directory: Path) -> RunRecord:
    """Returns the record of a run whose process no longer exists, with status KILLED if it was RUNNING."""
    try:
        found = read(directory)
    except (ConfigError, BrokenFileError):
        found = RunRecord(directory)
    if found.status == "RUNNING":
        rows = directory / run_paths.JOURNAL
        found.status, found.reason, found.version = "KILLED", GONE, found.version + 1
        found.ended = rows.stat().st_mtime if rows.exists() else time.time()
    return found


def close_abandoned(directory: Path) -> RunRecord:
    """Returns what `read_abandoned` returns, and saves it; the lock of the run must be held."""
    found = read_abandoned(directory)
    if found.reason == GONE:
        found.save()
    return found


def directories(parent: Path) -> Iterator[Path]:
    """Yields the directories of all runs in `parent` and below."""
    for path in sorted(parent.glob(f"**/{run_paths.RECORD}")):
        yield path.parent


def forget(directory: Path) -> None:
    """Removes the lock and the empty journal of a run that failed before it began.

    If the run is in the program's default location, its directory, the directory of the day and `outputs`
    are also removed if they are empty.
    """
    if (directory / run_paths.RECORD).exists():
        return
    with contextlib.suppress(OSError):  # a directory is not empty
        for name in (run_paths.LOCK, run_paths.JOURNAL):
            if (directory / name).exists() and not (directory / name).stat().st_size:
                (directory / name).unlink()
        day, outputs = directory.parents[:2]
        if outputs.name == "outputs":
            for each in (directory, day, outputs):
                each.rmdir()
