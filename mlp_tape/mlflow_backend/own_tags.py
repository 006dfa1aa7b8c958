"""The tags, the name and the description of a run in MLflow; only what this program wrote is changed.

A person may change all of them in the UI. What was last written is kept in the delivery record; a tag with
another value, or without one, is not touched again. The description has a marked part of our own, with a
checksum that shows whether somebody has edited it.
"""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

LENGTH = 8_000  # maximum number of characters of a tag in MLflow
CUT = "\n\n..."
# Definitions of links that do not occur are not displayed. Source: https://spec.commonmark.org/0.31.2, 4.7
BEGIN, END = "[//]: # (mlp_tape {})", "[//]: # (end of mlp_tape)"
PART = re.compile(
    rf"{re.escape(BEGIN).replace(re.escape('{}'), '([0-9a-f]{8})')}\n\n(.*?)\n\n{re.escape(END)}", re.DOTALL
)
OF_EARLIER_VERSIONS = re.compile(r"(A multilayer perceptron |\*\*Best:\*\* job ).*python run\.py ", re.DOTALL)


def update(
    client: MlflowClient,
    run: Run,
    wanted: dict[str, str],
    written: dict[str, str],
    name: str = "",
    always: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Sets the tags of a run that nobody else has changed.

    Args:
        client: client of the store.
        run: run as it is in the store.
        wanted: tags, among them the description.
        written: values that were last written, by tag; updated in place. Without any, as for a run of an
            earlier version, all tags but the name and the description are taken for our own.
        name: name of the run, set if the present one is our own; empty for none.
        always: tags that are set in any case.
    """
    there, tags = run.data.tags, wanted | dict(always)
    ours = {key for key in tags if key in always or not written or there.get(key) == written.get(key)}
    if name and there.get(MLFLOW_RUN_NAME) == written.get(MLFLOW_RUN_NAME, name):
        tags[MLFLOW_RUN_NAME] = name
        ours.add(MLFLOW_RUN_NAME)
    if MLFLOW_RUN_NOTE in tags:
        tags[MLFLOW_RUN_NOTE] = described(there.get(MLFLOW_RUN_NOTE, ""), tags[MLFLOW_RUN_NOTE])
        ours.add(MLFLOW_RUN_NOTE)
    new = {key: tags[key] for key in tags if key in ours and there.get(key) != tags[key]}
    if new:
        client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in new.items()])
    written |= {key: tags[key] for key in ours if key != MLFLOW_RUN_NOTE}


def described(there: str, ours: str) -> str:
    """Returns a description with our part in it, and every other text as it is.

    Args:
        there: the present description.
        ours: our part.
    """
    found = PART.search(there)
    if found and found[1] == _checksum(found[2]):
        before, after = there[: found.start()], there[found.end() :]
    elif not found and OF_EARLIER_VERSIONS.match(there):
        before, after = "", ""
    else:  # what somebody has edited in our part is theirs
        theirs = re.sub(r"\[//\]: # \((end of )?mlp_tape[^)]*\)\n*", "", there).rstrip()
        before, after = (f"{theirs}\n\n" if theirs else ""), ""
    room = LENGTH - len(before) - len(after) - len(BEGIN.format("0" * 8)) - len(END) - 4
    if room < len(CUT):
        return there
    ours = ours if len(ours) <= room else ours[: room - len(CUT)] + CUT
    return f"{before}{BEGIN.format(_checksum(ours))}\n\n{ours}\n\n{END}{after}"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
