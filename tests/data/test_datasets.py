"""Contents of the data sets, rejection of invalid files, and fallbacks if MNIST is not available."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import LIMIT
from mlp_tape.data import datasets, sources
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import DataError
from mlp_tape.system.atomic_files import cache_directory
from mlp_tape.tensors.scale import Scale


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Returns valid arrays, some of them replaced."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 28, 28)).astype(np.uint8),
        "y_train": np.arange(20) % 10,
        "x_test": rng.integers(0, 256, (10, 28, 28)).astype(np.uint8),
        "y_test": np.arange(10),
    } | changes


def saved(path: Path, **changes: np.ndarray) -> str:
    """Saves `arrays` and returns the path."""
    np.savez(path, **arrays(**changes))
    return str(path)


def test_mnist_5k_has_400_training_and_100_test_images_of_each_digit(mnist_5k: Dataset) -> None:
    assert mnist_5k.x_train.shape == (4000, 28, 28)
    assert mnist_5k.x_test.shape == (1000, 28, 28)
    assert mnist_5k.x_train.dtype == np.uint8
    assert mnist_5k.y_train.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(mnist_5k.y_train), [400] * 10)
    np.testing.assert_array_equal(np.bincount(mnist_5k.y_test), [100] * 10)
    assert mnist_5k.scale == Scale((255.0,))


def test_mnist_5k_is_a_subset_of_mnist(mnist_5k: Dataset, mnist_npz: str) -> None:
    mnist = datasets.load("mnist", mnist_npz)
    known = {image.tobytes(): label for image, label in zip(mnist.x_train, mnist.y_train, strict=True)}
    assert all(known[x.tobytes()] == y for x, y in zip(mnist_5k.x_train, mnist_5k.y_train, strict=True))


def test_digits_are_8_by_8_with_values_from_0_to_16() -> None:
    digits = datasets.load("digits")
    assert digits.x_train.shape == (1437, 8, 8)
    assert digits.x_test.shape == (360, 8, 8)
    assert digits.x_train.max() == 16
    assert digits.scale == Scale((16.0,))
    assert digits.n_classes == 10


def test_full_mnist_has_the_shape_and_range_of_the_original_program(mnist_npz: str) -> None:
    mnist = datasets.load("mnist", mnist_npz)
    assert mnist.x_train.shape == (60_000, 28, 28)
    assert mnist.y_train.shape == (60_000,)
    assert (mnist.x_train.min(), mnist.x_train.max()) == (0, 255)
    assert (mnist.y_train.min(), mnist.y_train.max()) == (0, 9)


def test_own_arrays_determine_the_number_of_features_and_classes(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "own.npz",
        x_train=np.ones((6, 5), np.float64),
        y_train=np.array([0, 1, 2, 0, 1, 2]),
        x_test=np.ones((2, 5), np.float64),
        y_test=np.array([3, 0], np.uint8),
    )
    own = datasets.load("arrays", path)
    assert (own.n_features, own.n_classes, own.scale) == (5, 4, Scale())
    assert own.x_train.dtype == np.float32


def test_one_pixel_changes_the_sha256(tmp_path: Path) -> None:
    x = arrays()["x_train"]
    first = datasets.load("arrays", saved(tmp_path / "a.npz"))
    x[0, 0, 0] ^= 1
    assert datasets.load("arrays", saved(tmp_path / "b.npz", x_train=x)).sha256 != first.sha256
    assert datasets.load("arrays", saved(tmp_path / "c.npz")).sha256 == first.sha256


BAD_ARRAYS = {
    "real numbers as labels": {"y_train": np.arange(20) / 2},
    "several labels for a row": {"y_train": np.ones((20, 2), int)},
    "one label missing": {"y_train": np.arange(19) % 10},
    "one class": {"y_train": np.zeros(20, int), "y_test": np.zeros(10, int)},
    "NaN": {"x_train": np.full((20, 28, 28), np.nan), "x_test": np.zeros((10, 28, 28))},
    "different image sizes": {"x_test": np.zeros((10, 28, 27), np.uint8)},
    "different dtypes": {"x_test": np.zeros((10, 28, 28), np.float32)},
    "text": {"x_train": np.full((20, 2), "a"), "x_test": np.full((10, 2), "a")},
    "no images": {"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, int)},
    "rank 1": {"x_train": np.zeros(20, np.uint8), "x_test": np.zeros(10, np.uint8)},
    "objects": {"x_train": np.array([{}] * 20, dtype=object)},
}


@pytest.mark.parametrize("changes", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_invalid_arrays_are_rejected(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(DataError) as caught:
        datasets.load("arrays", saved(tmp_path / "bad.npz", **changes))
    assert caught.value.hint


def test_files_without_a_data_set_are_rejected(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path / "whole.npz")).read_bytes()
    files = {"empty": b"", "text": b"hello", "truncated.npz": whole[:5000], "pickle": b"\x80\x04]\x94."}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "keys.npz", x=np.zeros(3))
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in [*files, "keys.npz", "single.npy", "nowhere.npz"]:
        with pytest.raises(DataError, match=r"does not exist|is empty|is damaged|is a|has no [xy]_train"):
            datasets.load("mnist", str(tmp_path / name))


def test_arrays_without_a_path_are_rejected() -> None:
    with pytest.raises(DataError, match="needs a file"):
        datasets.load("arrays")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory served by a web server in place of the download host, with an empty cache."""
    served = tmp_path / "site"
    served.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(sources, "HOST", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(sources, "TIMEOUT", (LIMIT, LIMIT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield served
    server.shutdown()
    server.server_close()


def test_mnist_is_downloaded_once_and_then_read_from_the_cache(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(saved(site / "mnist.npz"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "MNIST", ("mnist.npz", f"sha256:{digest}"))
    messages: list[str] = []
    first = datasets.load("mnist", offline="error", say=messages.append)
    path.unlink()
    again = datasets.load("mnist", offline="error", say=messages.append)
    assert first.name == again.name == "mnist"
    assert first.sha256 == again.sha256
    assert messages == [f"downloading {sources.HOST}mnist.npz"]


@pytest.mark.parametrize("home", [".keras", "elsewhere"])
def test_cache_of_keras_is_used(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    if home != ".keras":
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / home))
    keras_cache = tmp_path / home / "datasets"
    folder = keras_cache / "fashion-mnist"  # Source: keras/src/datasets/fashion_mnist.py
    folder.mkdir(parents=True)
    digest = hashlib.sha256(Path(saved(keras_cache / "mnist.npz")).read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "MNIST", ("mnist.npz", f"sha256:{digest}"))
    assert datasets.load("mnist", offline="error").name == "mnist"

    files = {}
    for key, (name, _) in sources.FASHION_MNIST.items():
        (folder / name).write_bytes(idx(key))
        files[key] = name, f"md5:{hashlib.md5((folder / name).read_bytes()).hexdigest()}"
    monkeypatch.setattr(sources, "FASHION_MNIST", files)
    assert datasets.load("fashion_mnist", say=pytest.fail).x_train.shape == (20, 28, 28)


def idx(key: str) -> bytes:
    """Returns the content of a file of Fashion-MNIST with 20 images or labels."""
    values = np.arange(20 * 784).reshape(20, 28, 28) % 251 if key[0] == "x" else np.arange(20) % 10
    return gzip.compress(bytes(sources.IDX_HEADER[key[0]]) + values.astype(np.uint8).tobytes())


def test_a_file_of_mnist_in_the_current_directory_is_offered(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hint = "mnist.npz is in this directory: type dataset.path=mnist.npz"
    assert hint not in datasets.load("mnist").warning
    saved(tmp_path / "mnist.npz")
    assert datasets.load("mnist").warning.endswith(f"\nFor all 70,000: {hint}.")
    with pytest.raises(DataError, match=hint):
        datasets.load("mnist", offline="error")
    with pytest.raises(DataError, match=r"^fashion_mnist .*\nset dataset.path"):
        datasets.load("fashion_mnist")


def test_download_with_wrong_checksum_is_not_used(site: Path) -> None:
    saved(site / "mnist.npz")  # differs from the published checksum
    found = datasets.load("mnist")
    assert found.name == "mnist_5k"
    assert "download failed (ValueError)" in found.warning
    assert not list(cache_directory().glob("*.npz"))


def test_error_in_validation_is_not_reported_as_a_failed_download(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(Path(saved(site / "mnist.npz")).read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "MNIST", ("mnist.npz", f"sha256:{digest}"))

    def faulty(*arguments: object, **options: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(datasets, "prepared", faulty)
    with pytest.raises(ValueError, match=r"^a fault$"):
        datasets.load("mnist")


def test_fallback_to_the_subset_is_recorded_with_a_warning(site: Path) -> None:
    found = datasets.load("mnist")
    assert found.name == "mnist_5k"
    assert "5,000 MNIST images" in found.warning
    with pytest.raises(DataError, match="download failed"):
        datasets.load("mnist", offline="error")


def test_download_from_an_unresponsive_host_times_out(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        monkeypatch.setattr(sources, "HOST", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setattr(sources, "TIMEOUT", (LIMIT, 0.1))
        assert "download failed" in datasets.load("mnist").warning


def test_fashion_mnist_is_read_from_its_four_files(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    expected, files = arrays(), {}
    for key, (name, _) in sources.FASHION_MNIST.items():
        content = expected[key].astype(np.uint8)
        raw = gzip.compress(b"\0" * sources.IDX_HEADER[key[0]] + content.tobytes())
        (site / name).write_bytes(raw)
        files[key] = (name, f"md5:{hashlib.md5(raw).hexdigest()}")
    monkeypatch.setattr(sources, "FASHION_MNIST", files)
    found = datasets.load("fashion_mnist")
    np.testing.assert_array_equal(found.x_train, expected["x_train"])
    np.testing.assert_array_equal(found.y_test, expected["y_test"])
    assert found.class_names[9] == "Ankle boot"


def test_unavailable_fashion_mnist_is_an_error(site: Path) -> None:
    with pytest.raises(DataError, match="fashion_mnist is not in the cache"):
        datasets.load("fashion_mnist")
