"""The directory of a sweep, which records its jobs, its data sets, and a request to stop."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from mlp_tape.config.metrics import MONITOR
from mlp_tape.config.settings import DatasetSettings, Settings, job_identity
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import BrokenFileError, ConfigError, DataError
from mlp_tape.storage import run_paths, run_record
from mlp_tape.storage.metric_keys import TEST_ACCURACY, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import atomic_files

Say = Callable[[str], None]


class SweepDirectory:
    """State shared by the processes of a sweep, on one or several machines, through files in its directory.

    `jobs.json` maps the identity of each job to the name of its directory. `data.json` maps dataset settings
    to the data set that was loaded, and to the fraction of it that is held out for validation. `stop`, if it
    exists, contains the reason to stop all jobs.

    Args:
        directory: directory of the sweep, absolute; must exist.

    Attributes:
        directory: directory of the sweep.
        stop_file: path of `stop`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stop_file = directory / run_paths.STOP
        self._lock = filelock.FileLock(directory / run_paths.SWEEP_LOCK)
        self._seen: dict[Path, tuple[tuple[int, int], RunRecord]] = {}

    def dataset(self, settings: DatasetSettings, say: Say = lambda line: None) -> Dataset:
        """Loads a data set, the same one for every job with these settings.

        The first call in a sweep decides which data set is used if MNIST is not available. A process keeps
        the loaded data in memory.

        Args:
            settings: settings of the data set.
            say: called with a message before a download.

        Raises:
            DataError: the data are not available or not usable, or have changed since the sweep began.
        """
        choice = _choice(settings)
        with self._lock:
            decided = self._read(run_paths.DATA)
            if choice not in decided:
                found = _load(settings, say)
                decided[choice] = {"name": found.name, "sha256": found.sha256}
                self._write(run_paths.DATA, decided)
                return found
        name, sha256 = decided[choice]["name"], decided[choice]["sha256"]
        found = _load(dataclasses.replace(settings, name=name), say)
        if found.sha256 != sha256:
            raise DataError(
                f"the data of {name} have changed since the sweep began: "
                f"SHA-256 {found.sha256[:12]}..., expected {sha256[:12]}...",
                "restore the original data, or start a new sweep",
            )
        return found

    def hold_out(self, settings: DatasetSettings, dataset: Dataset, fraction: float) -> None:
        """Decides which fraction of the training images the jobs hold out if their settings do not say it.

        Has no effect if that was decided before; without effect on data with validation images of their own.

        Args:
            settings: settings of the data set.
            dataset: the data set, as loaded by `dataset`.
            fraction: the fraction, in [0, 1).
        """
        has_own = len(dataset.y_validation) > 0
        held_out = {"validation_fraction": 0.0 if has_own else fraction, "has_own_validation": has_own}
        with self._lock:
            decided = self._read(run_paths.DATA)
            decided[_choice(settings)] = held_out | decided[_choice(settings)]
            self._write(run_paths.DATA, decided)

    def resolved(self, settings: Settings) -> Settings:
        """Returns the settings of a job with the fraction and the metrics that were decided for the sweep."""
        decided = self._read(run_paths.DATA).get(_choice(settings.dataset), {})
        fraction = settings.validation_fraction
        if fraction is None:
            fraction = decided.get("validation_fraction", 0.0)
        validates = fraction or decided.get("has_own_validation")
        metric = settings.sweep.choose_by or (VALIDATION_ACCURACY if validates else TEST_ACCURACY)
        sweep = dataclasses.replace(settings.sweep, choose_by=metric)
        monitored = (key.split("/") for key in (*sweep.objectives, metric) if key.startswith("validation/"))
        monitor = next((name for _, name in monitored), MONITOR)
        stopping = settings.stopping
        if stopping.monitor is None and monitor != MONITOR:
            stopping = dataclasses.replace(stopping, monitor=monitor)
        return dataclasses.replace(settings, validation_fraction=fraction, sweep=sweep, stopping=stopping)

    def identity(self, settings: Settings) -> str:
        """Returns the identity of a job, with the data set that is actually used, if it has been loaded."""
        decided = self._read(run_paths.DATA).get(_choice(settings.dataset))
        if decided is None:
            return job_identity(settings, settings.dataset.path or "")
        named = dataclasses.replace(settings.dataset, name=decided["name"])
        return job_identity(dataclasses.replace(settings, dataset=named), decided["sha256"])

    def claim(self, settings: Settings, number: int, folder: str = ".") -> Path:
        """Returns the directory of a job: the one it already has, or a new one, which is created.

        Args:
            settings: settings of the job.
            number: number of the job in this command, the preferred name of a new directory.
            folder: name of a new directory; `.` for a number.

        Raises:
            ConfigError: another job has the directory `folder`.
        """
        with self._lock:
            identity, jobs = self.identity(settings), self._read(run_paths.JOBS)
            if identity not in jobs:
                unloaded = job_identity(settings, settings.dataset.path or "")
                known = jobs.pop(unloaded, None)  # claimed before its data were loaded
                jobs[identity] = known or _free_name(set(jobs.values()), number, folder)
                self._write(run_paths.JOBS, jobs)
            directory = self.directory / str(jobs[identity])
            directory.mkdir(parents=True, exist_ok=True)
        return directory

    def name(self, settings: Settings) -> str:
        """Returns the name of the directory of a job; its identity if it has none yet."""
        identity = self.identity(settings)
        return str(self._read(run_paths.JOBS).get(identity, identity))

    def checksums(self) -> set[str]:
        """Returns the SHA-256 of each data set that a job of the sweep may have used."""
        return {decided["sha256"] for decided in self._read(run_paths.DATA).values()}

    def checksum(self, settings: DatasetSettings, say: Say = lambda line: None) -> str:
        """Returns the SHA-256 of a data set, as `dataset` would load it."""
        decided = self._read(run_paths.DATA).get(_choice(settings))
        return str(decided["sha256"]) if decided else _load(settings, say).sha256

    def jobs(self) -> list[RunRecord]:
        """Returns the record of each job that has begun, ordered by number."""
        found = []
        for name in sorted(self._read(run_paths.JOBS).values(), key=lambda name: (len(name), name)):
            try:
                found.append(self._record(self.directory / name))
            except (BrokenFileError, ConfigError):  # reported when the job is resumed
                continue
        return found

    def _record(self, directory: Path) -> RunRecord:
        """Returns the record of a job; reads the file only if it has changed, as there may be many jobs."""
        try:
            stat = (directory / run_paths.RECORD).stat()
        except OSError:
            return run_record.read(directory)  # raises the appropriate error
        which, seen = (stat.st_ino, stat.st_mtime_ns), self._seen.get(directory)
        if seen is None or seen[0] != which:
            seen = self._seen[directory] = which, run_record.read(directory)
        return copy.copy(seen[1])

    def request_stop(self, why: str) -> None:
        """Stops running jobs, each after its current block of steps, and prevents others from starting.

        Has no effect if a stop has already been requested.
        """
        if not self.stop_file.exists():
            atomic_files.write(self.stop_file, why.encode())

    def _read(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        try:
            return dict(json.loads(path.read_bytes())) if path.exists() else {}
        except (ValueError, TypeError) as error:
            raise BrokenFileError(f"{path} is damaged", "start a new sweep") from error

    def _write(self, name: str, content: dict[str, Any]) -> None:
        atomic_files.write(self.directory / name, json.dumps(content, indent=1).encode())


def _choice(settings: DatasetSettings) -> str:
    """Returns the key in `data.json` of the settings of a data set."""
    return json.dumps(dataclasses.asdict(settings), sort_keys=True)


def _free_name(taken: set[str], number: int, folder: str) -> str:
    """Returns the name of a new directory: `folder`, or a number that no other job has."""
    if folder not in (".", str(number)):
        if folder in taken:
            raise ConfigError(
                f"hydra.sweep.subdir: the directory {folder} belongs to another job",
                "leave it out, or include what is swept, such as ${hydra.job.override_dirname}",
            )
        return folder
    return next(str(each) for each in [number, *range(len(taken) + 1)] if str(each) not in taken)


_loaded: dict[str, Dataset] = {}


def _load(settings: DatasetSettings, say: Say) -> Dataset:
    """Loads a data set and keeps it in memory for the next job of this process."""
    key = _choice(settings)
    if key not in _loaded:
        while len(_loaded) > 1:  # at most two, for a sweep over data sets
            del _loaded[next(iter(_loaded))]
        _loaded[key] = datasets.load(**dataclasses.asdict(settings), say=say)
    return _loaded[key]
