"""The data of a recorded run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mlp_tape.config.settings import DatasetSettings
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import DataError, MlpTapeError
from mlp_tape.runs.recorded import Recorded

Say = Callable[[str], None]


def find(run: Recorded, path: str | None, say: Say) -> tuple[DatasetSettings, Dataset]:
    """Returns the data of a run, found by their SHA-256, and the settings that load them.

    Tried are the path that is given, or else the recorded one, the recorded source, and the name of the data
    set: the cache, a package or a download.

    Raises:
        DataError: no data with the SHA-256 of the run were found.
    """
    known = run.settings.dataset
    candidates = [dataclasses.replace(known, path=path or known.path)]
    if not path:
        if run.data_source != known.path and run.data_source and Path(run.data_source).exists():
            candidates.append(dataclasses.replace(known, path=run.data_source))
        if known.path and known.name != datasets.OWN:
            candidates.append(dataclasses.replace(known, path=None))
    tried = []
    for each in candidates:
        try:
            found = datasets.load(**dataclasses.asdict(each), say=say)
        except MlpTapeError as error:
            tried.append(error.what)
            continue
        if found.sha256 == run.data_sha256:
            return each, found
        tried.append(f"{each.path or found.name} has SHA-256 {found.sha256[:12]}...")
    raise DataError(
        f"the data of the run have SHA-256 {run.data_sha256[:12]}...; {'; '.join(tried)}",
        "type dataset.path=FILE with the data that the run was trained on",
    )
