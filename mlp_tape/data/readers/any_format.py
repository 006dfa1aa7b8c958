"""Reading of a file or a directory in any format: which reader is used is decided by its content."""

from pathlib import Path

from mlp_tape.data.contents import Contents, Reading
from mlp_tape.data.readers import arrays, folders, kinds, parquet, roles, table_files, text_tables


def read(path: Path, reading: Reading) -> Contents:
    """Reads a file or a directory.

    Args:
        path: file or directory in one of the formats of this package.
        reading: choices of the user.

    Raises:
        DataError: the path does not exist, or its content is of no known format, damaged or too large.
    """
    kind = kinds.kind(path)
    if kind == "directory":
        return folders.read(path, reading)
    if kind in arrays.READERS:
        return arrays.read(path, kind)
    if kind == "parquet":
        return parquet.read(roles.shards(path), reading, path)
    if kind in ("text", "text.gz"):
        return text_tables.read(table_files.beside(path), reading, path)
    raise kinds.refusal(path, kind)
