"""The views of MLflow's UI that the printed links open: the charts of a run, and the list of a sweep's jobs.

The page of a run has a section for each prefix of its metrics' keys, in alphabetical order, and cannot be
arranged. The page of an experiment can be: what its button "Share" stores is a tag of the experiment, and
`viewStateShareKey` in a link names it.
"""

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Iterable
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from mlp_tape.config.metrics import direction
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS, best_key
from mlp_tape.storage.run_record import RunRecord

# Source of the tag and of the names in a view: mlflow/server/js/src/experiment-tracking (`constants.ts`,
# `experiment-page/models`, `runs-charts/runs-charts.types.ts`)
TAG = "mlflow.sharedViewState."
OURS = re.compile(re.escape(TAG) + "[0-9a-f]{8}-[0-9a-f]{32}")  # time and run id; other views have a SHA-256
MOST = 200  # maximum number of views; each run of an experiment takes longer to create with each of its tags
OF_RUN = (TRAIN_LOSS, TEST_ACCURACY, TEST_LOSS)
OF_SWEEP = (TEST_ACCURACY, TRAIN_LOSS, TEST_LOSS)
RESULTS = "Loss and accuracy"
SECTIONS = {
    "train/loss": RESULTS,
    "test": RESULTS,
    "validation": RESULTS,
    "params": "Norms of parameters",
    "grads": "Norms of gradients",
    "updates": "Updates relative to parameters",
}
OTHER = "Learning rate and units"
LINES = {"type": "LINE", "lineSmoothness": 0, "useGlobalLineSmoothing": True, "useGlobalXaxisKey": True}


def share(client: mlflow.MlflowClient, record: RunRecord) -> str:
    """Stores the view of a run, or of the jobs of a sweep, of which MLflow has the metrics.

    Returns:
        The key of the view; empty if MLflow did not accept it, for example because tags of experiments are
        write-protected.
    """
    state = record.delivery
    key = f"{int(record.created):08x}-{state.run_id}"
    try:
        view = _of_run(client, state.run_id) if record.kind == "run" else _of_sweep(client, record)
        text = json.dumps(view, separators=(",", ":"))
        value = f"deflate;{base64.b64encode(zlib.compress(text.encode(), 9)).decode()}"
        client.set_experiment_tag(state.experiment_id, TAG + key, value)
    except MlflowException:
        return ""
    with contextlib.suppress(MlflowException):  # another process may delete the same ones
        known = client.get_experiment(state.experiment_id).tags
        for oldest in sorted(filter(OURS.fullmatch, known))[:-MOST]:
            client.delete_experiment_tag(state.experiment_id, oldest)
    return key


def _of_run(client: mlflow.MlflowClient, run_id: str) -> dict[str, Any]:
    """Returns the view of the charts of a run."""
    charts = _charts(client.get_run(run_id).data.metrics, OF_RUN)
    return {"searchFilter": f"attributes.run_id = '{run_id}'"} | charts


def _of_sweep(client: mlflow.MlflowClient, record: RunRecord) -> dict[str, Any]:
    """Returns the view of the jobs of a sweep, best first, as a table or as charts.

    MLflow's table shows the last value of a metric, and jobs are chosen by that of their best weights. The
    table has few columns, so that those of the settings lie in the first screen, beside the assistant that
    MLflow's UI opens.
    """
    state = record.delivery
    chosen_by = _chosen_by(record)
    columns = [f"metrics.`{best_key(key) if key.startswith('validation/') else key}`" for key in chosen_by]
    is_ascending = direction(chosen_by[0]) == "minimize"
    jobs, order = f"tags.mlflow.parentRunId = '{state.run_id}'", "ASC" if is_ascending else "DESC"
    best = client.search_runs([state.experiment_id], jobs, max_results=1, order_by=[f"{columns[0]} {order}"])
    return {
        "searchFilter": jobs,
        "orderByKey": columns[0],
        "orderByAsc": is_ascending,
        "selectedColumns": [*columns, *(f"params.`{key}`" for key in record.swept)],
    } | _charts(best[0].data.metrics if best else {}, tuple(dict.fromkeys((*chosen_by, *OF_SWEEP))))


def _chosen_by(record: RunRecord) -> list[str]:
    """Returns the metrics by which a sweep chooses, as far as they are metrics in MLflow too."""
    sweep = record.settings.get("sweep", {})
    metrics = sweep.get("objectives") or [sweep.get("choose_by") or TEST_ACCURACY]
    return [key for key in metrics if key not in ("seconds", "parameters")] or [TEST_ACCURACY]


def _charts(keys: Iterable[str], first: tuple[str, ...]) -> dict[str, Any]:
    """Returns the charts of all metrics in sections, `first` and the other results before the rest."""
    shown = [key for key in keys if not key.startswith("system/")]  # the UI has a section for these
    rest = sorted(key for key in shown if key not in first)
    sections: dict[str, list[str]] = {RESULTS: [key for key in first if key in shown]}
    for title in (*SECTIONS.values(), OTHER):
        sections.setdefault(title, [])
    for key in rest:
        sections[SECTIONS.get(key) or SECTIONS.get(key.split("/")[0], OTHER)].append(key)
    return {
        "compareRunSections": [
            {"uuid": title, "name": title, "display": True, "isReordered": True}
            for title, its in sections.items()
            if its
        ],
        "compareRunCharts": [
            LINES | {"uuid": key, "metricSectionId": title, "metricKey": key, "displayName": key}
            for title, its in sections.items()
            for key in its
        ],
        "isAccordionReordered": True,  # else the UI sorts the sections
        "runListHidden": True,  # beside the charts; their legends have the names
    }
