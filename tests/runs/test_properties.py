"""Property-based tests: settings, arrays, journals, checkpoints and records are accepted only if valid.

`MLP_TAPE_CASES=100000` sets the number of examples per test; the default is 300.
"""

import copy
import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, flatten, to_dict
from mlp_tape.data import datasets
from mlp_tape.data.contents import KEYS
from mlp_tape.errors import BrokenFileError, ConfigError, DataError
from mlp_tape.storage import checkpoint, journal, run_paths, run_record
from mlp_tape.storage.journal import Journal, Row

CASES = int(os.environ.get("MLP_TAPE_CASES", "300"))
many = settings(
    max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)
NAMES = [key for key, _ in flatten(Settings())]
DEFAULTS = to_dict(Settings())

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["mnist", "adam", "sgd", "cosine", "1e400", "nan", "a.b", "${lr}", "${oc.env:X}", "???", "~", "-0"]
    ),
)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def field_of(key: str) -> Any:
    """Returns the dataclass field of a setting."""
    kind: Any = Settings
    *groups, name = key.split(".")
    for group in groups:
        kind = type(getattr(kind(), group))
    return kind.__dataclass_fields__[name]


@many
@given(changes=st.dictionaries(st.sampled_from(NAMES), anything, min_size=1, max_size=3))
def test_settings_are_valid_or_rejected(changes: dict[str, Any]) -> None:
    given_settings = copy.deepcopy(DEFAULTS)
    for key, value in changes.items():
        *groups, name = key.split(".")
        place = given_settings
        for group in groups:
            place = place[group]
        place[name] = value
    try:
        composed = OmegaConf.create(given_settings)
    except OmegaConfBaseException:  # Hydra rejects it during composition
        return
    try:
        found = validation.parse(composed)
    except ConfigError as error:
        assert error.what and error.hint
        assert "\n" not in error.what and "\n" not in error.hint
        return
    for key, value in flatten(found):
        field = field_of(key)
        assert field.metadata["check"](value), key
        assert not isinstance(value, float) or math.isfinite(value)


def archive(changes: dict[str, np.ndarray] | None = None) -> bytes:
    """Returns an archive of valid arrays, some of them replaced."""
    arrays: dict[str, np.ndarray] = {
        "x_train": np.arange(96, dtype=np.uint8).reshape(6, 4, 4),
        "y_train": np.arange(6) % 3,
        "x_test": np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
        "y_test": np.arange(3),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **(arrays | (changes or {})))
    return buffer.getvalue()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Generates contents in which bytes are changed, removed or inserted, or the end is missing."""

    def apply(edits: list[tuple[str, int, bytes]]) -> bytes:
        result = bytearray(content)
        for kind, at, piece in edits:
            at %= len(result) + 1
            if kind == "change":
                result[at : at + len(piece)] = piece
            elif kind == "insert":
                result[at:at] = piece
            elif kind == "cut":
                del result[at : at + 1 + len(piece)]
            elif kind == "zeros":
                result[at : at + 64] = bytes(64)
            else:
                del result[at:]
        return bytes(result)

    kinds = st.sampled_from(["change", "insert", "cut", "zeros", "end"])
    edit = st.tuples(kinds, st.integers(0, len(content)), st.binary(min_size=1, max_size=8))
    return st.lists(edit, min_size=1, max_size=4).map(apply)


def check_dataset(path: Path) -> None:
    """Checks that a file is either loaded as a valid data set, or rejected with a hint."""
    try:
        found = datasets.load("arrays", str(path))
    except DataError as error:
        assert error.what and error.hint
        return
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert x.dtype in (np.uint8, np.float32)
        assert len(x) == len(y) > 0
        assert np.isfinite(x).all()
        assert y.dtype == np.int32
        assert 0 <= y.min() <= y.max() < found.n_classes


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for generated files."""
    return tmp_path_factory.mktemp("generated")


