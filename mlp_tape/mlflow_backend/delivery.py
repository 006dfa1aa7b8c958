"""Delivery of a run's directory to MLflow: whatever the directory has and MLflow has not."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlp_tape.mlflow_backend import store  # first: it sets what MLflow reads when it is imported
from mlp_tape.storage import run_paths
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import ui_views
from mlp_tape.reports import description
from mlp_tape.storage import journal, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import check_reachable, incomplete_error

BATCH = 1_000  # maximum number of rows that MLflow accepts in a request
PATIENCE = 30.0  # seconds without a response after which `deliver_all` gives up
PAUSE = 1.0  # seconds between two attempts
AT_BEGIN = (run_paths.SETTINGS, run_paths.ENVIRONMENT)
AT_END = (run_paths.WEIGHTS, run_paths.SWEEP_TABLE, run_paths.SWEEP_SEEDS, run_paths.SWEEP_PAGE)
RESULTS = (TEST_LOSS, TEST_ACCURACY)  # metrics of the model, too

Artifact = tuple[Path, str | None]  # a file, and its directory among the artifacts

# Steps of a delivery
OPENED, BEGUN, ROWS, ENDED = "opened", "begun", "rows", "ended"


def deliver(directory: Path, uri: str, uploaded: set[Artifact] | None = None) -> Iterator[str]:
    """Delivers what the directory of a run has and MLflow has not; idempotent.

    Creates the MLflow run or opens it again, sends params, tags, rows, model and artifacts and, if the run
    has ended, its status. The caller may stop after any step, after an exception too, and call it again.

    Args:
        directory: directory of the run, which its process may be writing to.
        uri: URI of the MLflow store.
        uploaded: artifacts that an earlier attempt has uploaded; extended in place.

    Yields:
        The name of each step that is done.

    Raises:
        TrackingError: the store cannot be opened, or does not have the run any more.
        MlflowException: the store did not accept a request.
    """
    record = run_record.read(directory)
    if record.sent:
        return
    delivery = _Delivery(record, uri, uploaded if uploaded is not None else set())
    yield from delivery.steps()


def deliver_all(directory: Path, uri: str) -> None:
    """Delivers the directory of a run that has ended; tries again where that fails.

    Raises:
        TrackingError: the store cannot be opened, or did not accept everything.
    """
    check_reachable(uri)
    uploaded, answered = set[Artifact](), time.monotonic()
    while True:
        try:
            for _ in deliver(directory, uri, uploaded):
                answered = time.monotonic()
            return
        except TrackingError:
            raise
        except Exception as error:
            if time.monotonic() - answered > PATIENCE:
                state = run_record.read(directory).delivery
                rows = journal.count_after(directory, state.position)
                raise incomplete_error(uri, rows, store.why(error)) from error
        time.sleep(PAUSE)


@dataclass
class _Delivery:
    """One attempt to deliver a run.

    Attributes:
        record: record of the run, as of the beginning of the attempt.
        uri: URI of the MLflow store.
        uploaded: artifacts that were uploaded; extended in place.
        client: client of the store.
    """

    record: RunRecord
    uri: str
    uploaded: set[Artifact]
    client: MlflowClient = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.record.delivery

    def steps(self) -> Iterator[str]:
        record, state = self.record, self.state
        run = None
        if not state.run_id or state.began != record.began or state.uri != without_password(self.uri):
            known = state.run_id
            run = self._open()
            if not known:
                yield OPENED
        else:
            self.client = MlflowClient(self.uri)
        if record.status == "KILLED":  # somebody is waiting: the status first
            self._end()
            yield "status"
        if run and state.began != record.began:
            self._begin(run)
            yield BEGUN
        while self._send_rows():
            yield ROWS
        if self._model_is_wanted():
            self._log_model()
            yield "model"
        if record.status == "RUNNING":
            return
        for artifact in self._artifacts():
            if artifact not in self.uploaded:
                self.client.log_artifact(state.run_id, str(artifact[0]), artifact[1])
                self.uploaded.add(artifact)
                yield "artifact"
        self._delete_twins()
        if not record.parent and record.status != "KILLED":  # a stopped run has no time
            state.view = ui_views.share(self.client, record)
        self._end()
        state.version = record.version
        state.save(record.directory)
        yield ENDED

    def _open(self) -> Run:
        """Creates the MLflow run, or finds the one that was created."""
        run = store.ask(self.uri, self._find_or_create)
        if run is None:
            raise TrackingError(
                without_password(f"MLflow at {self.uri} has no run {self.state.run_id}"),
                "type the tracking.uri=... that has it, or tracking.enabled=false",
            )
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackingError(
                f"the run {run.info.run_id} was deleted", f"mlflow runs restore --run-id {run.info.run_id}"
            )
        self.client, state = MlflowClient(self.uri), self.state
        state.uri, state.run_id = without_password(self.uri), run.info.run_id
        state.experiment_id, state.name = run.info.experiment_id, str(run.info.run_name or "")
        state.save(self.record.directory)
        return run

    def _find_or_create(self, client: MlflowClient) -> Run | None:
        """Returns the run; None if it has an id that the store does not know."""
        if self.state.run_id:
            return store.run_of(client, self.state.run_id)
        experiment_id = store.experiment_id(client, self.record.settings["tracking"]["experiment"])
        found = store.runs_of(client, experiment_id, self.record)
        if found:
            return found[0]
        try:
            return store.create_run(client, experiment_id, self.record)
        except Exception:  # it may have been created all the same
            found = store.runs_of(client, experiment_id, self.record)
            if not found:
                raise
            return found[0]

    def _begin(self, run: Run) -> None:
        """Sends what is known before the first step."""
        record, there, run_id = self.record, run.data, run.info.run_id
        if record.data_sha256 and not (run.inputs and run.inputs.dataset_inputs):
            context = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
            dataset = DatasetInput(Dataset(**description.dataset(record)), context)
            self.client.log_inputs(run_id, [dataset])
        params = record.first_params or record.params
        new = {key: value for key, value in params.items() if key not in there.params}
        tags = record.process | {"command": record.command} | description.tags(record)
        self.client.log_batch(
            run_id,
            params=[Param(key, value) for key, value in new.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        if record.status == "RUNNING":
            if run.info.status != "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            if "reason" in there.tags:
                with contextlib.suppress(MlflowException):  # an earlier attempt has deleted it
                    self.client.delete_tag(run_id, "reason")
        for path in map(record.directory.joinpath, AT_BEGIN):
            if path.exists():  # the run may have been stopped before it wrote them
                self.client.log_artifact(run_id, str(path))
        self.state.began = record.began
        self.state.save(record.directory)

    def _send_rows(self) -> bool:
        """Sends one batch of rows; returns whether there were any."""
        directory, state = self.record.directory, self.state
        rows, position = journal.rows_after(directory, state.position, BATCH)
        if rows:
            metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
            self.client.log_batch(state.run_id, metrics=metrics)
        if position != state.position:
            state.position = position
            state.save(directory)
        return bool(rows)

    def _model_is_wanted(self) -> bool:
        record = self.record
        if not (record.kind == "run" and record.full and (record.directory / run_paths.WEIGHTS).exists()):
            return False
        return record.model_ready or record.status == "FINISHED"

    def _log_model(self) -> None:
        from mlp_tape.mlflow_backend import logged_model

        directory, state = self.record.directory, self.state
        results = [row for key in RESULTS for row in deque(journal.rows(directory, key), maxlen=1)]
        step = results[-1].step if results else 0
        name = self.record.settings.get("tracking", {}).get("register_as") or ""
        others = [each for each in state.models if each["step"] != step]
        if not any(each["step"] == step and each["name"] == name for each in state.models):
            model = logged_model.log(self.client, state, directory, results, name)
            state.models = [*others, model]
            state.save(directory)

    def _artifacts(self) -> list[Artifact]:
        """Returns the files to upload of a run that has ended."""
        directory = self.record.directory
        console: list[Artifact] = [(path, None) for path in directory.glob(run_paths.CONSOLE)]
        if self.record.status != "FINISHED" and self.record.kind == "run":
            steps = sorted(directory.glob("divergence/step-*"))
            return [*((path, "divergence") for path in steps), *console]
        plots: list[Artifact] = [(path, "plots") for path in sorted(directory.glob("plots/*.png"))]
        model = [
            (path, str(path.parent.relative_to(directory)))
            for path in sorted(directory.glob("saved_model/**/*"))
            if path.is_file()
        ]
        others = [(path, None) for path in map(directory.joinpath, AT_END) if path.exists()]
        return [*plots, *model, *others, *console]

    def _end(self) -> None:
        """Sets the status and the tags of a run that has ended."""
        store.end(self.client, self.state.run_id, self.record)

    def _delete_twins(self) -> None:
        """Deletes runs that a server created late, for a request whose response was lost.

        In a SQLite database, which this process writes to itself, a request is over when it returns.
        """
        if not self.record.token or self.uri.startswith("sqlite:"):
            return
        for run in store.runs_of(self.client, self.state.experiment_id, self.record):
            if run.info.run_id != self.state.run_id:
                self.client.delete_run(run.info.run_id)
