"""What is recorded of a run, in its directory and in MLflow, such that it can be done again."""

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_tape.config.settings import Settings, flatten
from mlp_tape.errors import BrokenFileError, ConfigError, MlpTapeError
from mlp_tape.runs import resume
from mlp_tape.runs.evidence import MEASURED, Evidence
from mlp_tape.storage import checksums, journal, run_paths, run_record
from mlp_tape.storage.journal import Row
from mlp_tape.storage.metric_keys import TRAIN_LOSS
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import provenance
from mlp_tape.system.provenance import Environment
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import may_exist

Weights = dict[str, NDArray[Any]]
FILES = (
    run_paths.SETTINGS,
    run_paths.ENVIRONMENT,
    run_paths.CHANGES,
    run_paths.CHECKSUMS,
    run_paths.WEIGHTS,
    run_paths.CONSOLE,
    run_paths.BY_CLASS,
)
MLFLOW, DIRECTORY = "MLflow", "the directory"


@dataclass(frozen=True)
class Recorded:
    """A run as it is recorded.

    Attributes:
        name: its name.
        run_id: MLflow run id; empty if it is not tracked.
        uri: URI of the store that has it; empty if there is none.
        experiment: name of the experiment.
        directory: its directory, if it is on this machine.
        status: FINISHED, FAILED, KILLED or RUNNING.
        settings: its settings.
        data_sha256: SHA-256 of its data.
        data_source: where the data were, an absolute path; may be empty.
        environment: in what it was trained.
        changes: changes to the code since the commit, a diff; may be empty.
        evidence: its rows and checksums, of each place.
        weights: the final parameters, by place.
        problems: what is missing or contradicts itself, a line each.
    """

    name: str
    run_id: str
    uri: str
    experiment: str
    directory: Path | None
    status: str
    settings: Settings
    data_sha256: str
    data_source: str
    environment: Environment
    changes: str
    evidence: list[Evidence]
    weights: dict[str, Weights] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The number of steps that were trained, as far as all places know."""
        losses = [each.rows.get(TRAIN_LOSS, {}) for each in self.evidence]
        return max((max(rows) + 1 for rows in losses if rows), default=0)

    def epochs(self, steps_per_epoch: int) -> int:
        """The number of epochs that were begun."""
        return math.ceil(self.steps / steps_per_epoch)


def find(which: str, uri: str) -> Iterator[Recorded]:
    """Yields a run, or the jobs of a sweep, as they are recorded.

    Args:
        which: MLflow run id, `runs:/ID`, directory, or `last`.
        uri: URI of the MLflow store, for runs that have no directory here.

    Raises:
        ConfigError: there is no such run, or its settings are not recorded.
    """
    which = which.removeprefix("runs:/").strip("/") if which.startswith("runs:/") else which
    here = resume.here(which)
    if here:
        runs = [here] if here.kind == "run" else _jobs(here)
        for run in runs:
            yield _of_directory(run)
        return
    ids: list[str] = []
    if may_exist(uri):
        from mlp_tape.mlflow_backend import recorded_runs  # imports MLflow

        ids = recorded_runs.ids(uri, which)
    if not ids:
        raise ConfigError(
            f"no run {which} below {Path.cwd()}, nor in MLflow at {without_password(uri)}",
            "type its directory, or its id and --uri URI",
        )
    for run_id in ids:
        yield _of_mlflow(uri, run_id)


def _jobs(sweep: RunRecord) -> list[RunRecord]:
    return [
        run_record.read(path) for path in run_record.directories(sweep.directory) if path != sweep.directory
    ]


def _of_directory(run: RunRecord) -> Recorded:
    """Returns a run from its directory, together with what MLflow has of it, if it can be reached."""
    files = _Files(run.directory)
    rows = journal.rows_after(run.directory, 0, 10**12)[0]
    evidence, conflicts = _evidence(DIRECTORY, rows, files, run.status == "FINISHED")
    settings = resume.recorded(run)
    found = Recorded(
        name=run.title,
        run_id=run.run_id,
        uri=run.store,
        experiment=run.experiment,
        directory=run.directory,
        status=run.status,
        settings=settings,
        data_sha256=run.data_sha256,
        data_source=run.data_source,
        environment=files.environment.with_facts(
            {key: value for key, value in run.made_by.items() if key != "tensorflow"}
        ),
        changes=files.changes,
        evidence=[evidence],
        weights={DIRECTORY: files.weights} if files.weights else {},
        problems=[
            f"{DIRECTORY}: {each}"
            for each in (*conflicts, *files.problems(settings, run.status, bool(run.pruned)))
        ],
    )
    if not run.run_id or not may_exist(run.store):
        return found
    try:
        in_mlflow = _of_mlflow(run.store, run.run_id)
    except MlpTapeError as error:
        return dataclasses.replace(found, problems=[*found.problems, f"{MLFLOW}: {error.what}"])
    return dataclasses.replace(
        found,
        evidence=[*found.evidence, *in_mlflow.evidence],
        weights=found.weights | in_mlflow.weights,
        problems=[*found.problems, *in_mlflow.problems],
    )


def _of_mlflow(uri: str, run_id: str) -> Recorded:
    """Returns a run of which nothing is used but what MLflow has.

    Raises:
        ConfigError: its settings are not recorded.
    """
    from mlp_tape.mlflow_backend import recorded_runs

    with tempfile.TemporaryDirectory() as name:
        kept = recorded_runs.read(uri, run_id, list(FILES), Path(name))
        files = _Files(Path(name))
        evidence, conflicts = _evidence(MLFLOW, kept.rows, files, kept.status == "FINISHED")
        settings = files.settings(run_id)
        weights = {MLFLOW: files.weights} if files.weights else {}
        problems = [*conflicts, *files.problems(settings, kept.status, "pruned" in kept.tags, kept.artifacts)]
        environment, changes = files.environment, files.changes
    params = {key: kept.tags.get(key, value) for key, value in kept.params.items()}
    for key, value in flatten(settings):
        if key in params and not key.startswith("tracking.") and params[key] != str(value):
            problems.append(f"the param {key} is {params[key]}, but {run_paths.SETTINGS} has {value}")
    return Recorded(
        name=kept.name,
        run_id=run_id,
        uri=uri,
        experiment=kept.experiment,
        directory=None,
        status=kept.status,
        settings=settings,
        data_sha256=params.get("data_sha256", ""),
        data_source=kept.data_source,
        environment=environment.with_facts({"commit": kept.tags.get("mlflow.source.git.commit", "")}),
        changes=changes,
        evidence=[evidence],
        weights=weights,
        problems=[f"{MLFLOW}: {each}" for each in problems],
    )


def _evidence(
    place: str, rows: Iterable[Row], files: "_Files", is_complete: bool
) -> tuple[Evidence, list[str]]:
    """Returns the evidence of a place, and which of its rows contradict each other."""
    found: dict[str, dict[int, float]] = {}
    conflicts = []
    for row in rows:
        if not row.key.startswith(MEASURED):  # such as the load of the machine
            continue
        of_key = found.setdefault(row.key, {})
        if of_key.get(row.step, row.value) != row.value:
            conflicts.append(
                f"{row.key} has two values at step {row.step}: {of_key[row.step]!r}, {row.value!r}"
            )
        of_key[row.step] = row.value
    return Evidence(
        place, found, checksums.read(files.directory / run_paths.CHECKSUMS), is_complete
    ), conflicts


@dataclass(frozen=True)
class _Files:
    """The files of a run, in its directory or as copies."""

    directory: Path

    def _text(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def environment(self) -> Environment:
        return provenance.from_text(self._text(run_paths.ENVIRONMENT))

    @property
    def changes(self) -> str:
        return self._text(run_paths.CHANGES)

    @property
    def weights(self) -> Weights:
        """The final parameters; empty if there are none, or the file is damaged."""
        try:
            with np.load(self.directory / run_paths.WEIGHTS, allow_pickle=False) as archive:
                return dict(archive)
        except Exception:  # of the file system, of zip archives, or of NumPy
            return {}

    def settings(self, run_id: str) -> Settings:
        """Returns the settings of `config.yaml`."""
        text = self._text(run_paths.SETTINGS)
        if not text:
            raise ConfigError(
                f"MLflow has no {run_paths.SETTINGS} of the run {run_id}, so its settings are not known",
                "type its directory instead of its id",
            )
        try:
            return resume.of_values(OmegaConf.to_container(OmegaConf.create(text)))  # type: ignore[arg-type]
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            raise BrokenFileError(
                f"{run_paths.SETTINGS} of the run {run_id} is damaged: {error}",
                "type its directory instead of its id",
            ) from error

    def problems(
        self, settings: Settings, status: str, is_pruned: bool, artifacts: Iterable[str] | None = None
    ) -> list[str]:
        """Returns which files are missing or damaged.

        Args:
            settings: settings of the run.
            status: its status.
            is_pruned: whether a search ended it early, so that there is no report.
            artifacts: names of the artifacts; None for a directory.
        """
        present = {path.name for path in self.directory.iterdir()} if artifacts is None else set(artifacts)
        wanted = [run_paths.SETTINGS, run_paths.ENVIRONMENT]
        if status == "FINISHED" and settings.report != "none" and not is_pruned:
            wanted += [run_paths.WEIGHTS, run_paths.BY_CLASS]
            wanted += [run_paths.CONSOLE] if artifacts is not None else []
        if "instructions" in self.environment.facts and status == "FINISHED":
            wanted.append(run_paths.CHECKSUMS)  # which earlier versions did not record
        if "uncommitted changes" in self.environment.facts:
            wanted.append(run_paths.CHANGES)
        missing = [f"{name} is missing" for name in wanted if name not in present]
        if run_paths.WEIGHTS in present and not self.weights:
            missing.append(f"{run_paths.WEIGHTS} is damaged")
        return missing
