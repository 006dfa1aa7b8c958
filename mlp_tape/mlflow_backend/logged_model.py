"""The trained network as an MLflow model, created from the files in the directory of the run."""

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from numpy.typing import NDArray

from mlp_tape.errors import ConfigError, TrackingError
from mlp_tape.mlflow_backend import failures
from mlp_tape.reports import description
from mlp_tape.storage import run_paths
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.journal import Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import may_exist

if TYPE_CHECKING:  # it declares a model to MLflow when it is imported
    from mlp_tape.mlflow_backend.pyfunc_model import TapeModel

NAME = "model"
# There is no input schema: MLflow casts values to its dtype and rejects every other form of the same images.
# The model checks its input itself.
OUTPUT = ParamSpec("output", "string", "auto")  # see `pyfunc_model.TapeModel.predict`


def log(
    client: mlflow.MlflowClient,
    run: DeliveryRecord,
    record: RunRecord,
    results: list[Row],
    register_as: str = "",
) -> dict[str, Any]:
    """Logs the model so that `runs:/RUN_ID/model` loads it; once, even if it is called again.

    Args:
        client: client of the store.
        run: run of the model in that store.
        record: record of the run; its directory contains `weights.npz`, `network.json` and the examples in
            `report.npz`.
        results: last value of each metric of the model, already delivered.
        register_as: name under which the model is also registered; empty for none.

    Returns:
        The entry of `DeliveryRecord.models`.
    """
    directory, experiment_id, run_id = record.directory, run.experiment_id, run.run_id
    step = results[-1].step if results else 0
    mine = f"source_run_id = '{run_id}' AND name = '{NAME}'"
    for earlier in client.search_logged_models([experiment_id], filter_string=mine):
        if earlier.status != LoggedModelStatus.READY:  # its process was killed before it was complete
            client.delete_logged_model(earlier.model_id)
        elif earlier.tags.get("step") == str(step):
            return _registered(client, earlier, run_id, record.params, register_as)
    logged = _create(client, experiment_id, run_id, {"step": str(step)}, record.params)
    with np.load(directory / run_paths.PLOT_DATA, allow_pickle=False) as archive:
        examples = archive["examples"]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        _save(folder, directory, examples, Model(run_id=run_id, model_id=logged.model_id))
        client.log_model_artifacts(logged.model_id, str(folder))
    _finish(client, record, run_id, logged.model_id, results, step)
    return _registered(client, logged, run_id, record.params, register_as)


def warm_up() -> None:
    """Saves a model of one weight in a temporary directory: the first model of a process takes a second."""
    about = {"activation": "relu", "n_classes": 1, "shape": [1], "scale": [1.0], "offset": [0.0]}
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent)
        np.savez(directory / run_paths.WEIGHTS, w1=np.ones((1, 1), np.float32), b1=np.zeros(1, np.float32))
        (directory / run_paths.NETWORK).write_text(json.dumps(about))
        _save(directory / "model", directory, np.ones((1, 1), np.float32), Model())


