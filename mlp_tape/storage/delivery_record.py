"""The record of what MLflow has received of a run, written by the process that delivers."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlp_tape.storage import run_paths
from mlp_tape.system import atomic_files


@dataclass
class DeliveryRecord:
    """The content of `delivery.json`.

    If it is lost, everything is delivered again, which is harmless: the run is found by its token.

    Attributes:
        uri: URI of the MLflow store, without password; empty while the run is not there.
        experiment_id: MLflow experiment id; empty if unknown.
        run_id: MLflow run id; empty until the run has been created.
        name: name in the MLflow UI.
        began: `RunRecord.began` of the last process whose params and files MLflow has received.
        position: number of bytes of `journal.jsonl` that were delivered.
        models: the models that were logged, each as a dictionary with `model_id`, `step`, `location` of the
            files, and `name` and `version` of the registered model (empty and 0 if it is not registered).
        version: `RunRecord.version` of which MLflow has received everything, including the status; -1 if
            there is none.
        view: key of the view that the link to the run opens; empty if the store has none.
    """

    uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    name: str = ""
    began: float = 0.0
    position: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    version: int = -1
    view: str = ""

    def save(self, directory: Path) -> None:
        """Writes `delivery.json`."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        atomic_files.write_text(directory / run_paths.DELIVERY, text)


def read(directory: Path) -> DeliveryRecord:
    """Reads the record of a run's directory; an empty one if there is none or it is damaged."""
    try:
        return DeliveryRecord(**json.loads((directory / run_paths.DELIVERY).read_bytes()))
    except FileNotFoundError:
        return _of_earlier_version(directory)
    except (OSError, ValueError, TypeError):
        return DeliveryRecord()


def _of_earlier_version(directory: Path) -> DeliveryRecord:
    """Reads what earlier versions wrote to `run.json`, `journal.sent` and `models.json`."""
    run = _json(directory / run_paths.RECORD)
    if not isinstance(run, dict) or not run.get("run_id"):
        return DeliveryRecord()
    position, models = _json(directory / "journal.sent"), _json(directory / "models.json")
    return DeliveryRecord(
        uri=run.get("uri", ""),
        run_id=run["run_id"],
        name=run.get("name", ""),
        position=position if isinstance(position, int) else 0,
        models=models if isinstance(models, list) else [],
        version=0 if run.get("sent") else -1,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