@many
@given(content=damaged(archive()) | st.binary(max_size=300))
def test_damaged_archive_is_read_completely_or_rejected(directory: Path, content: bytes) -> None:
    path = directory / "damaged.npz"
    path.write_bytes(content)
    check_dataset(path)


dtypes = st.sampled_from(["u1", "i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "U3", "S2", "M8[s]", "V4"])
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@many
@given(
    changes=st.dictionaries(
        st.sampled_from(["x_train", "y_train", "x_test", "y_test", "other"]),
        st.tuples(dtypes, shapes, st.binary(min_size=64, max_size=64)),
        min_size=1,
    )
)
def test_arrays_of_any_kind_are_valid_or_rejected(
    directory: Path, changes: dict[str, tuple[str, tuple[int, ...], bytes]]
) -> None:
    arrays = {}
    for key, (dtype, shape, content) in changes.items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        arrays[key] = np.frombuffer((content * (size // 64 + 1))[:size], dtype).reshape(shape)
    path = directory / "arrays.npz"
    path.write_bytes(archive(arrays))
    check_dataset(path)


ROWS = [Row("train/loss", step, 0.5 / (step + 1), 1_700_000_000_000 + step) for step in range(20)]
JOURNAL = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@many
@given(content=damaged(JOURNAL) | st.binary(max_size=200), sent=st.integers(-5, 2000))
def test_damaged_journal_is_read_up_to_the_damage(
    tmp_path_factory: pytest.TempPathFactory, directory: Path, content: bytes, sent: int
) -> None:
    (directory / run_paths.JOURNAL).write_bytes(content)
    with Journal(directory) as found:
        for row in [*journal.rows_after(directory, sent, 1000)[0], *journal.rows(directory, "train/loss")]:
            assert type(row.step) is int
            assert math.isfinite(row.value)
        assert journal.count_after(directory, sent) >= 0
        journal.last_step(directory, "train/loss")
        try:
            found.recover(sent)
        except BrokenFileError:
            return
        valid = (directory / run_paths.JOURNAL).read_bytes()
        assert content.startswith(valid)
        assert valid.endswith(b"\n") or not valid
        found.append([Row("test/loss", 10**9, 1.0, 1)])
        assert [row.key for row in journal.rows(directory, "test/loss")][-1:] == ["test/loss"]


ARRAYS = {"w1": np.arange(12, dtype=np.float32).reshape(3, 4), "b1": np.zeros(4, np.float32)}


@many
@given(edit=st.data())
def test_damaged_checkpoint_is_read_unchanged_or_rejected(directory: Path, edit: st.DataObject) -> None:
    folder = directory / "checkpoints"
    for path in folder.glob("*"):
        path.unlink()
    checkpoint.save(folder, 7, ARRAYS, {"epochs": 1.5, "journal": 100})
    path = folder / edit.draw(st.sampled_from(["step-000000007.npz", "step-000000007.json"]))
    path.write_bytes(edit.draw(damaged(path.read_bytes())))
    try:
        found = checkpoint.load(folder / "step-000000007.json")
    except BrokenFileError:
        return
    assert found.step == 7
    assert found.about["journal"] == 100
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@many
@given(edit=st.data())
def test_damaged_record_is_read_or_rejected(directory: Path, edit: st.DataObject) -> None:
    record = run_record.RunRecord(directory, name="lr=0.1", settings=DEFAULTS)
    record.save()
    path = directory / run_paths.RECORD
    path.write_bytes(edit.draw(damaged(path.read_bytes())))
    try:
        found = run_record.read(directory)
    except BrokenFileError:
        return
    assert isinstance(found.name, str) and isinstance(found.settings, dict) and isinstance(found.pid, int)


def test_decompression_bomb_is_rejected_before_it_is_unpacked(directory: Path) -> None:
    path = directory / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", header.getvalue() + bytes(1_000_000))
    with pytest.raises(DataError) as caught:
        datasets.load("arrays", str(path))
    assert "bomb.npz" in caught.value.what
