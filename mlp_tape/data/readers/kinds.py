"""Kinds of files by their first bytes, and what to do with those that are not read."""

import difflib
import re
import struct
import zipfile
import zlib
from pathlib import Path

from mlp_tape.data.readers import compressed
from mlp_tape.errors import DataError

LENGTH = 2**16  # bytes that are looked at
# Sources: the specifications of the formats, and the list of signatures of file(1)
MAGIC = (
    (0, b"\x93NUMPY", "npy"),
    (0, b"PAR1", "parquet"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"MATLAB 7.3", "hdf5"),
    (0, b"MATLAB 5.0", "matlab"),
    (0, b"\x89PNG\r\n\x1a\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"II*\0", "image"),
    (0, b"MM\0*", "image"),
    (8, b"WEBP", "image"),
    (257, b"ustar", "tar"),
    (128, b"DICM", "dicom"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"Rar!", "rar"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"BZh", "bz2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zst"),
    (0, b"\xd0\xcf\x11\xe0", "xls"),
    (0, b"%PDF", "pdf"),
    (0, b"SQLite format 3\0", "sqlite"),
    (0, b"ARROW1", "arrow"),
    (0, b"\xff\xff\xff\xff", "arrow stream"),
    (0, b"version https://git-lfs", "lfs"),
)
IDX_CODES = (8, 9, 11, 12, 13, 14)  # of dtypes, in the third byte of the file
CONVERT = (
    "type python -c \"import pandas; pandas.{read}.to_csv('data.csv', index=False)\", "
    "then set dataset.path=data.csv"
)
PACKED = ("tar", "pickle")  # kinds that say more than that they are compressed
DIRECTORY = "then set dataset.path=data"
SAVE_ARRAYS = "save its arrays with numpy.savez('data.npz', x_train=..., y_train=..., x_test=..., y_test=...)"
# What a file of a kind that is not read is, and what to do; {path} is the file
REFUSED = {
    "empty": ("is empty", "download or save it again"),
    "missing": ("does not exist", "set dataset.path to an existing file or directory"),
    "broken link": ("is a link to a file that is not there", "set dataset.path to the file itself"),
    "special": ("is neither a file nor a directory", "set dataset.path to a file or a directory"),
    "image": ("is a single image", "{images}"),
    "pickle": (
        "is a pickle, which can run any program when it is opened, and is not opened here",
        f"if you trust who made it, {SAVE_ARRAYS}",
    ),
    "cifar": (
        "is a batch of CIFAR as a pickle, which can run any program when opened, and is not opened here",
        f"use CIFAR as Parquet files, as Hugging Face has it; or, if you trust who made it, {SAVE_ARRAYS}",
    ),
    "torch": (
        "is a file of PyTorch, which contains a pickle",
        f"open it with torch.load(path, weights_only=True), and {SAVE_ARRAYS}",
    ),
    "zip": ("is a zip archive of files", f"type unzip '{{path}}' -d data, {DIRECTORY}"),
    "tar": ("is a tar archive", f"type mkdir data && tar -xf '{{path}}' -C data, {DIRECTORY}"),
    "rar": ("is a RAR archive", f"type unrar x '{{path}}' data/, {DIRECTORY}"),
    "7z": ("is a 7-Zip archive", f"type 7z x '{{path}}' -odata, {DIRECTORY}"),
    "gzip": ("is compressed with gzip", "type gunzip -k '{path}', then set dataset.path to the new file"),
    "bz2": ("is compressed with bzip2", "type bunzip2 -k '{path}', then set dataset.path to the new file"),
    "xz": ("is compressed with xz", "type unxz -k '{path}', then set dataset.path to the new file"),
    "zst": ("is compressed with Zstandard", "type unzstd '{path}', then set dataset.path to the new file"),
    "xlsx": (
        "is an Excel workbook",
        "save it as CSV in a spreadsheet program, then set dataset.path=data.csv",
    ),
    "xls": (
        "is an old Excel workbook",
        "save it as CSV in a spreadsheet program, then set dataset.path=data.csv",
    ),
    "json": ("is JSON", CONVERT.format(read="read_json('{path}', precise_float=True)")),
    "json lines": (
        "is JSON, one object a line",
        CONVERT.format(read="read_json('{path}', lines=True, precise_float=True)"),
    ),
    "arrow": ("is an Arrow or Feather file", CONVERT.format(read="read_feather('{path}')")),
    "arrow stream": (
        "is an Arrow stream, as save_to_disk of Hugging Face writes it",
        'type python -c "import pyarrow.ipc, pyarrow.parquet as p; '
        "p.write_table(pyarrow.ipc.open_stream('{path}').read_all(), 'data.parquet')\", "
        "then set dataset.path=data.parquet",
    ),
    "sqlite": (
        "is an SQLite database",
        "type sqlite3 -header -csv '{path}' 'SELECT * FROM ...' > data.csv, then set dataset.path=data.csv",
    ),
    "pdf": ("is a PDF document", "set dataset.path to the file with the data"),
    "dicom": ("is a DICOM image", "convert the images to PNG, in a directory for each class"),
    "html": ("is a web page, perhaps saved in place of a download", "download the file itself again"),
    "xml": ("is XML", "convert it to CSV"),
    "arff": (
        "is an ARFF file",
        "type python -c \"import pandas, scipy.io; pandas.DataFrame(scipy.io.arff.loadarff('{path}')[0])"
        ".to_csv('data.csv', index=False)\", then set dataset.path=data.csv",
    ),
    "lfs": ("is a pointer of Git LFS, not the file itself", "type git lfs pull in its directory"),
    "tfrecord": ("is a TFRecord file", f"read it with tf.data.TFRecordDataset, and {SAVE_ARRAYS}"),
    "unknown": (
        "is of no known kind: its first bytes are {first}",
        "docs/data.md lists the formats that are read",
    ),
}


def kind(path: Path) -> str:
    """Returns the kind of a file by its first bytes, such as `npy`, or `idx.gz` for a compressed one.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if not path.exists():
            return "broken link" if path.is_symlink() else "missing"
        if path.is_dir():
            return "directory"
        if not path.is_file():
            return "special"
        with path.open("rb") as file:
            first = file.read(LENGTH)
    except OSError as error:  # a loop of links, or no permission
        raise DataError(
            f"{path} cannot be read: {error.strerror}", "correct the path or its permissions"
        ) from error
    if first.startswith(compressed.MAGIC):
        inner = _of_bytes(_decompressed(first), None)
        return f"{inner}.gz" if inner in ("idx", "text") else inner if inner in PACKED else "gzip"
    found = _of_bytes(first, path.stat().st_size)
    return _of_zip(path) if found == "zip" else found


def _of_bytes(first: bytes, size: int | None) -> str:
    """Returns the kind of a file with these first bytes and this size, None for an unknown one."""
    if not first:
        return "empty"
    for offset, magic, name in MAGIC:
        if first.startswith(magic, offset):
            return name
    if first[:2] == b"BM" and first[6:10] == b"\0\0\0\0":  # two letters alone may be those of a text
        return "image"
    if first[:2] == b"\0\0" and len(first) > 4 and first[2] in IDX_CODES and 0 < first[3] < 9:
        return "idx"
    if first[0] == 0x80 and first[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "cifar" if b"batch_label" in first else "pickle"
    if size and len(first) > 16 and first[12] == 0x0A and 0 < struct.unpack("<Q", first[:8])[0] <= size - 16:
        return "tfrecord"  # length, its checksum, and a protocol buffer whose first field is a message
    return _of_text(first)


def _of_text(first: bytes) -> str:
    """Returns the kind of a text, or `unknown` if it is none."""
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in first):
        return "unknown"
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if start.startswith(b"<"):
        return "xml"
    if start.startswith((b"@relation", b"%")):
        return "arff"
    if re.match(rb'[{\[]\s*(["{}\[\]\d-]|true|false|null|$)', start):
        return "json lines" if b"}\n{" in first.replace(b"\r", b"") else "json"
    return "text"


def _of_zip(path: Path) -> str:
    """Returns what a zip archive is by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "npz" if path.suffix == ".npz" else "zip"
    if "xl/workbook.xml" in names:
        return "xlsx"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if path.suffix == ".npz" or (names and all(n.endswith(".npy") for n in names)) else "zip"


def _decompressed(first: bytes) -> bytes:
    """Returns the beginning of the content of a gzip file with these first bytes."""
    try:
        return zlib.decompressobj(wbits=31).decompress(first, LENGTH)
    except zlib.error:
        return b""


def refusal(path: Path, of: str) -> DataError:
    """Returns the error that says what a file of a kind that is not read is."""
    what, hint = REFUSED.get(of, REFUSED["unknown"])
    near = difflib.get_close_matches(path.name, _neighbours(path), 1) if of == "missing" else []
    if near:
        return DataError(f"{path} {what}", f"did you mean dataset.path={path.with_name(near[0])} ?")
    first = b"" if "{first}" not in what else path.open("rb").read(8)
    images = "set dataset.path to a directory with images in a directory for each class"
    return DataError(f"{path} {what.format(first=first.hex(' '))}", hint.format(path=path, images=images))


def _neighbours(path: Path) -> list[str]:
    try:
        return [other.name for other in path.parent.iterdir()]
    except OSError:
        return []
