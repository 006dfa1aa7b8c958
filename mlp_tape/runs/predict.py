"""Predictions of the network of a finished run for files without labels."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from mlp_tape.data.inputs import Inputs
from mlp_tape.errors import ConfigError, DataError
from mlp_tape.storage import run_paths
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.formatting import count

if TYPE_CHECKING:
    import pandas as pd

    from mlp_tape.mlflow_backend.pyfunc_model import TapeModel

SHOWN = 20  # predictions on the screen


def of_run(run: RunRecord) -> "Predictor":
    """Returns the predictor of a finished run with a report, from the files in its directory.

    Raises:
        ConfigError: the run has no trained network, or it is a sweep.
    """
    files = {"weights": run.directory / run_paths.WEIGHTS, "network": run.directory / run_paths.NETWORK}
    if not all(file.exists() for file in files.values()):
        remedy = f"to finish it: {run.resume}" if run.kind == "run" else "type the directory of a job"
        raise ConfigError(f"{run.directory} has no trained network", remedy)
    from mlp_tape.mlflow_backend.pyfunc_model import TapeModel

    model = TapeModel()
    model.load_context(SimpleNamespace(artifacts=files))
    return Predictor(model)


class Predictor:
    """The network of a run, as MLflow serves it.

    Args:
        model: the model, loaded.

    Attributes:
        shape: shape of the images or rows that it was trained on.
        class_names: name of each class.
    """

    def __init__(self, model: "TapeModel") -> None:
        self._model, self._network = model, model.network
        self.shape: tuple[int, ...] = tuple(self._network["shape"])
        self.class_names: list[str] = model.class_names

    def predict(self, inputs: Inputs) -> "pd.DataFrame":
        """Predicts the class of images or rows.

        Returns:
            A table with the columns `class`, the label as in the data; `name`, its name; and, if the scores
            are known to be those of probabilities, `probability` of the class and `probability_...` of each.

        Raises:
            DataError: the values are not such as the network was trained on.
        """
        from mlp_tape.mlflow_backend.pyfunc_model import MlflowException

        has_probabilities = self._network["loss"] in ("mse", "cross_entropy")
        output = "probabilities" if has_probabilities else "scores"
        try:
            found = self._model.predict(None, inputs.x, {"output": output})
        except MlflowException as error:
            problem, _, remedy = str(error.message).rpartition(": ")
            raise DataError(f"{inputs.source}: {problem}", remedy) from error
        return self._table(found)

    def _table(self, found: "np.ndarray | pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        if isinstance(found, np.ndarray):
            places, table = (
                found.argmax(axis=1),
                pd.DataFrame({"class": self._model.classes[found.argmax(axis=1)]}),
            )
        else:
            places, table = found.iloc[:, 1:].to_numpy().argmax(axis=1), found
            table.insert(1, "probability", found.iloc[:, 1:].to_numpy().max(axis=1))
        table.insert(1, "name", [self.class_names[k] for k in places])
        return table

    def doubts(self, inputs: Inputs) -> Iterator[str]:
        """Yields what may be wrong with images, a line each."""
        low, high = self._network.get("range", (0, 0))
        if len(self.shape) < 2 or "mean" not in self._network or not high > low or not len(inputs.x):
            return
        trained, given = ((mean - low) / (high - low) for mean in (self._network["mean"], inputs.x.mean()))
        if (trained < 0.4 and given > 0.6) or (trained > 0.6 and given < 0.4):
            kinds = ("dark", "bright") if trained < given else ("bright", "dark")
            yield (
                f"{inputs.source}: the network was trained on {kinds[0]} images, and these are {kinds[1]}: "
                "invert them if they show the same things"
            )


def lines(inputs: Inputs, table: "pd.DataFrame") -> Iterator[str]:
    """Yields a line for each of the first predictions."""
    width = max(map(len, inputs.names[:SHOWN]), default=0)
    for name, (_, row) in zip(inputs.names[:SHOWN], table.iterrows(), strict=False):
        label = f"{row['class']}" if str(row["class"]) == row["name"] else f"{row['class']} ({row['name']})"
        probability = f"  {row['probability']:.4f}" if "probability" in table else ""
        yield f"{name:<{width}}  {label}{probability}"
    if len(table) > SHOWN:
        yield f"... and {count(len(table) - SHOWN, 'more prediction')}"


def submission(inputs: Inputs, table: "pd.DataFrame", columns: tuple[str, str] | None) -> "pd.DataFrame":
    """Returns predictions as Kaggle's competitions take them: two columns, the id of each row and its class.

    Args:
        inputs: what was predicted; its column of ids is used if it has one, else numbers from 1.
        table: predictions.
        columns: names of the two columns; None for the name of the ids, else ImageId, and Label.
    """
    import pandas as pd

    name, ids = next(iter(inputs.ids.items()), ("ImageId", range(1, len(table) + 1)))
    first, second = columns or (name, "Label")
    return pd.DataFrame({first: list(ids), second: table["class"].to_numpy()})
