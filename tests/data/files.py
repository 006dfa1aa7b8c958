"""Files of data as people have them, written with the libraries that people use, and what is read from them.

`python tests/data/files.py DIRECTORY` writes them and prints a table of what is understood;
with `--train`, also the accuracy of a network trained on each, and on the same arrays as `.npz`.
"""

import bz2
import gzip
import io
import json
import pickle
import shutil
import sqlite3
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import scipy.io
from PIL import Image
from sklearn.datasets import load_digits

from mlp_tape.data.contents import Array, Contents, Reading
from mlp_tape.data.readers import any_format
from mlp_tape.errors import DataError

Parts = dict[str, tuple[Array, Array]]
DIGITS = load_digits()
X = DIGITS.images.astype(np.uint8)[:400]
Y = DIGITS.target.astype(np.int64)[:400]
TRAIN, TEST = (X[:300], Y[:300]), (X[300:], Y[300:])
DIGIT_PARTS: Parts = {"train": TRAIN, "test": TEST}
WHOLE: Parts = {"train": (X, Y)}
FLAT: Parts = {"train": (TRAIN[0].reshape(300, 64), TRAIN[1]), "test": (TEST[0].reshape(100, 64), TEST[1])}
RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (20, 6, 7, 3), np.uint8)
COLOR_Y = np.array(["red", "blue"] * 10)
DEEP = RNG.integers(0, 65536, (20, 6, 7)).astype(np.uint16)
TABLE = RNG.normal(size=(40, 4)).round(3)
NAMES = np.array(["setosa", "virginica"] * 20)


@dataclass(frozen=True)
class Case:
    """A file or directory.

    Attributes:
        name: what it is.
        write: writes it below a directory and returns the path that is typed.
        expected: the arrays that are to be read from it, or a part of the message that refuses it.
        reading: settings that are typed, too.
        remark: a part of one of the remarks; empty if there may be any or none.
        class_names: names of the classes.
    """

    name: str
    write: Callable[[Path], Path]
    expected: Parts | str
    reading: Reading = field(default_factory=Reading)
    remark: str = ""
    class_names: Mapping[int, str] = field(default_factory=dict)


def names(pattern: str, parts: Parts = DIGIT_PARTS) -> dict[str, Array]:
    """Returns arrays named by a pattern with {kind} and {part}."""
    return {
        pattern.format(kind=kind, part=part): array
        for part, xy in parts.items()
        for kind, array in zip("xy", xy, strict=True)
    }


def npz(file: str, arrays: Mapping[str, Any], save: Callable[..., None] = np.savez) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        save(directory / file, **arrays)
        return directory / file

    return write


def content(file: str, data: bytes | str) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def several(*writers: Callable[[Path], Path], typed: str = ".") -> Callable[[Path], Path]:
    """Writes several files, of which one or their directory is typed."""

    def write(directory: Path) -> Path:
        for each in writers:
            each(directory)
        return directory / typed

    return write


def npy(file: str, array: Array) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        np.save(directory / file, array)
        return directory / file

    return write


def idx_bytes(array: Array) -> bytes:
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx(stem: str = "{part}-{kind}", suffix: str = "", parts: Parts = DIGIT_PARTS, typed: str = ".") -> Any:
    """Writes the files of MNIST."""
    writers = []
    for part, (x, y) in parts.items():
        for kind, array in (("images-idx3", x), ("labels-idx1", y.astype(np.uint8))):
            file = stem.format(part={"train": "train", "test": "t10k"}[part], kind=f"{kind}-ubyte")
            raw = idx_bytes(array)
            writers.append(content(file + suffix, gzip.compress(raw) if suffix == ".gz" else raw))
    return several(*writers, typed=typed)


def emnist(split: str, typed: str = ".") -> Callable[[Path], Path]:
    parts = {"train": (TRAIN[0].swapaxes(1, 2), TRAIN[1]), "test": (TEST[0].swapaxes(1, 2), TEST[1])}
    mapping = "".join(f"{n} {65 + n} {97 + n}\n" for n in range(10))
    files = []
    for part, (x, y) in parts.items():
        for kind, array in (("images-idx3", x), ("labels-idx1", y.astype(np.uint8))):
            name = f"emnist-{split}-{part}-{kind}-ubyte.gz"
            files.append(content(name, gzip.compress(idx_bytes(array))))
    return several(*files, content(f"emnist-{split}-mapping.txt", mapping), typed=typed)


LETTERS = {n: f"{chr(65 + n)}/{chr(97 + n)}" for n in range(10)}


def frame(xy: tuple[Array, Array], label: str | None = "label", first: bool = True) -> pd.DataFrame:
    """Returns images as a table of pixels, as Kaggle has them."""
    table = pd.DataFrame(xy[0].reshape(len(xy[0]), -1)).add_prefix("pixel")
    if label is not None:
        table.insert(0 if first else table.shape[1], label, xy[1])
    return table


def csv(file: str, table: pd.DataFrame, **options: Any) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        table.to_csv(directory / file, **{"index": False} | options)
        return directory / file

    return write


def flowers(label: str = "species") -> pd.DataFrame:
    return pd.DataFrame(TABLE, columns=list("abcd")).assign(**{label: NAMES})


FLOWERS: Parts = {"train": (TABLE, NAMES)}


def parquet(file: str, table: pd.DataFrame | pa.Table) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(table, pd.DataFrame):
            table.to_parquet(path)
        else:
            pq.write_table(table, path, row_group_size=64)
        return path

    return write


