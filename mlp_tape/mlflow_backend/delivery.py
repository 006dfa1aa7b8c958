"""Delivery of a run's directory to MLflow: whatever the directory has and MLflow has not."""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_RUN_NAME

from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import adoption, failures, own_tags, relocation, store, ui_views
from mlp_tape.mlflow_backend.failures import IncompleteError
from mlp_tape.mlflow_backend.uploads import Uploads
from mlp_tape.reports import description
from mlp_tape.storage import delivery_record, journal, run_paths, run_record
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import timeline
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import check_reachable, incomplete_error, mlflow_command

BATCH = 1_000  # maximum number of rows that MLflow accepts in a request
PATIENCE = 30.0  # seconds without a response after which `deliver_all` gives up
PAUSE = 1.0  # seconds between two attempts
AT_BEGIN = (run_paths.SETTINGS, run_paths.ENVIRONMENT, run_paths.CHANGES)
AT_END = (
    run_paths.WEIGHTS,
    run_paths.CHECKSUMS,
    run_paths.BY_CLASS,
    run_paths.SWEEP_TABLE,
    run_paths.SWEEP_SEEDS,
    run_paths.SWEEP_PAGE,
)
RESULTS = (TEST_LOSS, TEST_ACCURACY)  # metrics of the model, too

Artifact = tuple[Path, str | None]  # a file, and its directory among the artifacts

# Steps of a delivery
OPENED, BEGUN, ROWS, ENDED = "opened", "begun", "rows", "ended"


def deliver(directory: Path, uri: str, uploads: Uploads | None = None) -> Iterator[str]:
    """Delivers what the directory of a run has and MLflow has not; idempotent.

    Creates the MLflow run or opens it again, sends params, tags, rows, model and artifacts and, if the run
    has ended, its status. If something is refused, the rest is delivered all the same, unless the store does
    not respond at all. The caller may stop after any step, after an exception too, and call it again.

    Args:
        directory: directory of the run, which its process may be writing to.
        uri: URI of the MLflow store.
        uploads: what earlier attempts have begun to upload.

    Yields:
        The name of each step that is done.

    Raises:
        IncompleteError: something was not accepted; everything else was delivered.
        TrackingError: the store cannot be opened, or does not have the run any more.
        MlflowException: the store did not respond to a request.
    """
    record = run_record.read(directory)
    if not record.sent:
        yield from _Delivery(record, uri, uploads or Uploads()).steps()


def deliver_copy(record: RunRecord, uri: str) -> str:
    """Delivers a run that has ended to a store besides its own, as far as it is not there; idempotent.

    Args:
        record: record of the run, with the parent that it has in the other store.
        uri: URI of the other store.

    Returns:
        The MLflow run id in the other store.

    Raises:
        TrackingError: the store cannot be opened, or did not accept everything.
    """
    record.delivery = delivery_record.read_copy(record.directory, without_password(uri))

    def attempt(uploads: Uploads) -> Iterator[str]:
        return iter(()) if record.sent else _Delivery(record, uri, uploads).steps()

    _try_again(attempt, record, uri)
    return record.run_id


def deliver_all(directory: Path, uri: str) -> None:
    """Delivers the directory of a run that has ended; tries again where that may help.

    Raises:
        TrackingError: the store cannot be opened, or did not accept everything.
    """
    _try_again(lambda uploads: deliver(directory, uri, uploads), run_record.read(directory), uri)


def _try_again(attempt: Callable[[Uploads], Iterator[str]], record: RunRecord, uri: str) -> None:
    """Calls a function that delivers again while that may help, until there has been no progress for long.

    Raises:
        TrackingError: the store cannot be opened, or did not accept everything.
    """
    check_reachable(uri)
    uploads, answered = Uploads(), time.monotonic()
    while True:
        try:
            for _ in attempt(uploads):
                answered = time.monotonic()
            return
        except Exception as error:
            if isinstance(error, IncompleteError):
                if error.permanent:
                    raise
            elif isinstance(error, TrackingError):
                raise
            if time.monotonic() - answered > PATIENCE:
                state = delivery_record.read_file(record.directory, record.delivery.file)
                rows = journal.count_after(record.directory, state.position)
                hint = error.hint if isinstance(error, IncompleteError) else ""
                raise incomplete_error(uri, rows, failures.why(error), hint) from error
        time.sleep(PAUSE)


