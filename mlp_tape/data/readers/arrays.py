"""Readers of files of arrays: which function reads which kind, and which files belong together."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mlp_tape.data.contents import Contents
from mlp_tape.data.readers import damage, hdf5, idx, kinds, matlab, npy, npz, stored
from mlp_tape.data.readers.roles import of_file
from mlp_tape.data.readers.stored import Stored

READERS: dict[str, Callable[[Path], list[Stored]]] = {  # preferred in this order if a file is there twice
    "npy": lambda path: [npy.stored(path)],
    "idx": lambda path: [idx.stored(path)],
    "idx.gz": lambda path: [idx.stored(path)],
    "npz": npz.stored_arrays,
    "matlab": matlab.stored_arrays,
    "hdf5": hdf5.stored_arrays,
}


def read(path: Path, kind: str) -> Contents:
    """Reads a file with all arrays, or one of the files that together have them.

    Raises:
        DataError: arrays are missing, damaged or do not belong together.
    """
    own = _stored(path, kind)
    if not stored.belong_together(path, own):
        return stored.contents(own, path)
    others = [other for other in sorted(path.parent.iterdir()) if _belongs(other, path)]
    found = [(other, kinds.kind(other)) for other in others]
    together = [*own, *(each for other, of in found if of in READERS for each in _stored(other, of))]
    return stored.contents(together, path, chosen=path)


def read_all(files: Iterable[tuple[Path, str]], directory: Path) -> Contents:
    """Reads the arrays of files, given with their kinds.

    Raises:
        DataError: there is no or more than one data set, or it is damaged.
    """
    return stored.contents([each for path, kind in files for each in _stored(path, kind)], directory)


def _belongs(other: Path, path: Path) -> bool:
    return other != path and other.is_file() and of_file(other).rest == of_file(path).rest


def _stored(path: Path, kind: str) -> list[Stored]:
    with damage.named(path):
        return READERS[kind](path)
