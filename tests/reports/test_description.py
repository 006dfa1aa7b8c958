"""The data set that MLflow records for a run can be loaded again from its source."""

import hashlib
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Dataset

from conftest import sample
from mlp_tape.data import datasets, sources
from mlp_tape.reports import description
from mlp_tape.storage.run_record import RunRecord


def recorded(name: str, path: str | None = None) -> Dataset:
    """Returns the data set of a run as MLflow records it."""
    data = datasets.load(name, path, offline="error")
    settings = {"dataset": {"name": name, "path": path}}
    params = {"n_train": str(len(data.x_train))}
    record = RunRecord(
        Path("/nowhere"),
        settings=settings,
        params=params,
        data_sha256=data.sha256,
        data_source=data.source,
    )
    return Dataset(**description.dataset(record))


def loaded(dataset: Dataset) -> Path:
    return Path(mlflow.data.get_source(dataset).load())


def save(path: Path) -> None:
    x, y = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


@pytest.mark.parametrize("folder", ["plain", "a b", "a%20b", "a#b?", "ä"])
def test_source_of_arrays_is_their_file_wherever_it_is_loaded(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / folder / "mine.npz")
    dataset = recorded("arrays", f"{folder}/mine.npz")
    monkeypatch.chdir("/")
    assert loaded(dataset) == tmp_path / folder / "mine.npz"


@pytest.mark.parametrize("name", sample(["digits", "mnist_5k"], "digits"))
def test_source_of_a_bundled_data_set_is_the_file_of_its_package(name: str) -> None:
    found = np.loadtxt(loaded(recorded(name)), delimiter=",")
    data = datasets.load(name)
    assert len(found) == len(data.x_train) + len(data.x_test)
    assert found[:, :-1].sum() == sum(int(images.sum()) for images in (data.x_train, data.x_test))


def test_source_of_mnist_is_the_file_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = tmp_path / ".keras" / "datasets" / "mnist.npz"
    cached.parent.mkdir(parents=True)
    save(cached)
    known_hash = f"sha256:{hashlib.sha256(cached.read_bytes()).hexdigest()}"
    monkeypatch.setattr(sources, "MNIST", ("mnist.npz", known_hash))
    assert loaded(recorded("mnist")) == cached


def test_source_of_a_function_is_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    save(tmp_path / "x.npz")
    (tmp_path / "my_images.py").write_text("import numpy\n\ndef load():\n    return numpy.load('x.npz')\n")
    assert loaded(recorded("my_images.load")) == tmp_path / "my_images.py"


def test_run_of_an_earlier_version_has_a_source_that_mlflow_understands() -> None:
    record = RunRecord(
        Path("/nowhere"),
        settings={"dataset": {"name": "digits", "path": None}},
        params={"n_train": "1"},
        data_sha256="0",
    )
    source = mlflow.data.get_source(Dataset(**description.dataset(record)))
    assert source.to_dict() == {"tags": {"mlflow.source.name": "digits"}}
