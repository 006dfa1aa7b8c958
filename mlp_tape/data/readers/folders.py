"""Reader of directories: files that belong together, or images in a directory for each class."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from mlp_tape.data.contents import PARTS, Contents, Reading
from mlp_tape.data.readers import arrays, images, kinds, parquet, roles, table_files, text_tables
from mlp_tape.data.readers.roles import role
from mlp_tape.errors import DataError

DEPTH = 5  # levels of directories that are searched
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".data", ".dat", ".txt"}
OF_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx", "readme.txt", "license.txt"}  # lower case
Pictures = dict[str, list[tuple[Path, str]]]  # files and classes of each part


def read(path: Path, reading: Reading) -> Contents:
    """Reads the data set in a directory.

    Raises:
        DataError: there is none, or more than one, or it is damaged.
    """
    found: dict[str, list[Path]] = {}
    for file in _files(path, DEPTH):
        is_image = file.suffix.lower() in IMAGE_SUFFIXES  # sparing to open a million of them
        found.setdefault("image" if is_image else kinds.kind(file), []).append(file)
    of_arrays = [(file, kind) for kind in arrays.READERS for file in found.get(kind, [])]
    tables = [file for kind in ("text", "text.gz") for file in found.get(kind, []) if _is_table(file)]
    pictures, remarks = _by_class(path, found.get("image", []))
    n_classes = len({label for pairs in pictures.values() for _, label in pairs})
    if n_classes > 1 or (pictures and not of_arrays and not tables and "parquet" not in found):
        contents = images.read(pictures, reading, path)
        return dataclasses.replace(contents, remarks=(*remarks, *contents.remarks))
    if of_arrays:
        return arrays.read_all(of_arrays, path)
    if "parquet" in found:
        return parquet.read(roles.by_part(found["parquet"], path), reading, path)
    if tables:
        return text_tables.read(table_files.in_directory(tables, path), reading, path)
    raise _refusal(path, found)


def image_files(directory: Path) -> list[Path]:
    """Returns the image files in a directory and those below it, in the order of their names."""
    return [file for file in _files(directory, DEPTH) if file.suffix.lower() in IMAGE_SUFFIXES]


def _files(directory: Path, depth: int) -> Iterator[Path]:
    """Yields the files in a directory and below it, without hidden ones and those of file managers."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise DataError(f"{directory} cannot be read: {error.strerror}", "correct its permissions") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in OF_SYSTEMS:
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and depth and not directory.resolve().is_relative_to(entry.resolve()):
            yield from _files(entry, depth - 1)


def _is_table(file: Path) -> bool:
    return Path(file.name.removesuffix(".gz")).suffix.lower() in TABLE_SUFFIXES


def _by_class(root: Path, files: list[Path]) -> tuple[Pictures, list[str]]:
    """Groups image files by part, if there are directories of parts, and class; returns remarks, too."""
    below = [(file, file.relative_to(root).parts[:-1]) for file in files]
    while below and all(len(names) > 1 and names[0] == below[0][1][0] for _, names in below):
        below = [(file, names[1:]) for file, names in below]  # a directory around all others
    below = [(file, names) for file, names in below if names]
    parts = {names[0]: role(names[0]).part for _, names in below}
    if "train" not in parts.values() or None in parts.values():
        return ({"train": [(file, names[0]) for file, names in below]} if below else {}), []
    pictures: Pictures = {}
    remarks = []
    for file, names in below:
        if len(names) > 1:
            pictures.setdefault(str(parts[names[0]]), []).append((file, names[1]))
    for name, part in parts.items():
        if part not in pictures:
            remarks.append(
                f"the images in {name} are not used, as they are not in a directory for each class"
            )
    ordered = {part: pictures[part] for part in PARTS if part in pictures}
    return (ordered if "train" in pictures else {}), remarks


def _refusal(path: Path, found: dict[str, list[Path]]) -> DataError:
    """Returns the error that says what is in a directory without a data set."""
    if "image" in found:
        return DataError(
            f"{path} has {len(found['image']):,} images, but no directory for each class",
            "move them to directories with the names of the classes, such as cat/1.png and dog/2.png",
        )
    if not found:
        return DataError(f"{path} has no files", "set dataset.path to a file or directory with data")
    kind, files = max(found.items(), key=lambda item: (item[0] not in ("text", "empty"), len(item[1])))
    return kinds.refusal(files[0], kind)
