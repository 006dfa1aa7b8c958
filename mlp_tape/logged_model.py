"""The trained network as an MLflow model, made of the files in the run's directory."""

import json
import tempfile
import warnings
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from mlp_tape.journal import Row

NAME = "model"


def log(
    client: mlflow.MlflowClient, run: Run, directory: Path, results: list[Row], register_as: str = ""
) -> None:
    """Logs it so that `runs:/RUN_ID/model` loads it; once, also where it is asked for again.

    Args:
        client: of the store.
        run: whose model it is.
        directory: of the run, with `weights.npz`, `network.json` and the examples in `report.npz`.
        results: the last value of each metric that is the model's, already delivered.
        register_as: the name under which it is registered, too; empty for none.
    """
    experiment_id, run_id = run.info.experiment_id, run.info.run_id
    step = results[-1].step if results else 0
    mine = f"source_run_id = '{run_id}' AND name = '{NAME}'"
    for earlier in client.search_logged_models([experiment_id], filter_string=mine):
        if earlier.status != LoggedModelStatus.READY:  # of a process that was killed here
            client.delete_logged_model(earlier.model_id)
        elif earlier.tags.get("step") == str(step):
            _register(client, register_as, earlier, run_id)
            return
    logged = client.create_logged_model(experiment_id, NAME, source_run_id=run_id, tags={"step": str(step)})
    files = {"weights": directory / "weights.npz", "network": directory / "network.json"}
    network = json.loads(files["network"].read_bytes())
    inputs = TensorSpec(np.dtype(network["dtype"]), (-1, *network["shape"]))
    scores = TensorSpec(np.dtype("float32"), (-1, network["n_classes"]))
    with np.load(directory / "report.npz", allow_pickle=False) as archive:
        examples = archive["examples"]
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            f"{parent}/model",
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={name: str(file) for name, file in files.items()},
            input_example=examples,
            signature=ModelSignature(Schema([inputs]), Schema([scores])),
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
            mlflow_model=Model(run_id=run_id, model_id=logged.model_id),
        )
        client.log_model_artifacts(logged.model_id, f"{parent}/model")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    metrics = [
        Metric(row.key, row.value, row.timestamp, row.step, logged.model_id, run_id=run_id) for row in results
    ]
    client.log_batch(run_id, metrics=metrics)
    client.finalize_logged_model(logged.model_id, "READY")  # what is not READY is made anew
    _register(client, register_as, logged, run_id)


def _register(client: mlflow.MlflowClient, name: str, model: LoggedModel, run_id: str) -> None:
    """Makes the model the next version of a registered one, if a name is given, and if it is none yet."""
    if not name:
        return
    try:
        client.create_registered_model(name)
    except MlflowException:  # it is there, perhaps because of an attempt that was reported as failed
        client.get_registered_model(name)
    if not client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'"):
        # By its location: MLflow looks `models:/ID` up in the store of the environment, not of the client.
        client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)
