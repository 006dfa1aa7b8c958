"""The description of a run on its MLflow page, and the data set that MLflow records for it."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlp_tape.storage.metric_keys import OF_CLASSES, TEST_ACCURACY, TEST_LOSS, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.formatting import count, value

DESCRIPTION = "mlflow.note.content"
USE = """scores = model.predict(images)  # [n, classes]
classes = model.predict(images, params={"output": "class"})"""
DIGEST = 36  # maximum length of a digest in MLflow, in characters


def tags(record: RunRecord) -> dict[str, str]:
    """Returns the MLflow tag with the current description of a run, in Markdown.

    Empty for a sweep, which has its own description, and for a run whose record is lost.
    """
    return {DESCRIPTION: _description(record)} if record.kind == "run" and record.params else {}


def dataset(record: RunRecord) -> dict[str, str]:
    """Returns the training data of a run as arguments of MLflow's `Dataset`.

    The digest is from our own SHA-256, since MLflow's digest does not cover all pixels. The source is what
    `mlflow.data.get_source` can load: a local path or, if there is none, code, by its name.
    """
    data, path = record.settings["dataset"], record.data_source
    if "%" in path:  # which MLflow decodes
        path = Path(path).as_uri()
    source: dict[str, Any] = {"uri": path} if path else {"tags": {"mlflow.source.name": data["name"]}}
    profile = json.dumps({"n_train": int(record.params["n_train"]), "sha256": record.data_sha256})
    digest = record.data_sha256[:DIGEST]
    return {
        "name": data["name"],
        "digest": digest,
        "source_type": "local" if path else "code",
        "source": json.dumps(source),
        "profile": profile,
    }


def _description(record: RunRecord) -> str:
    settings = record.settings
    sizes = record.params["layer_sizes"].strip("[]").replace(", ", " → ")
    lines = [
        *([settings["note"], ""] if settings.get("note") else []),
        f"A multilayer perceptron {sizes} on **{settings['dataset']['name']}**: "
        f"{count(settings['epochs'], 'epoch')} in batches of {settings['batch_size']}, {settings['loss']} "
        f"by {settings['optimizer']['name']}, learning rate {value(settings['lr'])}.",
        "",
        *_outcome(record),
        *_commands(record),
        "",
        f"In `{shlex.quote(str(record.directory))}` on {record.host or 'this machine'}.",
    ]
    return "\n".join(lines)


def _outcome(record: RunRecord) -> Iterator[str]:
    """Yields the results of a run, or why it has none."""
    if record.pruned:
        yield (
            f"**Pruned** after {count(record.pruned, 'epoch')}, as other jobs of the search did better until "
            "then. It has no report, and was not evaluated on the test images."
        )
    elif record.status == "FINISHED":
        yield from _results(record)
    elif record.status == "RUNNING":
        yield (
            "The run is in progress. Meanwhile, the tag `heartbeat` is renewed every minute. If it is ten "
            "minutes old, the next run in this experiment that is started on another machine closes this "
            "one as KILLED."
        )
    else:
        yield from (f"Status {record.status}: {record.reason}", "", _code("sh", record.resume))


def _results(record: RunRecord) -> Iterator[str]:
    """Yields the results of a run that has finished."""
    results = record.results
    validated = results.get(VALIDATION_ACCURACY)
    validation = "" if validated is None else f", validation accuracy {validated:.4f}"
    yield (
        f"**Test accuracy {results[TEST_ACCURACY]:.4f}**{validation}, test loss "
        f"{results[TEST_LOSS]:.6f} after {count(record.steps, 'step')} in {record.seconds:.1f} s."
    )
    if "test/majority_accuracy" in results:
        balanced, f1, majority = (results[f"test/{key}"] for key in OF_CLASSES)
        yield ""
        yield (
            f"Some classes are rare: balanced accuracy {balanced:.4f}, macro F1 {f1:.4f}. Always "
            f"answering with the most frequent class would score {majority:.4f}. Precision and recall of "
            "each class are in `classes.csv`."
        )


def _commands(record: RunRecord) -> Iterator[str]:
    """Yields what to type to repeat a run, to compare it with its repetition, and to use its model."""
    yield from ("", "To repeat it:", "", _code("sh", record.command))
    if record.status == "FINISHED" and record.reproduce:
        yield from (
            "",
            "To repeat it, and to compare both value by value:",
            "",
            _code("sh", record.reproduce),
        )
    if record.status == "FINISHED" and record.full:
        load = f'model = mlflow.pyfunc.load_model("runs:/{record.run_id}/model")'
        serve = f"mlflow models serve --env-manager local -m runs:/{record.run_id}/model"
        yield from ("", "To use the model (NumPy alone; `saved_model/` is for TensorFlow):")
        yield from ("", _code("python", f"import mlflow\n\n{load}\n{USE}"), "", _code("sh", serve))


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