def _save(folder: Path, directory: Path, examples: NDArray[Any], model: Model) -> None:
    """Writes a model to a new folder.

    Args:
        folder: the folder.
        directory: contains `weights.npz` and `network.json`.
        examples: images, as in the data set.
        model: receives the description.
    """
    archives = {"weights": directory / run_paths.WEIGHTS, "network": directory / run_paths.NETWORK}
    n_classes = json.loads(archives["network"].read_bytes())["n_classes"]
    scores = TensorSpec(np.dtype("float32"), (-1, n_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={name: str(file) for name, file in archives.items()},
            input_example=examples,
            signature=ModelSignature(None, Schema([scores]), ParamSchema([OUTPUT])),
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
            mlflow_model=model,
        )


def load(which: str, uri: str) -> "TapeModel":
    """Loads a model from MLflow. The tracking URI of the process is set.

    Args:
        which: MLflow run id, or the URI of a model, such as `models:/NAME/1`.
        uri: URI of the store.

    Raises:
        ConfigError: the store does not have the model, or it is another program's.
        TrackingError: the store does not exist.
    """
    if not may_exist(uri):  # it would be created
        raise TrackingError(
            f"{without_password(uri)} does not exist", "type --uri URI, or the directory of a run"
        )
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(which if ":/" in which else f"runs:/{which}/{NAME}")
        found = model.unwrap_python_model()
    except (MlflowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"{which}: no such run in this directory, and no model in {without_password(uri)}: {first}",
            "type the directory of a run, its MLflow run id, or models:/NAME/VERSION",
        ) from error
    if not hasattr(found, "network"):
        raise ConfigError(f"{which} is a model of another program", "type mlflow models predict --help")
    return found  # type: ignore[no-any-return]  # of the copy of `pyfunc_model` in the model


def restore(
    client: mlflow.MlflowClient,
    run: Run,
    record: RunRecord,
    entry: dict[str, Any],
    results: list[Row],
    exchange: Callable[[str], None],
) -> None:
    """Logs a model whose files still exist again, under its old id.

    Args:
        client: client of a store that does not have the model.
        run: run of the model.
        record: record of the run.
        entry: entry of the model in `DeliveryRecord.models`.
        results: metrics of the model.
        exchange: called with the id that MLflow generated, to replace it by the old id.
    """
    run_id, step, tags = run.info.run_id, entry["step"], {"step": str(entry["step"])}
    if entry["name"]:
        tags[MLFLOW_MODEL_VERSIONS] = json.dumps([{"name": entry["name"], "version": entry["version"]}])
    created = _create(client, run.info.experiment_id, run_id, tags, entry.get("params", {}))
    exchange(created.model_id)
    _finish(client, record, run_id, entry["model_id"], results, step)


def register(client: mlflow.MlflowClient, name: str, location: str, run_id: str, model_id: str) -> int:
    """Registers a model as the next version of a registered model, unless it is one already.

    Args:
        client: client of the store.
        name: name of the registered model; empty for none.
        location: artifact location of the model.
        run_id: MLflow run id.
        model_id: MLflow id of the logged model.

    Returns:
        The version; 0 without a name.
    """
    if not name:
        return 0
    try:
        client.create_registered_model(name)
    except MlflowException:  # it exists, perhaps because of a request that was reported as failed
        client.get_registered_model(name)
    for version in client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'"):
        if version.source in (location, f"models:/{model_id}"):
            return int(version.version)
    # By location, since MLflow looks up `models:/ID` in the store of the environment, not of the client.
    return int(client.create_model_version(name, location, run_id, model_id=model_id).version)


def _create(
    client: mlflow.MlflowClient, experiment_id: str, run_id: str, tags: dict[str, str], params: dict[str, str]
) -> LoggedModel:
    """Creates a logged model, whose files are still to come."""
    return client.create_logged_model(experiment_id, NAME, source_run_id=run_id, tags=tags, params=params)


def _finish(
    client: mlflow.MlflowClient, record: RunRecord, run_id: str, model_id: str, results: list[Row], step: int
) -> None:
    """Makes a model whose files are complete the output of its run, with its metrics and their data set."""
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    data = description.dataset(record)
    metrics = [
        Metric(
            row.key,
            row.value,
            row.timestamp,
            row.step,
            model_id,
            dataset_name=data["name"],
            dataset_digest=data["digest"],
            run_id=run_id,
        )
        for row in results
    ]
    client.log_batch(run_id, metrics=metrics)
    client.finalize_logged_model(model_id, "READY")  # a model that is not READY is logged again


def _registered(
    client: mlflow.MlflowClient, model: LoggedModel, run_id: str, params: dict[str, str], name: str
) -> dict[str, Any]:
    """Registers a model if there is a name; returns its entry of `DeliveryRecord.models`."""
    try:
        version = register(client, name, model.artifact_location, run_id, model.model_id)
    except MlflowException as error:
        raise failures.of_registry(name, error) from error
    if version:
        # The tag by which the model's page in MLflow finds its versions; set by a server, not by a client.
        tag = client.get_logged_model(model.model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]")
        known = {(each["name"], int(each["version"])) for each in json.loads(tag)} | {(name, version)}
        versions = [{"name": each, "version": number} for each, number in sorted(known)]
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(versions)})
    return {
        "model_id": model.model_id,
        "step": int(model.tags["step"]),
        "params": params,
        "location": model.artifact_location,
        "name": name,
        "version": version,
    }