def png(image: Array, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def hugging_face(xy: tuple[Array, Array]) -> pa.Table:
    """Returns a table as `datasets` writes it: encoded images, and the names of the classes."""
    images = [{"bytes": png(image), "path": f"{n}.png"} for n, image in enumerate(xy[0])]
    of_label = {"names": [f"digit {n}" for n in range(10)], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "digit": of_label}
    table = pa.table({"image": images, "digit": xy[1]})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def mat(file: str, variables: Mapping[str, Any]) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        scipy.io.savemat(directory / file, variables, do_compression=True)
        return directory / file

    return write


def emnist_mat() -> Callable[[Path], Path]:
    def part(n: int) -> tuple[dict[str, Array], tuple[Array, Array]]:
        x = RNG.integers(0, 256, (n, 28, 28), np.uint8)
        y = (np.arange(n) % 3 + 1).astype(np.uint8)
        columns = np.stack([image.reshape(-1, order="F") for image in x])
        return {"images": columns, "labels": y[:, None]}, (x, y)

    (train, EMNIST["train"]), (test, EMNIST["test"]) = part(30), part(12)
    mapping = np.array([[1, 65, 97], [2, 66, 98], [3, 67, 99]])
    return mat("emnist-letters.mat", {"dataset": {"train": train, "test": test, "mapping": mapping}})


EMNIST: Parts = {}
SVHN = (COLOR, (np.arange(20) % 10 + 1).astype(np.uint8))


def svhn(file: str, xy: tuple[Array, Array]) -> Callable[[Path], Path]:
    return mat(file, {"X": np.moveaxis(xy[0], 0, -1), "y": xy[1][:, None]})


def hdf5(file: str, arrays: Mapping[str, Any], is_matlab: bool = False) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        path = directory / file
        with h5py.File(path, "w", userblock_size=512 if is_matlab else 0) as made:
            for key, array in arrays.items():
                made.create_dataset(key, data=array.T if is_matlab else array)
                if is_matlab:
                    made[key].attrs["MATLAB_class"] = np.bytes_("uint8")
        if is_matlab:
            with path.open("r+b") as raw:
                raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
        return path

    return write


def pictures(
    xy: tuple[Array, Array], prefix: str = "", suffix: str = "png", **options: Any
) -> Callable[[Path], Path]:
    """Writes an image file for each image, in a directory for each class."""
    formats = {"png": "PNG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "gif": "GIF", "jpg": "JPEG"}

    def write(directory: Path) -> Path:
        for n, (image, label) in enumerate(zip(*xy, strict=True)):
            content(f"{prefix}{label}/{n:04}.{suffix}", png(image, formats[suffix], **options))(directory)
        return directory

    return write


def by_class(xy: tuple[Array, Array]) -> tuple[Array, Array]:
    """Returns images in the order in which directories of classes are read."""
    labels = xy[1].astype(str)
    order = np.argsort(labels, kind="stable")
    return xy[0][order], labels[order]


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def palette_png(image: Array) -> bytes:
    made = Image.fromarray(image[..., 0] % 4, "P")
    made.putpalette([9, 8, 7, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    return saved(made)


PALETTE = np.array([[9, 8, 7], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)[COLOR[..., 0] % 4]


def transparent_png(image: Array) -> bytes:
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    alpha[0] = 0
    return saved(Image.fromarray(np.concatenate([image, alpha], 2)))


ON_WHITE = COLOR.copy()
ON_WHITE[:, 0] = 255


def turned_png(image: Array) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    return saved(Image.fromarray(np.rot90(image)), exif=exif)


def encoded(
    encode: Callable[[Array], bytes], images: Array, labels: Array = COLOR_Y
) -> Callable[[Path], Path]:
    files = [
        content(f"{label}/{n:04}.png", encode(image))
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return several(*files)


def archived(directory: Path) -> Path:
    """Writes a zip archive of a directory of images."""
    pictures(TEST, "root/")(directory)
    shutil.make_archive(str(directory / "images"), "zip", directory / "root")
    return directory / "images.zip"


def tarred(directory: Path) -> Path:
    pictures(TEST, "root/")(directory)
    with tarfile.open(directory / "images.tar.gz", "w:gz") as archive:
        archive.add(directory / "root", "root")
    return directory / "images.tar.gz"


def database(directory: Path) -> Path:
    with sqlite3.connect(directory / "data.db") as connection:
        connection.execute("create table t (a int)")
    return directory / "data.db"


def workbook(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "data.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return directory / "data.xlsx"


def checkpoint(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "data.pt", "w") as archive:
        archive.writestr("data/data.pkl", b"\x80\x02}q\x00.")
    return directory / "data.pt"


def stream(directory: Path) -> Path:
    table = pa.Table.from_pandas(flowers())
    with pa.ipc.new_stream(directory / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    return directory / "data.arrow"


def feather(directory: Path) -> Path:
    pyarrow.feather.write_feather(flowers(), directory / "data.feather")
    return directory / "data.feather"


def record() -> bytes:
    example = b"\x0a\x05\x0a\x03abc"
    return struct.pack("<QI", len(example), 0) + example + struct.pack("<I", 0)


def damaged(write: Callable[[Path], Path], file: str = "", keep: float = 0.5) -> Callable[[Path], Path]:
    """Cuts off the end of a file, as an interrupted download does."""

    def cut(directory: Path) -> Path:
        path = write(directory)
        target = directory / file if file else path
        raw = target.read_bytes()
        target.write_bytes(raw[: int(len(raw) * keep)])
        return path

    return cut


def linked(directory: Path) -> Path:
    (directory / "there").mkdir()
    npz("m.npz", names("{kind}_{part}"))(directory / "there")
    (directory / "link.npz").symlink_to(directory / "there" / "m.npz")
    return directory / "link.npz"


def loop(directory: Path) -> Path:
    (directory / "data.npz").symlink_to(directory / "data.npz")
    return directory / "data.npz"


def empty(directory: Path) -> Path:
    content("data/.DS_Store", b"x")(directory)
    return directory / "data"


def text_of(table: pd.DataFrame, **options: Any) -> str:
    made: str = table.to_csv(**{"index": False, "lineterminator": "\n"} | options)
    return made


FRAMED = X.copy()
FRAMED[:, [0, -1]] = 0  # as MNIST's images, whose last pixel is always 0
DOUBLE = X[:50].repeat(2, 1).repeat(2, 2)  # [50,16,16]


def reduced(image: Array) -> Array:
    return np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR))


GREY = by_class(TEST)
IN_COLOR = by_class((COLOR, COLOR_Y))
BATCHES = {
    b"batch_label": "training batch 1 of 5",
    b"data": TRAIN[0].reshape(300, -1),
    b"labels": list(TRAIN[1]),
}
POSITIVE: Parts = {"train": (TABLE, np.array([0, 1] * 20))}
UMLAUT = flowers("größe").replace("setosa", "schön")

CASES = [
    # NumPy
    Case("mnist.npz, as Keras has it", npz("mnist.npz", names("{kind}_{part}")), DIGIT_PARTS),
    Case("the same compressed", npz("m.npz", names("{kind}_{part}"), np.savez_compressed), DIGIT_PARTS),
    Case(
        "the same named .csv",
        lambda d: npz("m.npz", names("{kind}_{part}"))(d).rename(d / "m.csv"),
        DIGIT_PARTS,
    ),
    Case(
        "npz with trainX, trainY, testX, testY",
        npz("a.npz", {"trainX": TRAIN[0], "trainY": TRAIN[1], "testX": TEST[0], "testY": TEST[1]}),
        DIGIT_PARTS,
    ),
    Case("npz with x and y", npz("a.npz", {"x": X, "y": Y}), WHOLE),
    Case("npz with X and Y", npz("a.npz", {"X": X, "Y": Y}), WHOLE),
    Case("npz with data and target", npz("a.npz", {"data": X, "target": Y}), WHOLE),
    Case("npz with images and labels", npz("a.npz", {"images": X, "labels": Y}), WHOLE),
    Case(
        "npz of float64 in Fortran order",
        npz("a.npz", {"x": np.asfortranarray(X / 16), "y": Y}),
        {"train": (X / 16, Y)},
    ),
    Case("npz with text labels", npz("a.npz", {"x": X, "y": Y.astype(str)}), {"train": (X, Y.astype(str))}),
    Case(
        "npz of big-endian integers",
        npz("a.npz", {"x": X.astype(">i2"), "y": Y}),
        {"train": (X.astype(np.int16), Y)},
    ),
    Case(
        "MedMNIST: train_images, val_images, ..., labels [n,1]",
        npz(
            "pneumonia.npz",
            {
                "train_images": X[:200],
                "train_labels": Y[:200, None],
                "val_images": X[200:300],
                "val_labels": Y[200:300, None],
                "test_images": X[300:],
                "test_labels": Y[300:, None],
            },
        ),
        {
            "train": (X[:200], Y[:200, None]),
            "validation": (X[200:300], Y[200:300, None]),
            "test": (X[300:], Y[300:, None]),
        },
    ),
    Case(
        "numpy.savez(path, x, y)",
        lambda d: npz("a.npz", {"arr_0": X, "arr_1": Y})(d),
        WHOLE,
        remark="arr_0 is taken as x_train",
    ),
    Case(
        "numpy.savez(path, x, y, x_test, y_test)",
        npz("a.npz", {"arr_0": TRAIN[0], "arr_1": TRAIN[1], "arr_2": TEST[0], "arr_3": TEST[1]}),
        DIGIT_PARTS,
    ),
    Case(
        "npz with x_test without y_test",
        npz("a.npz", {"x_train": TRAIN[0], "y_train": TRAIN[1], "x_test": TEST[0]}),
        {"train": TRAIN},
        remark="x_test has no labels",
    ),
    *(
        Case(
            name,
            several(
                *(
                    npz(f"kmnist-{part}-{kind}.npz", {"arr_0": array}, np.savez_compressed)
                    for part, xy in DIGIT_PARTS.items()
                    for kind, array in zip(("imgs", "labels"), xy, strict=True)
                ),
                typed=typed,
            ),
            DIGIT_PARTS,
        )
        for name, typed in (
            ("KMNIST: directory of four npz with arr_0", "."),
            ("one of them", "kmnist-train-imgs.npz"),
        )
    ),
    Case(
        "x_train.npy, y_train.npy, ...",
        several(*(npy(f"{name}.npy", array) for name, array in names("{kind}_{part}").items())),
        DIGIT_PARTS,
    ),
    Case(
        "the path of one of them",
        several(
            *(npy(f"{name}.npy", array) for name, array in names("{kind}_{part}").items()), typed="y_test.npy"
        ),
        DIGIT_PARTS,
    ),
    Case("X.npy and y.npy", several(npy("X.npy", X), npy("y.npy", Y)), WHOLE),
    Case(
        "images.npy beside labels.npy",
        several(npy("images.npy", X), npy("labels.npy", Y), typed="images.npy"),
        WHOLE,
    ),
    Case(
        "train_images.npy, ... of float32",
        several(
            npy("train_images.npy", TRAIN[0] / np.float32(16)),
            npy("train_labels.npy", TRAIN[1]),
            npy("test_images.npy", TEST[0] / np.float32(16)),
            npy("test_labels.npy", TEST[1]),
        ),
        {"train": (TRAIN[0] / np.float32(16), TRAIN[1]), "test": (TEST[0] / np.float32(16), TEST[1])},
    ),
    # IDX
    Case("MNIST: directory of four IDX files", idx(), DIGIT_PARTS),
    Case("the same with gzip", idx(suffix=".gz"), DIGIT_PARTS),
    Case("the path of one of them", idx(suffix=".gz", typed="t10k-images-idx3-ubyte.gz"), DIGIT_PARTS),
    Case(
        "train-images.idx3-ubyte, ...",
        several(
            *(
                content(f"{file}.idx{array.ndim}-ubyte", idx_bytes(array))
                for file, array in {
                    "train-images": TRAIN[0],
                    "train-labels": TRAIN[1].astype(np.uint8),
                    "t10k-images": TEST[0],
                    "t10k-labels": TEST[1].astype(np.uint8),
                }.items()
            )
        ),
        DIGIT_PARTS,
    ),
    Case(
        "torchvision: MNIST/raw with both",
        several(idx("MNIST/raw/{part}-{kind}"), idx("MNIST/raw/{part}-{kind}", ".gz")),
        DIGIT_PARTS,
        remark="there twice, and read once",
    ),
    Case(
        "IDX of int32 and float32",
        several(
            content("x-idx3", idx_bytes(X.astype(np.float32))),
            content("y-idx1", idx_bytes(Y.astype(np.int32))),
        ),
        {"train": (X.astype(np.float32), Y.astype(np.int32))},
    ),
    Case(
        "EMNIST letters: IDX with gzip and mapping",
        emnist("letters"),
        DIGIT_PARTS,
        remark="transposed",
        class_names=LETTERS,
    ),
    Case(
        "EMNIST: one file of two splits",
        several(emnist("letters"), emnist("balanced"), typed="emnist-letters-train-images-idx3-ubyte.gz"),
        DIGIT_PARTS,
        remark="transposed",
        class_names=LETTERS,
    ),
    Case(
        "EMNIST: directory of two splits", several(emnist("letters"), emnist("balanced")), "has 2 data sets"
    ),
    # MATLAB and HDF5
    Case(
        "EMNIST .mat", emnist_mat(), EMNIST, remark="transposed", class_names={1: "A/a", 2: "B/b", 3: "C/c"}
    ),
    Case(
        "SVHN: train_32x32.mat and test_32x32.mat",
        several(
            svhn("train_32x32.mat", SVHN),
            svhn("test_32x32.mat", (SVHN[0][:10], SVHN[1][:10])),
            typed="train_32x32.mat",
        ),
        {"train": SVHN, "test": (SVHN[0][:10], SVHN[1][:10])},
    ),
    Case("test_32x32.mat alone", svhn("test_32x32.mat", SVHN), {"train": SVHN}),
    Case(
        ".mat with X [features,n] and y",
        mat("a.mat", {"X": TABLE.T, "y": np.arange(40) % 2}),
        {"train": (TABLE, np.arange(40) % 2)},
    ),
    Case("MATLAB 7.3 with x_train, ...", hdf5("a.mat", names("{kind}_{part}"), is_matlab=True), DIGIT_PARTS),
    Case("HDF5 with x_train, ...", hdf5("a.h5", names("{kind}_{part}")), DIGIT_PARTS),
    Case("HDF5 with train/x, ...", hdf5("a.h5", names("{part}/{kind}")), DIGIT_PARTS),
    # Tables
    Case(
        "Kaggle's Digit Recognizer: train.csv beside test.csv",
        several(csv("train.csv", frame(TRAIN)), csv("test.csv", frame(TEST, None)), typed="train.csv"),
        {"train": TRAIN},
        remark="has no column label",
    ),
    Case(
        "its directory, with sample_submission.csv",
        several(
            csv("train.csv", frame(TRAIN)),
            csv("test.csv", frame(TEST, None)),
            content("sample_submission.csv", "ImageId,Label\n1,0\n2,0\n"),
        ),
        {"train": TRAIN},
    ),
    Case(
        "mnist_train.csv and mnist_test.csv",
        several(
            csv("mnist_train.csv", frame(TRAIN)), csv("mnist_test.csv", frame(TEST)), typed="mnist_train.csv"
        ),
        DIGIT_PARTS,
        remark="mnist_test.csv is the test part",
    ),
    Case(
        "pixels without a header, label first",
        csv("a.csv", frame((FRAMED, Y)), header=False),
        {"train": (FRAMED, Y)},
        remark="the labels are the column 0",
    ),
    Case(
        "label first or last?",
        csv("a.csv", pd.DataFrame({0: Y, 1: TABLE[:, 0].repeat(10), 2: Y}), header=False),
        "whether the first or the last",
    ),
    Case(
        "the same with dataset.label=-1",
        csv("a.csv", pd.DataFrame({0: Y, 1: TABLE[:, 0].repeat(10), 2: Y[::-1]}), header=False),
        {"train": (np.stack([Y, TABLE[:, 0].repeat(10)], 1), Y[::-1])},
        Reading("-1"),
        remark="the labels are the column 2 (counted from 0)",
    ),
    Case("iris.data: no header, names last", csv("iris.data", flowers(), header=False), FLOWERS),
    Case("TSV with the column class", csv("a.tsv", flowers("class"), sep="\t"), FLOWERS),
    Case("semicolons", csv("wine.csv", flowers("quality"), sep=";"), FLOWERS),
    Case(
        "semicolons and decimal commas",
        csv("a.csv", flowers(), sep=";", decimal=","),
        FLOWERS,
        remark="decimal commas",
    ),
    Case("blanks", csv("a.txt", flowers(), sep=" ", header=False), FLOWERS),
    Case("csv.gz", csv("a.csv.gz", flowers()), FLOWERS),
    Case("gzip without .gz", lambda d: csv("a.csv.gz", flowers())(d).rename(d / "a.csv"), FLOWERS),
    Case(
        "dataset.label=b",
        csv("a.csv", flowers().assign(b=NAMES, species=TABLE[:, 1])),
        {"train": (TABLE[:, [0, 2, 3, 1]], NAMES)},
        Reading("b"),
    ),
    Case(
        "dataset.label=1",
        csv("a.csv", flowers().assign(b=NAMES, species=TABLE[:, 1])),
        {"train": (TABLE[:, [0, 2, 3, 1]], NAMES)},
        Reading("1"),
    ),
    Case("to_csv with the index", csv("a.csv", flowers(), index=True), FLOWERS, remark="numbers the rows"),
    Case("pandas's column numbers as header", csv("a.csv", pd.DataFrame(TABLE).assign(label=NAMES)), FLOWERS),
    Case(
        "an id column",
        csv("a.csv", flowers().assign(PassengerId=range(1, 41))),
        FLOWERS,
        Reading("species"),
        remark="PassengerId numbers the rows",
    ),
    Case(
        "UTF-8 with a byte order mark",
        csv("a.csv", UMLAUT, encoding="utf-8-sig"),
        {"train": (TABLE, UMLAUT["größe"].to_numpy().astype(str))},
        remark="the column größe",
    ),
    Case(
        "UTF-16, as Excel saves it",
        csv("a.csv", UMLAUT, encoding="utf-16", sep="\t"),
        {"train": (TABLE, UMLAUT["größe"].to_numpy().astype(str))},
    ),
    Case(
        "Latin-1",
        csv("a.csv", UMLAUT, encoding="latin-1"),
        {"train": (TABLE, UMLAUT["größe"].to_numpy().astype(str))},
        remark="Latin-1",
    ),
    Case("quoted numbers", csv("a.csv", flowers(), quoting=1), FLOWERS),
    Case(
        "Windows line ends and empty lines",
        content("a.csv", text_of(flowers(), lineterminator="\r\n") + "\r\n\r\n"),
        FLOWERS,
    ),
    Case(
        "bool and integer columns",
        csv("a.csv", pd.DataFrame({"a": [True, False] * 20, "b": range(40), "y": [0, 1] * 20})),
        {"train": (np.stack([[1, 0] * 20, range(40)], 1), np.array([0, 1] * 20))},
    ),
    Case(
        "one class only",
        csv("a.csv", flowers().assign(species="setosa")),
        {"train": (TABLE, np.array(["setosa"] * 40))},
    ),
    Case("a table without a label", csv("a.csv", pd.DataFrame(TABLE)), "it is not clear whether"),
    Case("a label that is not there", csv("a.csv", flowers()), "has no column specis", Reading("specis")),
    Case(
        "missing values",
        csv("a.csv", flowers().assign(b=[1.0, None] * 20)),
        "the column b has no value in 20 of 40 rows, first in row 2",
    ),
    Case(
        "a question mark for a missing value",
        csv("a.csv", flowers().assign(b=["1", "2", "3", "?"] * 10)),
        "the column b has texts such as '?' in 10 of 40 rows, first in row 4",
    ),
    Case(
        "texts among the features",
        csv("a.csv", flowers().assign(a=list("abcd") * 10), sep=";"),
        "the column a has texts such as 'a' in 40 of 40 rows",
        Reading("species"),
    ),
    Case(
        "texts among the features, without a header",
        csv("a.csv", flowers().assign(a=list("abcd") * 10), header=False),
        "the column 0 has texts such as 'a' in 40 of 40 rows",
        Reading("-1"),
    ),
    Case(
        "Titanic: text columns",
        csv(
            "a.csv",
            pd.DataFrame(
                {
                    "PassengerId": [1, 2, 3, 4],
                    "Survived": [0, 1, 1, 0],
                    "Name": list("abcd"),
                    "Age": [1.0, 2, None, 3],
                }
            ),
        ),
        "the column Name has texts such as 'a' in 4 of 4 rows, first in row 1 (also unusable: Age)",
        Reading("Survived"),
    ),
    Case(
        "a missing label",
        csv("a.csv", flowers().assign(species=[*NAMES[:-1], None])),
        "no value in 1 of 40 rows, first in row 40",
    ),
    Case(
        "a row with too many cells",
        content("a.csv", text_of(flowers()) + "1,2,3,4,setosa,6\n"),
        "line 42 has 6",
    ),
    Case(
        "a row with too few cells",
        content("a.csv", text_of(flowers()) + "1,2\n"),
        "no value in 1 of 41 rows, first in row 41",
    ),
    Case("more cells than names", content("a.csv", "a,b,y\n" + "1,2,0,9\n" * 9), "different lengths"),
    Case("a text that is no table", content("a.csv", "Dear all,\nthis is not a table.\n"), "not a table"),
    Case("several tables", several(csv("a.csv", flowers()), csv("b.csv", flowers())), "2 tables"),
    Case(
        "X_train.csv, y_train.csv, ...",
        several(
            csv("X_train.csv", frame(TRAIN, None)),
            csv("y_train.csv", pd.DataFrame({"digit": TRAIN[1]})),
            csv("X_test.csv", frame(TEST, None)),
            csv("y_test.csv", pd.DataFrame({"digit": TEST[1]})),
            csv("notes.csv", flowers()),
        ),
        DIGIT_PARTS,
    ),
    Case(
        "the path of one of them",
        several(
            csv("X_train.csv", frame(TRAIN, None)),
            csv("y_train.csv", pd.DataFrame({"digit": TRAIN[1]}), index=True),
            csv("train.csv", flowers()),
            typed="y_train.csv",
        ),
        {"train": TRAIN},
    ),
    Case(
        "UCI: train/X_train.txt and train/y_train.txt with blanks, without a header",
        several(
            content("train/X_train.txt", text_of(pd.DataFrame(TABLE), sep=" ", header=False)),
            content("train/y_train.txt", "\n".join(map(str, np.arange(40) % 3 + 1))),
            content("train/subject_train.txt", "1\n" * 40),
            content("activity_labels.txt", "1 WALKING\n2 SITTING\n3 LAYING\n"),
        ),
        {"train": (TABLE, np.arange(40) % 3 + 1)},
    ),
    Case(
        "y.csv with other rows",
        several(csv("X.csv", frame(TRAIN, None)), csv("y.csv", pd.DataFrame({"y": TEST[1]})), typed="X.csv"),
        "1 column and 100 rows, but one column and 300 rows of labels are needed",
    ),
    Case(
        "mnist_train.csv beside mnist_train_100.csv",
        several(
            csv("mnist_train.csv", frame(TRAIN)),
            csv("mnist_train_100.csv", frame(TEST)),
            typed="mnist_train.csv",
        ),
        {"train": TRAIN},
    ),
    Case(
        "integers first and last, such as Titanic without dataset.label",
        csv(
            "a.csv", pd.DataFrame({"Survived": [0, 1] * 9, "Age": np.arange(18) / 7, "Port": ["S", "C"] * 9})
        ),
        "it is not clear whether the first or the last",
    ),
    # Parquet
    Case("a table as Parquet", parquet("a.parquet", flowers()), FLOWERS),
    Case(
        "Parquet, train and test",
        several(parquet("data/train.parquet", frame(TRAIN)), parquet("data/test.parquet", frame(TEST))),
        DIGIT_PARTS,
    ),
    Case(
        "Hugging Face: shards of encoded images",
        several(
            parquet("data/train-00000-of-00002.parquet", hugging_face((X[:150], Y[:150]))),
            parquet("data/train-00001-of-00002.parquet", hugging_face((X[150:300], Y[150:300]))),
            parquet("data/test-00000-of-00001.parquet", hugging_face(TEST)),
        ),
        DIGIT_PARTS,
        class_names={n: f"digit {n}" for n in range(10)},
    ),
    Case(
        "one of its files",
        several(
            parquet("train-00000-of-00001.parquet", hugging_face(TRAIN)),
            parquet("test-00000-of-00001.parquet", hugging_face(TEST)),
            typed="train-00000-of-00001.parquet",
        ),
        DIGIT_PARTS,
        class_names={n: f"digit {n}" for n in range(10)},
    ),
    Case(
        "Hugging Face: train/0000.parquet",
        several(
            parquet("mnist/train/0000.parquet", hugging_face(TRAIN)),
            parquet("mnist/test/0000.parquet", hugging_face(TEST)),
        ),
        DIGIT_PARTS,
    ),
    Case(
        "Parquet of flat lists",
        parquet("a.parquet", pa.table({"x": list(X.reshape(400, 64)), "label": Y})),
        {"train": (X.reshape(400, 64), Y)},
    ),
    Case(
        "Parquet of nested lists",
        parquet(
            "a.parquet", pa.table({"image": pa.array(X.tolist(), pa.list_(pa.list_(pa.uint8()))), "label": Y})
        ),
        WHOLE,
    ),
    Case(
        "lists of different lengths",
        parquet("a.parquet", pa.table({"x": [[1, 2], [3]], "y": [0, 1]})),
        "different lengths",
    ),
    Case(
        "two columns of labels",
        parquet("a.parquet", pa.table({"x": [[1, 2]] * 8, "fine": [0, 1, 2, 3] * 2, "coarse": [0, 1] * 4})),
        "it is not clear",
    ),
    Case(
        "images by path only",
        parquet(
            "a.parquet",
            pa.table(
                {
                    "image": pa.array(
                        [{"bytes": None, "path": "a.png"}] * 2,
                        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                    ),
                    "label": [0, 1],
                }
            ),
        ),
        "row 1 has no image",
    ),
    # Images
    Case("a directory of PNGs for each class", pictures(TEST), {"train": GREY}),
    Case(
        "train/CLASS, test/CLASS",
        several(pictures(TRAIN, "train/"), pictures(TEST, "test/")),
        {"train": by_class(TRAIN), "test": GREY},
    ),
    Case(
        "train, val and test in another directory",
        several(pictures(TRAIN, "d/training/"), pictures(TEST, "d/val/"), pictures(TEST, "d/Testing/")),
        {"train": by_class(TRAIN), "validation": GREY, "test": GREY},
    ),
    Case(
        "test images without classes",
        several(pictures(TRAIN, "train/"), content("test/1.png", png(X[0]))),
        {"train": by_class(TRAIN)},
        remark="not used",
    ),
    *(
        Case(f"{suffix} in color", pictures((COLOR, COLOR_Y), suffix=suffix, **options), {"train": IN_COLOR})
        for suffix, options in (("png", {}), ("bmp", {}), ("tif", {}), ("webp", {"lossless": True}))
    ),
    Case("grey GIF", pictures(TEST, suffix="gif"), {"train": GREY}),
    Case(
        "color read as grey",
        pictures((COLOR, COLOR_Y)),
        {
            "train": (
                np.stack([np.asarray(Image.fromarray(each).convert("L")) for each in IN_COLOR[0]]),
                IN_COLOR[1],
            )
        },
        Reading(image_mode="grey"),
    ),
    Case(
        "grey read as color",
        pictures(TEST),
        {"train": (np.stack([GREY[0]] * 3, -1), GREY[1])},
        Reading(image_mode="color"),
    ),
    Case("palettes", encoded(palette_png, COLOR), {"train": by_class((PALETTE, COLOR_Y))}),
    Case(
        "transparency",
        encoded(transparent_png, COLOR),
        {"train": by_class((ON_WHITE, COLOR_Y))},
        remark="are white",
    ),
    Case("16 bits", encoded(png, DEEP), {"train": by_class((DEEP, COLOR_Y))}),
    Case("turned by EXIF", encoded(turned_png, COLOR), {"train": IN_COLOR}),
    Case(
        "1 bit",
        encoded(lambda image: saved(Image.fromarray(image[..., 0] > 99)), COLOR),
        {"train": by_class(((COLOR[..., 0] > 99) * np.uint8(255), COLOR_Y))},
    ),
    Case(
        "two sizes",
        several(pictures(TEST), content("0/x.png", png(COLOR[0]))),
        "type dataset.image_size=[8,8]",
    ),
    Case(
        "two sizes with dataset.image_size",
        several(pictures((DOUBLE, Y[:50]), "0-"), pictures(TEST, "1-")),
        {
            "train": (
                np.concatenate([[reduced(each) for each in by_class((DOUBLE, Y[:50]))[0]], GREY[0]]),
                np.concatenate(
                    [np.char.add("0-", by_class((DOUBLE, Y[:50]))[1]), np.char.add("1-", GREY[1])]
                ),
            )
        },
        Reading(image_size=(8, 8)),
        remark="2 sizes are resized",
    ),
    Case(
        "hidden files and those of Windows and macOS",
        several(
            pictures(TEST),
            content("0/Thumbs.db", b"x"),
            content("1/.DS_Store", b"x"),
            content(".git/a.png", b"x"),
            content("__MACOSX/0/._1.png", b"x"),
        ),
        {"train": GREY},
    ),
    Case(
        "PNGs without a suffix",
        several(
            *(
                content(f"{label}/{n:04}", png(image))
                for n, (image, label) in enumerate(zip(*TEST, strict=True))
            )
        ),
        {"train": (GREY[0], GREY[1])},
    ),
    Case(
        "umlauts, blanks, # and =",
        pictures((COLOR, np.array(["schöne #1", "a = b"] * 10))),
        {"train": by_class((COLOR, np.array(["schöne #1", "a = b"] * 10)))},
    ),
    Case(
        "one class only",
        pictures((COLOR, np.array(["red"] * 20))),
        {"train": (COLOR, np.array(["red"] * 20))},
    ),
    Case(
        "images without classes",
        several(content("1.png", png(X[0])), content("2.png", png(X[1]))),
        "2 images, but no directory for each class",
    ),
    Case(
        "a truncated image",
        several(pictures(TEST), content("0/x.png", png(COLOR[0])[:60])),
        "x.png cannot be read",
    ),
    Case(
        "a text named .png",
        several(pictures(TEST), content("0/x.png", "nothing")),
        "x.png is damaged, or no image",
    ),
    Case(
        "an image not fetched by Git LFS",
        several(pictures(TEST), content("0/x.png", "version https://git-lfs.github.com/spec/v1\n")),
        "x.png is a pointer",
    ),
    # Other kinds
    Case("zip of a directory", archived, "is a zip archive"),
    Case("tar.gz", tarred, "is a tar archive"),
    Case("rar", content("a.rar", b"Rar!\x1a\x07\x01\x00" + bytes(99)), "is a RAR archive"),
    Case("7z", content("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99)), "is a 7-Zip archive"),
    Case(
        "CIFAR-10: a pickle",
        content("data_batch_1", pickle.dumps(BATCHES, 2)),
        "is a batch of CIFAR as a pickle, which can run any program",
    ),
    Case(
        "its directory",
        several(
            content("cifar/data_batch_1", pickle.dumps(BATCHES, 2)),
            content("cifar/readme.html", "<html>"),
            typed="cifar",
        ),
        "data_batch_1 is a batch of CIFAR",
    ),
    Case(
        "a pickle with gzip (mnist.pkl.gz)",
        content("mnist.pkl.gz", gzip.compress(pickle.dumps([X, Y]))),
        "is a pickle, which can run any program",
    ),
    Case("PyTorch .pt", checkpoint, "is a file of PyTorch"),
    Case("PDF", content("a.pdf", "%PDF-1.7\n"), "is a PDF document"),
    Case("a web page named mnist.npz", content("mnist.npz", "<!DOCTYPE html>\n<html>404"), "is a web page"),
    Case(
        "Git LFS pointer",
        content("a.npz", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a pointer of Git LFS",
    ),
    Case("an empty file", content("a.csv", b""), "is empty"),
    Case("a single PNG", content("a.png", png(X[0])), "is a single image"),
    Case("a single JPEG", content("a.jpg", png(X[0], "JPEG")), "is a single image"),
    Case("Excel", workbook, "is an Excel workbook"),
    Case("TOML", content("a.toml", "[tool]\na = 1\n"), "is a text, but not a table"),
    Case("JSON", content("a.json", flowers().to_json(orient="records")), "is JSON"),
    Case(
        "JSON lines",
        content("a.jsonl", flowers().to_json(orient="records", lines=True)),
        "is JSON, one object a line",
    ),
    Case("TFRecord", content("a.tfrecord", record()), "is a TFRecord file"),
    Case("SQLite", database, "is an SQLite database"),
    Case("ARFF", content("a.arff", "@relation iris\n@data\n1,2\n"), "is an ARFF file"),
    Case("Arrow stream", stream, "is an Arrow stream"),
    Case("Feather", feather, "is an Arrow or Feather file"),
    Case("DICOM", content("a.dcm", bytes(128) + b"DICM"), "is a DICOM image"),
    Case(
        "HDF5 of a model",
        hdf5("a.h5", {"dense/kernel": TABLE, "dense/bias": TABLE[0]}),
        "it has dense/bias",
    ),
    Case("a program", content("a.npy", b"\x7fELF\x02\x01\x01\x00" + bytes(99)), "7f 45 4c 46"),
    Case("a pickle", content("data.npy", pickle.dumps([X, Y])), "is a pickle, which can run any program"),
    Case("IDX with bzip2", content("a.bz2", bz2.compress(idx_bytes(X))), "is compressed with bzip2"),
    Case("a misspelt path", lambda d: npz("mnist.npz", {})(d).with_name("minst.npz"), "mnist.npz ?"),
    Case("a path that is not there", lambda directory: directory / "nothing.npz", "does not exist"),
    Case("an empty directory", empty, "has no files"),
    Case("a symbolic link", linked, DIGIT_PARTS),
    Case("a link to itself", loop, "is a link to a file that is not there"),
    # Damaged
    Case("npz, half of it", damaged(npz("a.npz", names("{kind}_{part}"))), "is damaged"),
    Case("npy, half of it", damaged(several(npy("x.npy", X), npy("y.npy", Y), typed="x.npy")), "is damaged"),
    Case("IDX, half of it", damaged(idx(typed="train-images-idx3-ubyte")), "is damaged: it has"),
    Case("IDX with gzip, half of it", damaged(idx(suffix=".gz"), "train-images-idx3-ubyte.gz"), "is damaged"),
    Case(
        "IDX of other counts",
        several(
            content("train-images-idx3-ubyte", idx_bytes(X)),
            content("train-labels-idx1-ubyte", idx_bytes(Y[:-1].astype(np.uint8))),
        ),
        "has 400 rows and train-labels-idx1-ubyte 399",
    ),
    Case(
        "IDX header of 4 TB with gzip",
        several(
            content(
                "train-images-idx3-ubyte.gz",
                gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 32, 32)),
            ),
            content("train-labels-idx1-ubyte.gz", gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**32 - 1))),
        ),
        "GiB",
    ),
    Case(
        "IDX with too many bytes",
        several(
            content("train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(X) + b"x")),
            content("train-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(Y.astype(np.uint8)))),
        ),
        "it has more than",
    ),
    Case("IDX without labels", content("train-images-idx3-ubyte", idx_bytes(X)), "has no y_train"),
    Case(
        "npz of Python objects", npz("a.npz", {"x": np.array([{}] * 3, object), "y": Y[:3]}), "Python objects"
    ),
    Case("npz without labels", npz("a.npz", {"x_train": X}), "has no y_train; it has x_train"),
    Case("npz with other names", npz("a.npz", {"weights": X}), "has no x_train, y_train; it has weights"),
    Case("Parquet, half of it", damaged(parquet("a.parquet", flowers())), "is damaged"),
    Case(".mat, half of it", damaged(mat("a.mat", {"X": X, "y": Y})), "is damaged"),
    Case("HDF5, half of it", damaged(hdf5("a.h5", names("{kind}_{part}"))), "is damaged"),
    Case("csv.gz, half of it", damaged(csv("a.csv.gz", flowers())), "is damaged"),
]


def differs(found: Contents, expected: Parts) -> str:
    """Returns in what contents differ from what was saved; empty if in nothing."""
    if list(found.parts) != [part for part in ("train", "validation", "test") if part in expected]:
        return f"parts {', '.join(found.parts)}"
    for part, xy in expected.items():
        for kind, read, saved_array in zip("xy", found.parts[part], xy, strict=True):
            if read.shape != saved_array.shape and read.shape != (len(saved_array), *saved_array.shape[1:]):
                return f"{kind}_{part} {read.shape}, not {saved_array.shape}"
            if not np.array_equal(read, saved_array):
                return f"values of {kind}_{part}"
    return ""


def row(case: Case, path: Path) -> tuple[str, str, str]:
    """Returns the row of a case: its name, what was understood, and whether it is what was saved."""
    try:
        found = any_format.read(path, case.reading)
    except DataError as error:
        refused = error.what.replace(f"{path.parent}/", "").replace(str(path), path.name)
        hint = error.hint.replace(f"{path.parent}/", "").replace(str(path), path.name)
        verdict = "refused" if isinstance(case.expected, str) and case.expected in str(error) else "WRONG"
        return case.name, f"{refused}. {hint}", verdict
    shapes = "; ".join(f"{part} {list(x.shape)} {x.dtype}, {y.dtype}" for part, (x, y) in found.parts.items())
    n = len(np.unique(found.parts["train"][1]))
    remarks = "".join(f"; {remark}" for remark in found.remarks).replace(f"{path.parent}/", "")
    wrong = "not refused" if isinstance(case.expected, str) else differs(found, case.expected)
    return case.name, f"{shapes}, {n} classes{remarks}", f"WRONG: {wrong}" if wrong else "equal"


def accuracies(case: Case, path: Path, directory: Path) -> str:
    """Returns the test accuracy of a network trained on a file, and on the same arrays as `.npz`."""
    from mlp_tape.config.settings import Settings
    from mlp_tape.data import datasets
    from mlp_tape.runs.trainer import Trainer

    def trained(found: Contents) -> str:
        dataset = datasets.prepared(found)
        trainer = Trainer(Settings(epochs=10, lr=0.5, shuffle=True, loss="cross_entropy"), dataset)
        state = trainer.state_at(None)
        for _ in trainer.train(state):
            pass
        return f"{trainer.evaluate(state.params).accuracy:.4f} {str(dataset.scale).partition(' by mean')[0]}"

    assert not isinstance(case.expected, str)
    arrays = {f"x_{part}": x for part, (x, _) in case.expected.items()}
    arrays |= {f"y_{part}": y for part, (_, y) in case.expected.items()}
    np.savez(directory / "same.npz", **arrays)
    try:
        found = [trained(any_format.read(each, case.reading)) for each in (path, directory / "same.npz")]
    except DataError as error:
        return error.what
    return f"{found[0]}, as .npz {found[1]}" + " DIFFERS" * (found[0] != found[1])


def main(directory: Path, train: bool = False) -> None:
    """Writes all files and prints the table."""
    more = "accuracy and scale |" if train else ""
    print(f"| file | understood | equal to what was saved | {more}\n|---|---|---|{'---|' * train}")
    rows = []
    for number, case in enumerate(CASES):
        place = directory / f"{number:03}"
        place.mkdir(parents=True)
        path = case.write(place)
        rows.append(row(case, path))
        is_read = train and not isinstance(case.expected, str)
        more = [accuracies(case, path, directory)] if is_read else [""] * train
        print(f"| {' | '.join([*rows[-1], *more])} |", flush=True)
    counts = {
        verdict: sum(each[2].startswith(verdict) for each in rows)
        for verdict in ("equal", "refused", "WRONG")
    }
    print(f"\n{len(rows)} files: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--train" in sys.argv)
