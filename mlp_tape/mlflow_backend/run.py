"""The run in MLflow: opened or gone on with, fed from the journal, and closed with its true status."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable
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
from mlp_tape.mlflow_backend.delivery import Delivery, Job
from mlp_tape.reports import description
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.tracker import Show
from mlp_tape.tracking.uri import run_link

GIVEN = (run_paths.SETTINGS, run_paths.ENVIRONMENT)  # before the first step
LEFT = (run_paths.WEIGHTS, run_paths.SWEEP_TABLE, run_paths.SWEEP_PAGE)  # by a run, and by a sweep
RESULTS = (TEST_LOSS, TEST_ACCURACY)  # are the model's, too


class MlflowRun:
    """One run in an MLflow store.

    It is opened by `open`, or else by the thread that delivers, which tries until it can.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        record: of the run: one with a `run_id` is taken up again, and one with a `uri` alone is looked for.
        journal: whose rows are delivered.
        opened: told once the thread has opened it.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        record: RunRecord,
        journal: Journal,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._opened = opened
        self.uri, self._experiment, self._record, self._journal = uri, experiment, record, journal
        self._run: Run | None = None
        self._may_be_there, self._model_given = bool(record.uri), False
        record.uri = without_password(uri)
        self._delivery = Delivery(journal, self._send, awaited=not record.parent)

    def open(self) -> None:
        """Makes the run, or takes it up again, and notes its id in the record.

        Raises:
            TrackingError: the store cannot be opened, or does not have the run any more.
        """
        run = store.ask(self.uri, self._find_or_create)
        if run is None:
            raise TrackingError(
                without_password(f"MLflow at {self.uri} has no run {self._record.run_id}"),
                "type the tracking.uri=... that has it, or tracking.enabled=false",
            )
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackingError(
                f"the run {run.info.run_id} was deleted", f"mlflow runs restore --run-id {run.info.run_id}"
            )
        self._client, self._run, self._record.run_id = MlflowClient(self.uri), run, run.info.run_id
        self._record.name = self._record.name or str(run.info.run_name or "")

    def _find_or_create(self, client: MlflowClient) -> Run | None:
        """The run; None where it has an id that the store does not know."""
        if self._record.run_id:
            return store.run_of(client, self._record.run_id)
        experiment_id = store.experiment_id(client, self._experiment)
        found = self._created_before(client, experiment_id) if self._may_be_there else []
        self._may_be_there = True  # from here on: a creation that is reported as failed may have succeeded
        if found:
            return found[0]
        try:
            return store.create_run(client, experiment_id, self._record)
        except Exception:
            found = self._created_before(client, experiment_id)
            if not found:
                raise
            return found[0]

    def _created_before(self, client: MlflowClient, experiment_id: str) -> list[Run]:
        """The runs that were created for this record, by whichever process or attempt; the first one first.

        A record of an earlier version has no token. Its run is known by the directory and the time: one that
        MLflow holds as FINISHED may be another's, which had the same directory before.
        """
        if self._record.token:
            return store.runs_with(client, experiment_id, store.TOKEN, self._record.token)
        began = store.milliseconds(self._record.began)
        found = store.runs_with(client, experiment_id, "directory", str(self._record.directory))
        return [run for run in found if run.info.status != "FINISHED" or run.info.start_time == began]

    @property
    def link(self) -> str:
        """As `Tracker.link`; nothing before it is opened."""
        return run_link(self.uri, self._run.info.experiment_id, self._record.run_id) if self._run else ""

    @property
    def overview(self) -> str:
        """As `Tracker.overview`; nothing before it is opened."""
        return self.link.replace("/model-metrics", "")

    def begin(self) -> None:
        """As `Tracker.begin`; a new run, whose store has just answered, is told by the thread."""
        if self._run and self._run.data.params:
            store.ask(self.uri, lambda client: self._begin())
            self._delivery.start()
        else:
            self._delivery.start(*self._to_begin())

    def _to_begin(self) -> list[Job]:
        return [self._begin] if self._run else [self.open, self._opened, self._begin]

    def _begin(self) -> None:
        assert self._run
        record, there = self._record, self._run.data
        if record.data_sha256 and not (self._run.inputs and self._run.inputs.dataset_inputs):
            given = DatasetInput(
                Dataset(**description.dataset(record)), [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
            )
            self._client.log_inputs(record.run_id, [given])
        params = record.first_params or record.params
        new = {key: value for key, value in params.items() if key not in there.params}
        tags = record.process | {"command": record.command} | description.tags(record)
        self._client.log_batch(
            record.run_id,
            params=[Param(key, value) for key, value in new.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        if self._run.info.status != "RUNNING":
            self._client.update_run(record.run_id, status="RUNNING")
        if "reason" in there.tags:
            with contextlib.suppress(MlflowException):  # it was deleted in an attempt before this one
                self._client.delete_tag(record.run_id, "reason")
        for path in map(record.directory.joinpath, GIVEN):
            if path.exists():  # a run may have been stopped before it wrote them
                self._client.log_artifact(record.run_id, str(path))

    def give_model(self) -> None:
        """As `Tracker.give_model`."""
        self._model_given = True
        self._delivery.do_soon(self._model)

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """As `Tracker.close`."""
        record = self._record
        if not self._delivery.has_begun:  # the process before this one may not have got so far
            begun = self._run and set(record.params) <= set(self._run.data.params)
            self._delivery.start(*([] if begun else self._to_begin()))
        jobs: list[Job] = [functools.partial(self._artifact, *found) for found in _artifacts(record)]
        if record.status == "FINISHED" and record.kind == "run" and record.full and not self._model_given:
            jobs += [self._model] * (record.directory / run_paths.WEIGHTS).exists()
        killed = record.status == "KILLED"  # by somebody who waits: first of all, this is said
        first, last = ([self._end], jobs) if killed else ([], [*jobs, self._end])
        return without_password(self._delivery.finish(first, last, patience, at_most, show))

    def _end(self) -> None:
        self._delete_twins()
        store.end(self._client, self._record.run_id, self._record)

    def _delete_twins(self) -> None:
        """Deletes what a request created whose answer was lost, and which a server carried out later.

        In a database that this process writes to itself, a request is over when it is answered.
        """
        if not self._record.token or self.uri.startswith("sqlite:"):
            return
        assert self._run
        for run in self._created_before(self._client, self._run.info.experiment_id):
            if run.info.run_id != self._record.run_id:
                self._client.delete_run(run.info.run_id)

    def _send(self, rows: list[Row]) -> None:
        metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
        self._client.log_batch(self._record.run_id, metrics=metrics)

    def _artifact(self, path: Path, directory: str | None) -> None:
        self._client.log_artifact(self._record.run_id, str(path), directory)

    def _model(self) -> None:
        from mlp_tape.mlflow_backend import logged_model

        assert self._run

        last = [row for key in RESULTS for row in deque(self._journal.read(key), maxlen=1)]
        settings = self._record.settings.get("tracking", {})
        logged_model.log(
            self._client, self._run, self._record.directory, last, settings.get("register_as") or ""
        )


def _artifacts(record: RunRecord) -> list[tuple[Path, str | None]]:
    """The files that MLflow is given of a run that is over, and where it keeps them."""
    if record.status == "FINISHED" or record.kind == "sweep":
        pictures = [(path, "plots") for path in sorted(record.directory.glob("plots/*.png"))]
        model = [
            (path, str(path.parent.relative_to(record.directory)))
            for path in sorted(record.directory.glob("saved_model/**/*"))
            if path.is_file()
        ]
        files = [(path, None) for path in map(record.directory.joinpath, LEFT) if path.exists()]
        return [*pictures, *model, *files]
    return [(path, "divergence") for path in sorted(record.directory.glob("divergence/step-*"))]
