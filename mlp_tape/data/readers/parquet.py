"""Reader of Parquet files, such as those of Hugging Face: tables, columns of arrays, or of image files."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array, Contents, Reading
from mlp_tape.data.readers import damage, images, tables
from mlp_tape.errors import DataError

BATCH = 1024  # rows that are read at once


def read(files: Mapping[str, Sequence[Path]], reading: Reading, source: Path) -> Contents:
    """Reads the files of each part.

    Raises:
        DataError: a file is damaged, or it is not clear what are features and what labels.
    """
    with damage.named(source):
        return _read(files, reading, source)


def _read(files: Mapping[str, Sequence[Path]], reading: Reading, source: Path) -> Contents:
    import pyarrow.parquet as pq

    for path in (path for paths in files.values() for path in paths):
        with damage.named(path):
            pq.read_metadata(path)
    schema = pq.read_schema(files["train"][0])
    features = [each.name for each in schema if _is_image(each.type) or _is_list(each.type)]
    names = _class_names(schema.metadata or {})
    label = reading.label or (next(iter(names)) if len(names) == 1 else None)
    if not features:
        frames = {part: pq.read_table(paths).to_pandas() for part, paths in files.items()}
        return tables.contents(frames, label, source, class_names=names)
    if len(features) > 1:
        raise DataError(
            f"{source} has {len(features)} columns of arrays or images: {', '.join(features)}",
            "keep one of them, such as by table.drop(columns=[...]).to_parquet('data.parquet')",
        )
    scalars: list[str] = [each.name for each in schema if each.name not in features]
    table = pq.read_table(files["train"], columns=scalars).to_pandas()
    key = scalars[0] if len(scalars) == 1 and not label else tables.label_column(table, label, source)
    remarks = [f"the features are the column {features[0]}, the labels the column {key}"]
    kept = {}
    for part, paths in files.items():
        if key in pq.read_schema(paths[0]).names:
            kept[part] = paths
        else:
            remarks.append(f"the {part} part has no column {key} and is not used, as it has no labels")
    labels = {part: _labels(paths, key, f"{source}, {part}") for part, paths in kept.items()}
    if _is_image(schema.field(features[0]).type):
        stacked, said = images.stack(
            {part: _Images(paths, features[0]) for part, paths in kept.items()}, reading, source
        )
        remarks += said
    else:
        stacked = {part: _arrays(paths, features[0], source) for part, paths in kept.items()}
    return Contents(
        {part: (stacked[part], labels[part]) for part in kept}, source, names.get(key, {}), tuple(remarks)
    )


def _is_image(of: Any) -> bool:
    """Whether a column has the bytes of image files, as Hugging Face stores them or alone."""
    import pyarrow as pa

    if pa.types.is_struct(of):
        return "bytes" in {field.name for field in of}
    return bool(pa.types.is_binary(of) or pa.types.is_large_binary(of))


def _is_list(of: Any) -> bool:
    import pyarrow as pa

    of = getattr(of, "storage_type", of)
    return bool(pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[int, str]]:
    """Returns the names of the classes of each column with labels, as Hugging Face stores them."""
    try:
        columns = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError):
        return {}
    return {
        name: dict(enumerate(column["names"]))
        for name, column in columns.items()
        if isinstance(column, dict) and column.get("_type") == "ClassLabel"
    }


def _labels(paths: Sequence[Path], key: str, where: str) -> Array:
    import pyarrow.parquet as pq

    return tables.labels(pq.read_table(paths, columns=[key]).to_pandas()[key], where)


def _columns(paths: Sequence[Path], name: str) -> Iterator[Any]:
    """Yields a column in pieces of BATCH rows."""
    import pyarrow.parquet as pq

    for path in paths:
        with damage.named(path), pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BATCH, columns=[name]):
                yield batch.column(0)


def _arrays(paths: Sequence[Path], name: str, source: Path) -> Array:
    """Reads a column of lists of numbers, nested or not, row by row into one array."""
    import pyarrow.parquet as pq

    n = sum(pq.read_metadata(path).num_rows for path in paths)
    array, done = np.empty(0), 0
    for column in _columns(paths, name):
        piece = _dense(column, source)
        if not done:
            array = allocation.allocate((n, *piece.shape[1:]), piece.dtype, str(source))
        if piece.shape[1:] != array.shape[1:]:
            raise _ragged(source, done)
        array[done : done + len(piece)] = piece
        done += len(piece)
    return array


def _dense(column: Any, source: Path) -> Array:
    """Returns lists of numbers as an array, if they have the same lengths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    of = column.type
    column = getattr(column, "storage", column)
    shape = [len(column)]
    while _is_list(column.type):
        lengths = pc.list_value_length(column).unique()
        if len(lengths) != 1 or lengths[0].as_py() is None:
            raise _ragged(source, 0)
        shape.append(lengths[0].as_py())
        column = column.flatten()
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(
            f"{source}: the lists have missing values or values of type {column.type}", "use lists of numbers"
        )
    shape = [shape[0], *of.shape] if hasattr(of, "shape") else shape
    values: Array = column.to_numpy(zero_copy_only=False)
    return values.reshape(shape)


def _ragged(source: Path, row: int) -> DataError:
    return DataError(
        f"{source}: the lists have different lengths, near row {row + 1}",
        "use lists of the same length in each row",
    )


class _Images:
    """The image files of a column, which can be iterated over repeatedly."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self._paths, self._name = paths, name

    def __len__(self) -> int:
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(path).num_rows for path in self._paths)

    def __iter__(self) -> Iterator[tuple[str, io.BytesIO]]:
        row = 0
        for column in _columns(self._paths, self._name):
            for value in column:
                content = value.as_py()
                content = content["bytes"] if isinstance(content, dict) else content
                row += 1
                if content is None:
                    raise DataError(
                        f"{self._paths[0].parent}: row {row} has no image",
                        "save the images within the file, as push_to_hub and to_parquet of Hugging Face do",
                    )
                yield f"the image in row {row}", io.BytesIO(content)
