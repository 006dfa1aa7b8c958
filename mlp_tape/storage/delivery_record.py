"""The record of what MLflow has received of a run, written by the process that delivers."""

import dataclasses
import hashlib
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
        models: the models that were logged, each as a dictionary with `model_id`, `step`, `params` of the
            run at that step, `location` of the files, and `name` and `version` of the registered model
            (empty and 0 if it is not registered).
        files: modification time of each file that was uploaded, in nanoseconds, by its path in the directory.
        written: tags as they were last written, by key, apart from the description.
        version: `RunRecord.version` of which MLflow has received everything, including the status; -1 if
            there is none.
        file: name of the file; not in it.
        view: key of the view that the link to the run opens; empty if the store has none.
    """

    uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    name: str = ""
    began: float = 0.0
    position: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    version: int = -1
    file: str = run_paths.DELIVERY
    view: str = ""

    def save(self, directory: Path) -> None:
        """Writes `delivery.json`."""
        values = dataclasses.asdict(self)
        del values["file"]
        atomic_files.write_text(directory / self.file, json.dumps(values, indent=1))


def read(directory: Path) -> DeliveryRecord:
    """Reads the record of a run's directory; an empty one if there is none or it is damaged."""
    if not (directory / run_paths.DELIVERY).exists():
        return _of_earlier_version(directory)
    return read_file(directory, run_paths.DELIVERY)


def read_copy(directory: Path, uri: str) -> DeliveryRecord:
    """Reads the record of a copy of the run in another store; an empty one if there is none.

    Args:
        directory: directory of the run.
        uri: URI of the store, without password.
    """
    return read_file(directory, run_paths.COPY.format(hashlib.sha256(uri.encode()).hexdigest()[:8]))


def read_file(directory: Path, file: str) -> DeliveryRecord:
    """Reads a record by the name of its file; an empty one if there is none or it is damaged."""
    try:
        return DeliveryRecord(**json.loads((directory / file).read_bytes()), file=file)
    except (OSError, ValueError, TypeError):
        return DeliveryRecord(file=file)


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
