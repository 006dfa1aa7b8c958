"""Histogram files of a run, one for each step with histograms."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlp_tape.storage import run_paths
from mlp_tape.system import atomic_files
from mlp_tape.training.histograms import Histogram


def save(directory: Path, global_step: int, found: dict[str, Histogram]) -> None:
    """Writes the histograms of a step, replacing those that an earlier process wrote for it.

    Args:
        directory: directory of the run.
        global_step: global number of the step; histograms of parameters are from before the step.
        found: histograms keyed `params/w1`, `grads/w1`, ...
    """
    folder = directory / run_paths.HISTOGRAMS
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {}
    for key, each in found.items():
        arrays |= {f"{key}/counts": each.counts, f"{key}/range": np.array([each.low, each.high])}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    atomic_files.write(folder / f"step-{global_step:09d}.npz", buffer.getvalue())


def read(directory: Path) -> Iterator[tuple[int, dict[str, Histogram]]]:
    """Yields the global step and the histograms of each file of a run, in order of the step."""
    for path in sorted(directory.glob(f"{run_paths.HISTOGRAMS}/step-*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            keys = [name.removesuffix("/counts") for name in archive.files if name.endswith("/counts")]
            found = {
                key: Histogram(archive[f"{key}/counts"], *archive[f"{key}/range"].tolist()) for key in keys
            }
        yield int(path.stem.removeprefix("step-")), found
