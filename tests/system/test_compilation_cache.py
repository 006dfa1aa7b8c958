"""The compilation cache speeds up later processes, and its failure does not affect runs."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Run

ARGUMENTS = ["dataset=digits", "epochs=2", "tracking.enabled=false", "report=light"]


def weights(directory: Path) -> dict[str, bytes]:
    """Returns the weights of the last run in a directory."""
    file = max(directory.glob("outputs/*/*/weights.npz"), key=lambda path: path.stat().st_mtime)
    with np.load(file) as archive:
        return {name: array.tobytes() for name, array in archive.items()}


def cached_files(cache: Path) -> list[Path]:
    """Returns the files in the cache."""
    return sorted(cache.glob("mlp_tape/xla-*/*"))


@pytest.mark.long
def test_second_process_compiles_nothing_and_has_identical_results(run_py: Run, tmp_path: Path) -> None:
    name, results = """it's "my" \\ cache, 中""", []
    for _ in range(2):
        done = run_py(tmp_path, *ARGUMENTS, XDG_CACHE_HOME=str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        files = {file.name: file.stat().st_mtime_ns for file in cached_files(tmp_path / name)}
        results.append((files, weights(tmp_path)))
    assert results[0][0], "the cache is empty"
    assert results[0] == results[1]
    assert {path.name for path in tmp_path.iterdir()} == {name, "outputs"}


@pytest.mark.long
def test_damaged_file_is_recreated(run_py: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run_py(tmp_path, *ARGUMENTS, XDG_CACHE_HOME=str(cache))
    before = weights(tmp_path)
    damages: list[Callable[[bytes], bytes]] = [
        lambda _: b"",
        lambda _: b"garbage",
        lambda content: content[:1000],
    ]
    assert len(cached_files(cache)) >= len(damages)
    for file, damage in zip(cached_files(cache), itertools.cycle(damages), strict=False):
        file.write_bytes(damage(file.read_bytes()))
    done = run_py(tmp_path, *ARGUMENTS, XDG_CACHE_HOME=str(cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert weights(tmp_path) == before
    assert all(file.stat().st_size > 10_000 for file in cached_files(cache))


@pytest.mark.long
def test_run_succeeds_without_a_writable_cache(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, *ARGUMENTS, XDG_CACHE_HOME="/proc/nowhere", MPLCONFIGDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = tmp_path.glob("outputs/*/*/run.json")
    assert json.loads(record.read_text())["status"] == "FINISHED"
