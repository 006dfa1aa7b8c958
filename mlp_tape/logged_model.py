"""The trained network as an MLflow model, made of the files in the run's directory."""

import json
import tempfile
import warnings
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from mlp_tape.journal import Row

NAME = "model"


def log(client: mlflow.MlflowClient, run: Run, directory: Path, results: list[Row]) -> None:
    """Logs it so that `runs:/RUN_ID/model` loads it; once, also where it is asked for again.

    Args:
        client: of the store.
        run: whose model it is.
        directory: of the run, with `weights.npz` and `network.json`.
        results: the last value of each metric that is the model's, already delivered.
    """
    experiment_id, run_id = run.info.experiment_id, run.info.run_id
    step = results[-1].step if results else 0
    mine = f"source_run_id = '{run_id}' AND name = '{NAME}'"
    for earlier in client.search_logged_models([experiment_id], filter_string=mine):
        if earlier.status != LoggedModelStatus.READY:  # of a process that was killed here
            client.delete_logged_model(earlier.model_id)
        elif earlier.tags.get("step") == str(step):
            return
    logged = client.create_logged_model(experiment_id, NAME, source_run_id=run_id, tags={"step": str(step)})
    files = {"weights": directory / "weights.npz", "network": directory / "network.json"}
    network = json.loads(files["network"].read_bytes())
    inputs = TensorSpec(np.dtype(network["dtype"]), (-1, *network["shape"]))
    scores = TensorSpec(np.dtype("float32"), (-1, network["n_classes"]))
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # proposes an input example that MLflow would then run
        mlflow.pyfunc.save_model(
            f"{parent}/model",
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={name: str(file) for name, file in files.items()},
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
    client.finalize_logged_model(logged.model_id, "READY")  # last: what is not READY is made anew
