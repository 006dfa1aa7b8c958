"""Reader of tables as text: CSV, TSV and similar, with or without a header row, also with gzip."""

import csv
import dataclasses
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_tape.data import allocation
from mlp_tape.data.contents import Contents, Reading
from mlp_tape.data.readers import compressed, damage, tables
from mlp_tape.data.readers.table_files import Tables
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = (";", "\t", "|", ",")  # a comma last: it may be the decimal point
SAMPLE = 2**20  # bytes that are looked at
LINES = 50
EXPANSION = 4  # bytes of an array for a byte of text
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Dialect:
    r"""How a table is written.

    Attributes:
        encoding: name of the encoding.
        delimiter: delimiter, or `\s+` for blanks.
        has_names: whether the first row has the names of the columns.
        decimal: decimal point or comma.
    """

    encoding: str
    delimiter: str
    has_names: bool
    decimal: str


def read(files: Tables, reading: Reading, source: Path) -> Contents:
    """Reads the table of each part.

    Raises:
        DataError: a file is not a table, or cannot be used as one.
    """
    frames, remarks, has_names = {}, [], True
    for part, (path, labels) in files.items():
        frames[part], style = table(path)
        has_names = style.has_names
        if labels is not None:
            frames[part] = _joined(frames[part], table(labels, least=1)[0], labels)
        if style.encoding == "latin-1":
            remarks.append(f"{path.name} is read as Latin-1, as it is not UTF-8")
        if style.decimal == ",":
            remarks.append(f"{path.name} has decimal commas")
    found = tables.contents(frames, reading.label, source, has_names)
    if len(found.parts) > 1:
        remarks.append("; ".join(f"{files[part][0].name} is the {part} part" for part in found.parts))
    return Contents(found.parts, found.source, found.class_names, (*remarks, *found.remarks))


def table(path: Path, least: int = 2) -> "tuple[pd.DataFrame, Dialect]":
    """Reads a table with at least a number of columns."""
    with damage.named(path):
        style = dialect(path, least)
        if style is None:
            raise DataError(
                f"{path} is a text, but not a table", "docs/data.md lists the formats that are read"
            )
        try:
            return _frame(path, style), style
        except UnicodeDecodeError:  # beyond the beginning
            style = dataclasses.replace(style, encoding="latin-1")
            return _frame(path, style), style


def _joined(features: "pd.DataFrame", labels: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    """Returns features with the labels of another table as the column y."""
    columns = [name for name in labels.columns if not tables.is_id(name, labels[name])]
    if len(columns) != 1 or len(labels) != len(features):
        raise DataError(
            f"{path} has {count(len(columns), 'column')} and {count(len(labels), 'row')}, but one column and "
            f"{count(len(features), 'row')} of labels are needed",
            "provide one label for each row of features",
        )
    return features.assign(y=labels[columns[0]].to_numpy())


def dialect(path: Path, least: int = 2) -> Dialect | None:
    """Returns how a table is written, by its beginning; None if it is none, or has less columns."""
    with compressed.opened(path) as file:
        start = file.read(SAMPLE)
    encoding = next((name for bom, name in BOMS.items() if start.startswith(bom)), "utf-8")
    text = start.decode(encoding, "replace")
    if "\ufffd" in text[:-4]:
        encoding, text = "latin-1", start.decode("latin-1")
    lines = [line for line in text.splitlines()[: LINES + 1] if line.strip()]
    lines = lines[:-1] if len(start) == SAMPLE and len(lines) <= LINES else lines[:LINES]
    delimiter = _delimiter(lines) or ("," if least == 1 and lines else None)
    if delimiter is None:
        return None
    rows = _rows(lines, delimiter)
    cells = [cell for row in rows for cell in row]
    has_commas = delimiter != "," and any(re.fullmatch(r"-?\d+,\d+", cell) for cell in cells)
    decimal = "," if has_commas and not any(re.fullmatch(r"-?\d+\.\d+", cell) for cell in cells) else "."
    return Dialect(encoding, delimiter, _has_names(rows, decimal), decimal)


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    if delimiter == r"\s+":
        return [line.split() for line in lines]
    return [
        [cell.strip() for cell in row]
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    ]


def _delimiter(lines: list[str]) -> str | None:
    """Returns the first delimiter that divides nearly all lines into the same number of cells, above one."""
    for delimiter in (*DELIMITERS, r"\s+"):
        rows = _rows(lines, delimiter)
        if delimiter == r"\s+" and not any(_number(cell, ".") for row in rows for cell in row):
            return None  # words
        widths = Counter(map(len, rows))
        width, n = widths.most_common(1)[0] if widths else (0, 0)
        if width > 1 and n >= 0.8 * len(lines):
            return delimiter
    return None


def _has_names(rows: list[list[str]], decimal: str) -> bool:
    """Whether the first row has names: texts above numbers, texts only, or the numbers of the columns."""
    first, others = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    texts = [cell for cell in first if cell and not _number(cell, decimal)]
    counted = [cell for cell in first if cell and cell not in texts]
    if not counted:
        return True
    numbers = [[str(n) for n in range(start, start + len(counted))] for start in (0, 1)]
    if counted in numbers and len(counted) > (1 if texts else 3):
        return True
    return any(
        cell in texts and all(_number(row[column], decimal) for row in others)
        for column, cell in enumerate(first)
    )


def _number(cell: str, decimal: str) -> bool:
    """Whether a cell is a number; an empty one may be."""
    try:
        float(cell.replace(decimal, ".") or 0)
    except ValueError:
        return False
    return True


def _frame(path: Path, style: Dialect) -> "pd.DataFrame":
    """Reads a table with pandas."""
    import pandas as pd

    size = path.stat().st_size * EXPANSION
    if size > allocation.memory():
        raise DataError(
            f"{path} needs about {size / 2**30:,.0f} GiB as an array, more than the memory",
            "convert it to .npy files piece by piece, which are not read at once",
        )
    options: dict[str, Any] = {
        "sep": style.delimiter,
        "header": 0 if style.has_names else None,
        "decimal": style.decimal,
        "encoding": style.encoding,
        "skipinitialspace": True,
        "low_memory": False,
        "index_col": False,
    }
    try:
        with warnings.catch_warnings(), compressed.opened(path) as file:
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(file, **options)
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        where = f": line {found[2]} has {found[3]} cells, and not {found[1]}" if found else ""
        raise DataError(
            f"{path} has rows of different lengths{where}",
            "correct these rows, or quote cells with a delimiter",
        ) from error
