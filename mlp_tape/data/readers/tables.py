"""Tables as features and labels: which column has the labels, and which ones are no features."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_tape.data.contents import Array, Contents
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("label", "labels", "class", "target", "y")  # names of the column of the labels, lower case
ID = re.compile(r"(?i:id|idx|index|row|row_?id|.*[_ -]id)|.*[a-z]I[dD]|Unnamed: 0|")
PIXEL = re.compile(r"(?i:pixel|px|p)?_?\d+(x\d+)?")
MOST_CLASSES = 1000  # of a column without a name that says that it has the labels


def contents(
    frames: "Mapping[str, pd.DataFrame]",
    label: str | None,
    source: Path,
    has_names: bool = True,
    class_names: Mapping[str, Mapping[int, str]] | None = None,
) -> Contents:
    """Returns features and labels of tables.

    Args:
        frames: table of each part.
        label: column of the labels as in `Reading`.
        source: file or directory of the data.
        has_names: whether the columns have names; otherwise, these are their numbers.
        class_names: names of the classes, by column.

    Raises:
        DataError: it is not clear which column has the labels, or a column cannot be used.
    """
    train = frames["train"]
    key = label_column(train, label, source)
    ids = [name for name in train.columns if has_names and name != key and is_id(name, train[name])]
    remarks = [f"the column {name or 'without a name'} numbers the rows and is no feature" for name in ids]
    remarks.append(f"the labels are the column {key}" + ("" if isinstance(key, str) else " (counted from 0)"))
    features = [name for name in train.columns if name != key and name not in ids]
    parts = {}
    for part, frame in frames.items():
        missing = [name for name in [*features, key] if name not in frame.columns]
        if missing == [key] and part != "train":
            remarks.append(f"the {part} table has no column {key} and is not used, as it has no labels")
            continue
        if missing:
            raise DataError(
                f"{source}: the {part} table has no column {missing[0]}", "use the same columns for all parts"
            )
        where = f"{source}" if len(frames) == 1 else f"{source}, {part}"
        parts[part] = numbers(frame[features], where, source, has_names), labels(frame[key], where)
    shape = _image_shape(features, parts["train"][0], has_names)
    if shape:
        remarks.append(f"the columns are pixels of images of {shape[0]}x{shape[1]}")
        parts = {part: (x.reshape(-1, *shape), y) for part, (x, y) in parts.items()}
    return Contents(parts, source, (class_names or {}).get(str(key), {}), tuple(remarks))


def is_id(name: object, column: "pd.Series[Any]") -> bool:
    """Whether a column has an id or a number of each row."""
    is_named = isinstance(name, str) and ID.fullmatch(name)
    return bool(is_named and column.dtype.kind not in "fb" and column.is_unique and len(column) > 1)


def label_column(frame: "pd.DataFrame", label: str | None, source: Path) -> Any:
    """Returns the name of the column of the labels: the given one, or one found by its name or its values."""
    if label is not None:
        return _given(frame, label, source)
    for known in LABELS:
        found = [name for name in frame.columns if str(name).strip().lower() == known]
        if len(found) == 1:
            return found[0]
    others = [name for name in frame.columns if not is_id(name, frame[name])]
    ends = list(dict.fromkeys([*others[:1], *others[-1:]]))
    found = [name for name in ends if _has_few_values(frame[name])]
    if len(found) == 1 and len(others) > 1 and _are_class_numbers(frame[found[0]]):
        return found[0]
    raise DataError(
        f"{source}: no column is named label, class, target or y, and it is not clear whether the first or "
        f"the last of the {count(len(frame.columns), 'column')} has the labels",
        "type dataset.label=NAME, or dataset.label=0 for the first one or dataset.label=-1 for the last one",
    )


def _given(frame: "pd.DataFrame", label: str, source: Path) -> Any:
    """Returns the column with a name or a number."""
    names = {str(name): name for name in frame.columns}
    if label in names:
        return names[label]
    if re.fullmatch(r"-?\d+", label) and -len(names) <= int(label) < len(names):
        return frame.columns[int(label)]
    near = difflib.get_close_matches(label, names, 1, 0) or [""]
    is_plain = re.fullmatch(r"[\w.]+", near[0])  # others would have to be quoted
    raise DataError(
        f"{source} has no column {label}; it has {_listed(names)}",
        f"did you mean dataset.label={near[0] if is_plain else list(names).index(near[0])} ?",
    )


def _has_few_values(column: "pd.Series[Any]") -> bool:
    """Whether a column has texts, or at least two different integers, each of them twice on average."""
    n = column.nunique() if column.dtype.kind in "iu" else 0
    return column.dtype.kind not in "iufb" or 2 <= n <= min(MOST_CLASSES, len(column) // 2)


def _are_class_numbers(column: "pd.Series[Any]") -> bool:
    """Whether a column has texts, or all integers from the smallest to the largest one."""
    is_text = column.dtype.kind not in "iu"
    return is_text or int(column.max()) - int(column.min()) + 1 == column.nunique()


def numbers(frame: "pd.DataFrame", where: str, source: Path, has_names: bool) -> Array:
    """Returns the numbers of columns, [n, columns], or refuses those with texts or missing values."""
    import pandas as pd

    if not len(frame.columns):
        raise DataError(f"{where} has no columns besides the labels", "use a table with features")
    converted = {
        name: pd.to_numeric(frame[name].astype(str), errors="coerce")
        for name in frame.columns
        if frame[name].dtype.kind not in "iufb"
    }
    unusable = [name for name in frame.columns if converted.get(name, frame[name]).hasnans]
    if unusable:
        raise _unusable(frame, unusable, where, source, has_names)
    if converted:
        frame = frame.assign(**converted)
    dtype = np.result_type(*{getattr(each, "numpy_dtype", each) for each in frame.dtypes})
    values: Array = frame.to_numpy(np.uint8 if dtype.kind == "b" else dtype)
    return values


def _listed(names: Iterable[Any]) -> str:
    """Returns names for a message, at most eight of them."""
    texts = list(map(str, names))
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")


def _unusable(
    frame: "pd.DataFrame", names: list[Any], where: str, source: Path, has_names: bool
) -> DataError:
    """Returns the error about columns with texts or missing values."""
    import pandas as pd

    column = frame[names[0]]
    missing = column.isna().to_numpy()
    text = pd.to_numeric(column.astype(str), errors="coerce").isna().to_numpy() & ~missing
    wrong = text if text.any() else missing
    row = int(np.argmax(wrong))
    what = f"texts such as {str(column.iloc[row])!r}" if text.any() else "no value"
    others = f" (also unusable: {_listed(names[1:])})" if names[1:] else ""
    if not text.any():
        remedy = "dropna()"
    elif column[text].nunique() == 1 and not text.all():  # such as a question mark for a missing value
        remedy = f"replace({str(column.iloc[row])!r}, None).dropna()"
    else:
        remedy = f"drop(columns={names})"
    csv = f"read_csv('{source}', sep=None, engine='python'{'' if has_names else ', header=None'})"
    table = f"read_parquet('{source}')" if source.suffix == ".parquet" else csv
    header = "" if has_names else ", header=False"
    return DataError(
        f"{where}: the column {names[0]} has {what} in {wrong.sum():,} of {len(column):,} rows, first in "
        f"row {row + 1}{others}",
        f'for example, type python -c "import pandas; pandas.{table}.{remedy}'
        f".to_csv('numbers.csv', index=False{header})\", then set dataset.path=numbers.csv",
    )


def labels(column: "pd.Series[Any]", where: str) -> Array:
    """Returns labels as numbers or texts, [n]."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{where}: the column {column.name} of the labels has no value in {missing.sum():,} of "
            f"{len(column):,} rows, first in row {np.argmax(missing) + 1}",
            "leave out the rows without a label",
        )
    if column.dtype.kind in "iufb":
        return np.asarray(column, getattr(column.dtype, "numpy_dtype", column.dtype))
    return np.array(list(map(str, column)))


def _image_shape(names: list[Any], x: Array, has_names: bool) -> tuple[int, int] | None:
    """Returns height and width if the columns are pixels of square images, by their names or values."""
    side = math.isqrt(x.shape[1])
    if side < 8 or side * side != x.shape[1] or x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255:
        return None
    is_pixels = not has_names or all(PIXEL.fullmatch(str(name)) for name in names)
    return (side, side) if is_pixels else None