@dataclass
class _Delivery:
    """One attempt to deliver a run.

    Attributes:
        record: record of the run, as of the beginning of the attempt.
        uri: URI of the MLflow store.
        uploads: uploads of this and earlier attempts.
        client: client of the store.
        refused: what was not accepted.
    """

    record: RunRecord
    uri: str
    uploads: Uploads
    client: MlflowClient = field(init=False)
    refused: list[IncompleteError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.record.delivery

    def steps(self) -> Iterator[str]:
        record, state = self.record, self.state
        run = None
        if not state.run_id or state.began != record.began or state.uri != without_password(self.uri):
            known = state.run_id
            try:
                run = self._open()
            except IncompleteError as error:
                error.ended = record.status != "RUNNING"
                raise
            if not known:
                yield OPENED
        else:
            self.client = MlflowClient(self.uri)
        if record.status == "KILLED":  # somebody is waiting: the status first
            yield from self._independently("the status", self._end)
        if run and state.began != record.began:
            yield from self._independently("the settings", lambda: self._begin(run))
        yield from self._independently("the metrics", self._send_rows)
        yield from self._upload()
        if record.status != "RUNNING":
            yield from self._independently("the status", self._finish)
        if self.refused:
            raise self._incomplete()
        if record.status != "RUNNING":
            state.version = record.version
            state.save(record.directory)
            yield ENDED

    def _independently(self, what: str, part: Callable[[], Iterable[str]]) -> Iterator[str]:
        """Delivers a part; keeps its error if the store refuses it, and raises it if there is an outage."""
        try:
            with timeline.phase(what.removeprefix("the ")):
                yield from part()
        except TrackingError:
            raise
        except Exception as error:
            if not failures.is_permanent(error):
                raise
            cure = f"to send the rest later: {self.record.sync}"
            self.refused.append(
                IncompleteError(f"MLflow did not accept {what}: {failures.why(error)}", cure, True)
            )

    def _upload(self) -> Iterator[str]:
        """Uploads model and files, each in a thread, since an artifact store may not respond."""
        state, directory = self.state, self.record.directory
        earlier = self.uploads.postponed_by
        if earlier:
            self.refused += [earlier] if self.record.status != "RUNNING" else []
            return
        failed: list[tuple[str, Exception]] = []
        log_model = self._model() if self._model_is_wanted() else None
        if log_model:
            try:
                with timeline.phase("model"):
                    for _ in self.uploads.run("the model", log_model):
                        yield "upload"
                self._keep(self.uploads.result)
                state.save(directory)
                yield "model"
            except IncompleteError as error:  # of the registry
                self.refused.append(error)
            except Exception as error:
                failed.append(("the model", error))
        files = [each for each in self._artifacts() if state.files.get(self._key(each)) != _changed_at(each)]
        missing = len(files)
        try:
            with timeline.phase("files"):
                for each in list(files):
                    path, folder = each
                    upload = functools.partial(self.client.log_artifact, state.run_id, str(path), folder)
                    changed = _changed_at(each)
                    for _ in self.uploads.run(self._key(each), upload):
                        yield "upload"
                    state.files[self._key(files.pop(0))] = changed
                    yield "artifact"
        except Exception as error:
            failed += [(name, error) for name in dict.fromkeys(each[1] or each[0].name for each in files)]
        finally:
            if len(files) < missing:
                state.save(directory)
        if failed:
            names = ", ".join(name for name, _ in failed)
            self.refused.append(failures.of_files(names, self._location(), failed[0][1]))
            self.uploads.postpone(self.refused[-1])

    def _key(self, artifact: Artifact) -> str:
        return str(artifact[0].relative_to(self.record.directory))

    def _incomplete(self) -> IncompleteError:
        """Returns one error for everything that was not accepted."""
        first, ended = self.refused[0], self.record.status != "RUNNING"
        what = "; ".join(dict.fromkeys(each.what for each in self.refused))
        permanent = all(each.permanent for each in self.refused)
        return IncompleteError(what, first.hint, permanent, ended)

    @timeline.phase("run")
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
                f"the run {run.info.run_id} was deleted",
                mlflow_command(self.uri, f"runs restore --run-id {run.info.run_id}"),
            )
        relocation.check(self.uri, run.info.artifact_uri)
        self.client, state = MlflowClient(self.uri), self.state
        state.uri, state.run_id = without_password(self.uri), run.info.run_id
        state.experiment_id, state.name = run.info.experiment_id, str(run.info.run_name or "")
        state.save(self.record.directory)
        return run

    def _find_or_create(self, client: MlflowClient) -> Run | None:
        """Returns the run; None if it has an id that the store does not know."""
        known = self.state.run_id
        if not known and self.record.uri == without_password(self.uri):
            known = self.record.adopts
        run = store.run_of(client, known) if known else self._created(client)
        if run and self.record.adopts:
            adoption.identify(client, run, self.record)
        return run

    def _created(self, client: MlflowClient) -> Run:
        """Returns the run that was created for the record, now or in an earlier attempt."""
        experiment_id = store.experiment_id(client, self.record.experiment)
        found = store.runs_of(client, experiment_id, self.record)
        if found:
            return found[0]
        try:
            created = store.create_run(client, experiment_id, self.record)
            self.state.written = dict(created.data.tags)
            return created
        except Exception:  # it may have been created all the same
            found = store.runs_of(client, experiment_id, self.record)
            if not found:
                raise
            return found[0]

    def _begin(self, run: Run) -> Iterator[str]:
        """Sends what is known before the first step."""
        record, state, run_id = self.record, self.state, run.info.run_id
        if record.data_sha256 and not (run.inputs and run.inputs.dataset_inputs):
            context = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
            dataset = DatasetInput(Dataset(**description.dataset(record)), context)
            self.client.log_inputs(run_id, [dataset])
        params = (record.first_params or record.params) | run.data.params
        new = {key: value for key, value in params.items() if key not in run.data.params}
        if new:
            self.client.log_batch(run_id, params=[Param(key, value) for key, value in new.items()])
        tags = (
            {"command": record.command} | description.tags(record) | _changed(record, params, state.written)
        )
        typed = record.settings.get("tags", {})
        changed = {key: value for key, value in typed.items() if state.written.get(key) != value}
        known = state.written.get(MLFLOW_RUN_NAME)
        if record.settings.get("run_name") not in (None, known) or (record.adopts and not known):
            changed[MLFLOW_RUN_NAME] = record.name
        always = record.owner_tags | changed
        own_tags.update(self.client, run, tags | typed, state.written, record.name, always)
        if record.status == "RUNNING":
            if run.info.status != "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            reason = run.data.tags.get("reason")
            if reason and reason == state.written.pop("reason", reason):
                with contextlib.suppress(MlflowException):  # an earlier attempt has deleted it
                    self.client.delete_tag(run_id, "reason")
        state.began = record.began
        state.save(record.directory)
        yield BEGUN

    def _send_rows(self) -> Iterator[str]:
        """Sends the rows in batches."""
        directory, state = self.record.directory, self.state
        while True:
            rows, position = journal.rows_after(directory, state.position, BATCH)
            if rows:
                metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
                self.client.log_batch(state.run_id, metrics=metrics)
            if position != state.position:
                state.position = position
                state.save(directory)
            if not rows:
                return
            yield ROWS

    def _model_is_wanted(self) -> bool:
        record = self.record
        if not (record.kind == "run" and record.full and (record.directory / run_paths.WEIGHTS).exists()):
            return False
        return record.model_ready or record.status == "FINISHED"

    def _model(self) -> Callable[[], dict[str, Any]] | None:
        """Returns the function that logs the model; None if it was logged."""
        from mlp_tape.mlflow_backend import logged_model

        directory, state = self.record.directory, self.state
        results = [row for key in RESULTS for row in deque(journal.rows(directory, key), maxlen=1)]
        step = results[-1].step if results else 0
        name = self.record.settings.get("tracking", {}).get("register_as") or ""
        if any(each["step"] == step and each["name"] == name for each in state.models):
            return None
        return functools.partial(logged_model.log, self.client, state, self.record, results, name)

    def _keep(self, model: dict[str, Any]) -> None:
        others = [each for each in self.state.models if each["step"] != model["step"]]
        self.state.models = [*others, model]

    def _artifacts(self) -> list[Artifact]:
        """Returns the files that exist by now, and are not going to change."""
        directory, record = self.record.directory, self.record
        found: list[Artifact] = [(directory / name, None) for name in AT_BEGIN]
        if record.status in ("FAILED", "KILLED") and record.kind == "run":
            found += [(path, "divergence") for path in sorted(directory.glob("divergence/step-*"))]
        elif record.status != "RUNNING":
            found += [(path, "plots") for path in sorted(directory.glob("plots/*.png"))]
            model = [path for path in sorted(directory.glob("saved_model/**/*")) if path.is_file()]
            found += [(path, str(path.parent.relative_to(directory))) for path in model]
            found += [(directory / name, None) for name in AT_END]
        if record.status != "RUNNING":
            found.append((directory / run_paths.CONSOLE, None))
        return [artifact for artifact in found if artifact[0].exists()]

    def _end(self) -> Iterator[str]:
        """Sets the status and the tags of a run that has ended."""
        run = self.client.get_run(self.state.run_id)
        store.end(self.client, run, self.record, self.state.written)
        if run.info.status != self.record.status:
            yield "status"

    def _finish(self) -> Iterator[str]:
        self._delete_twins()
        if not self.record.parent and self.record.status != "KILLED":  # of which no link is printed
            self.state.view = ui_views.share(self.client, self.record)
            self.state.save(self.record.directory)
        yield from self._end()

    def _location(self) -> str:
        """Returns the artifact location of the run; empty if the store does not say."""
        with contextlib.suppress(Exception):
            return str(self.client.get_run(self.state.run_id).info.artifact_uri)
        return ""

    def _delete_twins(self) -> None:
        """Deletes runs that a server created late, for a request whose response was lost.

        In a SQLite database, which this process writes to itself, a request is over when it returns.
        """
        if not self.record.token or self.uri.startswith("sqlite:"):
            return
        for run in store.runs_of(self.client, self.state.experiment_id, self.record):
            if run.info.run_id != self.state.run_id:
                self.client.delete_run(run.info.run_id)


def _changed(record: RunRecord, params: dict[str, str], written: dict[str, str]) -> dict[str, str]:
    """Returns, as tags, the params of a resumed run that are others now, as MLflow does not allow changes."""
    now = {key: value for key, value in record.params.items() if not key.startswith("tracking.")}
    return {key: now[key] for key in now if key in written or params.get(key, now[key]) != now[key]}


def _changed_at(artifact: Artifact) -> int:
    return artifact[0].stat().st_mtime_ns
