"""One's own data: labels, scales, parts, doubts, names, and functions that return data."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlp_tape.data import allocation, contents, datasets, labels, splits
from mlp_tape.data.contents import Contents
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, DataError, MlpTapeError
from mlp_tape.tensors.scale import Scale

NAMES = np.array(["ant", "bee", "cat"])
Y = np.arange(12) % 3


def own(scale: str = "auto", **changes: Any) -> Dataset:
    """Prepares rows of two columns in three classes, some of the arrays replaced; None leaves one out."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(size=(12, 2)),
        "y_train": Y,
        "x_test": rng.normal(size=(6, 2)),
        "y_test": Y[:6],
    } | changes
    return datasets.prepared(
        contents.of_arrays({key: array for key, array in arrays.items() if array is not None}), scale=scale
    )


SPELLINGS: dict[str, tuple[Callable[[np.ndarray], Any], tuple]] = {
    "integers from 1": (lambda y: y + 1, (1, 2, 3)),
    "integers with gaps": (lambda y: 10 * y, (0, 10, 20)),
    "negative integers": (lambda y: y - 1, (-1, 0, 1)),
    "uint8": (lambda y: y.astype(np.uint8), (0, 1, 2)),
    "whole floats": (lambda y: y.astype(np.float32), (0, 1, 2)),
    "a column": (lambda y: y[:, None], (0, 1, 2)),
    "one-hot floats": (lambda y: np.eye(3)[y], (0, 1, 2)),
    "one-hot bools": (lambda y: np.eye(3, dtype=bool)[y], (0, 1, 2)),
    "strings": (lambda y: NAMES[y], ("ant", "bee", "cat")),
    "bytes": (lambda y: NAMES[y].astype("S"), ("ant", "bee", "cat")),
    "objects": (lambda y: NAMES[y].astype(object), ("ant", "bee", "cat")),
    "objects of integers": (lambda y: (y + 1).astype(object), (1, 2, 3)),
    "a column of strings": (lambda y: NAMES[y][:, None], ("ant", "bee", "cat")),
    "strings of digits": (lambda y: (y + 7).astype(str), (7, 8, 9)),
    "strings with leading zeros": (lambda y: np.char.zfill(y.astype(str), 3), ("000", "001", "002")),
    "a category": (lambda y: pd.Categorical(NAMES[y]), ("ant", "bee", "cat")),
    "a series": (lambda y: pd.Series(NAMES[y]), ("ant", "bee", "cat")),
    "a masked array without masked values": (lambda y: np.ma.array(y), (0, 1, 2)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_are_understood_in_each_spelling(spelling: str) -> None:
    convert, classes = SPELLINGS[spelling]
    found = own(y_train=convert(Y), y_test=convert(Y[:6]))
    assert found.classes == classes
    assert found.class_names == tuple(map(str, classes))
    np.testing.assert_array_equal(found.y_train, Y)
    np.testing.assert_array_equal(found.y_test, Y[:6])
    assert found.y_train.dtype == np.int32
    assert bool(found.remarks) == (classes != (0, 1, 2))


def test_bools_are_two_classes() -> None:
    found = own(y_train=Y > 0, y_test=Y[:6] > 0)
    assert found.classes == (False, True)
    np.testing.assert_array_equal(found.y_train, Y > 0)


BAD_LABELS = {
    "real numbers": (Y / 2, "contains 0.5, which is no class"),
    "NaN": (np.where(Y == 1, np.nan, Y), "4 of 12 labels of y_train are NaN"),
    "missing objects": (np.where(Y == 1, None, NAMES[Y].astype(object)), "4 of 12 labels .* are missing"),
    "empty strings": (np.where(Y == 1, "", NAMES[Y]), "4 of 12 labels of y_train are empty"),
    "masked": (np.ma.array(Y, mask=Y == 1), "4 labels are masked"),
    "times": (Y.astype("datetime64[D]"), "contains times"),
    "time differences": (Y.astype("timedelta64[s]"), "contains times"),
    "several labels for a row": (np.ones((12, 3), int), "not one-hot: one has 3 values other than 0"),
    "a row without a label": (np.zeros((12, 3), int), "not one-hot"),
    "complex": (Y * 1j, "complex128"),
    "several types": (np.array([*NAMES[Y][:11], 3], object), "several types: int, str"),
    "dictionaries": (np.array([{}] * 12, object), "objects"),
    "names in one part only": (NAMES[Y], "differ in kind: those of y_train are strings"),
    "rank 3": (np.zeros((12, 1, 1), int), r"shape \(12, 1, 1\)"),
    "one missing": (Y[:11], "x_train has 12 rows and y_train 11"),
    "huge": (np.full(12, 2**63, np.uint64), "goes up to 9223372036854775808"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_what_is_no_label_is_refused_with_a_count(case: str) -> None:
    y, message = BAD_LABELS[case]
    with pytest.raises(DataError, match=message) as error:
        own(y_train=y)
    assert error.value.hint


def test_a_single_class_is_refused_with_a_count() -> None:
    with pytest.raises(DataError, match="all 18 labels are 3"):
        own(y_train=np.full(12, 3), y_test=np.full(6, 3))


def test_classes_that_one_part_lacks_are_told_with_counts() -> None:
    doubts = own(y_train=Y, y_test=np.array([0, 0, 1, 1, 5, 5])).doubts
    assert "1 class (2; 4 rows) only in the train part: they are never tested" in doubts
    assert "1 class (5; 2 rows) only in the test part: they cannot be predicted" in doubts
    assert not own().doubts


def test_the_label_255_is_told() -> None:
    y = np.where(Y == 2, 255, Y)
    assert any("the label 255 (6 rows) often marks" in doubt for doubt in own(y_train=y, y_test=y[:6]).doubts)


def test_labels_that_are_measurements_are_told() -> None:
    y = np.arange(40)
    x = np.random.default_rng(0).normal(size=(40, 2))
    doubts = own(x_train=x, y_train=y, x_test=x + 1, y_test=y).doubts
    assert not [doubt for doubt in doubts if "measurements" in doubt]  # 2 rows a class
    doubts = own(x_train=x, y_train=y, x_test=x[:6] + 1, y_test=y[:6]).doubts
    assert [doubt for doubt in doubts if "40 different labels in 46 rows" in doubt]


def images(low: float, high: float, dtype: Any, shape: tuple[int, ...] = (4, 4)) -> np.ndarray:
    """Returns 12 images whose values go from `low` to `high`."""
    return np.linspace(low, high, 12 * int(np.prod(shape))).reshape(12, *shape).astype(dtype)


COLUMNS = np.random.default_rng(0).normal(size=(12, 3)) * [1, 1, 1000]
SCALES = {
    "bytes": (images(0, 255, np.uint8), Scale((255.0,))),
    "bytes as int64": (images(0, 255, np.int64), Scale((255.0,))),
    "dark bytes": (images(0, 130, np.uint8), Scale((255.0,))),
    "digits": (images(0, 16, np.uint8), Scale((16.0,))),
    "two values": (images(0, 1, np.uint8), Scale()),
    "bools": (images(0, 1, bool), Scale()),
    "12 bits": (images(0, 4000, np.uint16), Scale((4095.0,))),
    "16 bits": (images(0, 65000, np.uint16), Scale((65535.0,))),
    "digits as floats": (images(0, 16, np.uint8).astype(float), Scale((16.0,))),
    "two values as floats": (images(0, 1, np.uint8).astype(np.float32), Scale()),
    "unit floats": (images(0, 1, np.float32), Scale()),
    "standardized floats": (images(-2, 2, np.float64), Scale()),
    "pixels as floats": (images(0, 255, np.float64), Scale((255.0,))),
    "rows of pixels as floats": (images(0, 255, np.float64, (16,)).round(), Scale((255.0,))),
}


@pytest.mark.parametrize("case", SCALES)
def test_scale_is_chosen_by_dtype_and_range(case: str) -> None:
    x, scale = SCALES[case]
    found = own(x_train=x, x_test=x[6:])
    assert found.scale == scale
    assert not [doubt for doubt in found.doubts if "scale" in doubt]
    assert str(found.ranges["train"]).startswith(str(x.dtype))


@pytest.mark.parametrize("x", [COLUMNS, images(-800, 800, np.int16), images(0, 900, int, (2,))], ids=len)
def test_columns_of_unlike_range_and_integers_that_are_no_pixels_are_standardized(x: np.ndarray) -> None:
    found = own(x_train=x, x_test=x[:6] * 0.9 if x.dtype.kind == "f" else x[:6])
    rows = found.x_train.reshape(len(x), -1)
    scaled = (rows - np.array(found.scale.offset)) / np.array(found.scale.divisor)
    axis = 0 if x.ndim == 2 else None
    np.testing.assert_allclose(scaled.mean(axis=axis), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=axis), 1, rtol=1e-5)
    assert found.span == pytest.approx((scaled.min(), scaled.max()), abs=1e-4)


def test_standardization_is_computed_from_the_training_rows_alone_in_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1, 10, 0] + [1e4, -5, 7]
    whole = own("standardize", x_train=x, x_test=x[:6], y_train=np.arange(500) % 3).scale
    np.testing.assert_allclose(whole.offset, x.astype(np.float32).mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(whole.divisor[:2], x[:, :2].std(axis=0), rtol=1e-3)
    assert whole.divisor[2] == 1  # of a constant column
    monkeypatch.setattr(allocation, "CHUNK", 1000)
    pieces = own("standardize", x_train=x, x_test=x[:6], y_train=np.arange(500) % 3).scale
    np.testing.assert_allclose(pieces.divisor, whole.divisor, rtol=1e-9)


DOUBTS = {
    "divided twice": (images(0, 1 / 255, np.float32), "auto", "type dataset.scale=0.00392157"),
    "divided by the setting too": (images(0, 1, np.float32), "255", "type dataset.scale=1, or"),
    "percent": (images(0, 100.5, np.float32), "auto", "type dataset.scale=standardize"),
    "undivided": (images(0, 255, np.uint8), "1", "type dataset.scale=standardize"),
    "unlike columns": (COLUMNS, "1000", "orders of magnitude: type dataset.scale=standardize"),
    "constant": (images(7, 7, np.uint8), "auto", "all values of x_train are 7"),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_a_range_that_cannot_be_meant_is_told_with_what_to_type(case: str) -> None:
    x, scale, hint = DOUBTS[case]
    found = own(scale, x_train=x, x_test=x[6:])
    assert [doubt for doubt in found.doubts if hint in doubt]
    if "type dataset.scale=" in hint and "constant" not in case:
        typed = hint.partition("dataset.scale=")[2].rstrip(", or")
        assert not [doubt for doubt in own(typed, x_train=x, x_test=x[6:]).doubts if "scale" in doubt]


def test_halves_of_unlike_range_are_told() -> None:
    x = images(0, 255, np.float32)
    doubts = own(x_train=x, x_test=x[:6] / 255).doubts
    assert [doubt for doubt in doubts if "x_test (float32 from 0 to" in doubt and "scale both alike" in doubt]


BAD_VALUES = {
    "masked": (np.ma.array(images(0, 9, int), mask=images(0, 9, int) == 3), "values are masked"),
    "times": (images(0, 9, int).astype("timedelta64[s]"), r"timedelta64\[s\] \(times\)"),
    "text": (np.full((12, 2), "a"), r"\(text\)"),
    "objects": (np.full((12, 2), None), r"\(Python objects\)"),
    "NaN": (np.where(np.arange(24).reshape(12, 2) == 9, np.nan, 0), "1 of 24 values, the first in row 4"),
    "infinity": (
        np.where(np.arange(24).reshape(12, 2) > 20, np.inf, 0),
        "3 of 24 values, the first in row 10",
    ),
    "beyond float32": (np.full((12, 2), 1e300), "24 of 24 values, the first in row 0"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_what_is_no_value_is_refused_with_a_count(case: str) -> None:
    x, message = BAD_VALUES[case]
    with pytest.raises(DataError, match=message):
        own(x_train=x)


def test_integers_beyond_a_byte_in_one_part_make_floats_of_all() -> None:
    found = own(x_train=np.arange(24).reshape(12, 2), x_test=np.arange(12).reshape(6, 2) + 300)
    assert found.x_train.dtype == found.x_test.dtype == np.float32
    with pytest.raises(DataError, match="differ in dtype: uint8 and float32"):
        own(x_train=images(0, 255, np.uint8), x_test=images(0, 1, np.float32)[:6])


def test_test_images_that_are_training_images_are_counted() -> None:
    x = np.random.default_rng(0).normal(size=(12, 2))
    doubts = own(x_train=x, x_test=np.concatenate([x[:2], x[:4] + 9])).doubts
    assert [doubt for doubt in doubts if doubt.startswith("2 of 6 rows of x_test are also in x_train")]


def test_a_test_part_is_split_off_of_each_class_by_its_seed() -> None:
    x, y = np.random.default_rng(0).normal(size=(300, 2)), np.repeat([0, 1, 2], [200, 90, 10])
    arrays = contents.of_arrays({"x_train": x, "y_train": y})
    split = datasets.prepared(arrays, test_fraction=0.2)
    np.testing.assert_array_equal(np.bincount(split.y_test), [40, 18, 2])
    np.testing.assert_array_equal(np.bincount(split.y_train), [160, 72, 8])
    both = np.concatenate([split.x_train, split.x_test])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(x.astype(np.float32), axis=0))
    assert "60 rows are split off" in split.remarks[0]
    assert datasets.prepared(arrays, test_fraction=0.2).sha256 == split.sha256
    assert datasets.prepared(arrays, test_fraction=0.2, split_seed=1).sha256 != split.sha256


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_a_split_leaves_and_takes_a_row_of_each_class(fraction: float) -> None:
    kept, chosen = splits.stratified(np.array([0, 0, 1, 1, 1, 2], np.int32), fraction, 0)
    assert len(kept) + len(chosen) == 6
    assert set(kept) | set(chosen) == set(range(6))
    assert {0, 1}.issubset([0, 0, 1, 1, 1, 2][row] for row in chosen)
    assert 5 in kept
    with pytest.raises(DataError, match="none of 3 rows can be split off"):
        splits.stratified(np.arange(3, dtype=np.int32), fraction, 0)


def test_validation_images_of_the_source_are_used() -> None:
    x = np.random.default_rng(1).normal(size=(6, 2))
    found = own(x_validation=x, y_validation=Y[:6])
    assert datasets.with_validation(found, 0.0) is found
    assert len(found.y_validation) == 6
    assert found.sha256 != own().sha256
    with pytest.raises(DataError, match="the data have a validation part of 6 images"):
        datasets.with_validation(found, 0.5)


def test_a_name_is_recorded_only_for_the_data_of_that_name(tmp_path: Path, mnist_5k: Dataset) -> None:
    digits = datasets.load("digits")
    keys = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "digits.npz", **{key: getattr(digits, key) for key in keys})
    changed = {key: getattr(digits, key) for key in keys} | {"y_train": digits.y_train[::-1]}
    np.savez(tmp_path / "other.npz", **changed)
    for typed in ("mnist", "arrays", "digits", "fashion_mnist"):
        found = datasets.load(typed, str(tmp_path / "digits.npz"))
        assert (found.name, found.scale, found.is_own) == ("digits", Scale((16.0,)), False)
        found = datasets.load(typed, str(tmp_path / "other.npz"))
        assert (found.name, found.scale, found.is_own) == ("arrays", Scale((16.0,)), True)


def test_labels_of_another_spelling_are_other_data(tmp_path: Path) -> None:
    digits = datasets.load("digits")
    arrays = {"x_train": digits.x_train, "x_test": digits.x_test}
    found = datasets.prepared(
        contents.of_arrays(arrays | {"y_train": digits.y_train + 1, "y_test": digits.y_test + 1})
    )
    assert found.sha256 != digits.sha256
    assert found.name == "arrays"


def test_names_of_the_source_are_names_of_classes() -> None:
    base = own()
    parts = {"train": (base.x_train, Y + 1), "test": (base.x_test, Y[:6] + 1)}
    found = datasets.prepared(Contents(parts, class_names={1: "ant", 2: "bee", 3: "cat"}))
    assert (found.classes, found.class_names) == ((1, 2, 3), ("ant", "bee", "cat"))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module with a function f and returns the name of the function."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = []

    def write(code: str) -> str:
        name = f"own_data_{len(names)}_{tmp_path.name.replace('-', '_')}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(
            f"import numpy as np\nX, Y = np.eye(6), np.arange(6) % 3\n{code}\n"
        )
        return f"{name}.f"

    yield write
    for name in names:
        sys.modules.pop(name, None)


FORMS = {
    "pairs": "def f(): return (X, Y), (X, Y)",
    "lists": "def f(): return [[X.tolist(), Y.tolist()], [X.tolist(), Y.tolist()]]",
    "three pairs": "def f(): return (X, Y), (X, Y), (X, Y)",
    "one pair": "def f(): return np.tile(X, (2, 1)), np.tile(Y, 2)",
    "x and y": "def f(): return {'x': np.tile(X, (2, 1)), 'y': np.tile(Y, 2)}",
    "a dictionary": "def f(): return dict(x_train=X, y_train=Y, x_test=X, y_test=Y)",
    "a table": "import pandas as pd\ndef f(): return pd.DataFrame(np.eye(12)), pd.Series(np.arange(12) % 3)",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_function_may_return_its_data_in_each_form(module: Callable[[str], str], form: str) -> None:
    found = datasets.load(name := module(FORMS[form]))
    assert (found.name, found.n_features, found.n_classes) == (name, 12 if form == "a table" else 6, 3)
    assert len(found.y_validation) == (6 if form == "three pairs" else 0)
    assert Path(found.source).name == f"{name.partition('.')[0]}.py"


def test_a_function_that_takes_a_path_receives_it(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module("def f(path): return np.load(path)['x'], np.arange(12) % 3")
    np.savez(tmp_path / "x.npz", x=np.arange(24).reshape(12, 2))
    found = datasets.load(name, str(tmp_path / "x.npz"))
    assert found.source == str(tmp_path / "x.npz")
    with pytest.raises(ConfigError, match=r"takes an argument") as error:
        datasets.load(name)
    assert "dataset.path=PATH" in error.value.hint
    with pytest.raises(ConfigError, match="takes no path"):
        datasets.load(module(FORMS["pairs"]), "x.npz")


BAD_FUNCTIONS = {
    "ragged": ("def f(): return ([[1, 2], [3]], [0, 1]), ([[1, 2]], [0])", "returns what is no array"),
    "nothing": ("def f(): pass", "returns NoneType"),
    "a number of arrays": ("def f(): return X, Y, X, Y", "4 values that are no pairs"),
    "without labels": ("def f(): return {'x_train': X}", "does not return y_train"),
    "half a test part": ("def f(): return dict(x_train=X, y_train=Y, x_test=X)", "does not return y_test"),
    "an exception": ("def f(): 1 / 0", "ZeroDivisionError"),
    "masked": ("def f(): return np.ma.array(X, mask=X > 0), Y", "6 values are masked"),
}


@pytest.mark.parametrize("case", BAD_FUNCTIONS)
def test_a_function_that_returns_no_data_is_refused(module: Callable[[str], str], case: str) -> None:
    code, message = BAD_FUNCTIONS[case]
    with pytest.raises(MlpTapeError, match=message) as error:
        datasets.load(module(code))
    assert error.value.exit_code == 2


def test_sorted_labels_are_noticed_and_mixed_ones_are_not() -> None:
    y = np.repeat(np.arange(10), 40)
    rng = np.random.default_rng(0)
    assert splits.is_sorted(y)
    assert splits.is_sorted(y[::-1])
    assert not splits.is_sorted(rng.permutation(y))
    assert not splits.is_sorted(np.arange(400) % 10)
    assert not splits.is_sorted(np.zeros(400, int))
    assert not splits.is_sorted(rng.permutation(np.repeat([0, 1], [390, 10])))


def test_no_doubt_about_a_named_data_set(mnist_5k: Dataset) -> None:
    assert not mnist_5k.doubts
    assert not mnist_5k.remarks
    assert labels.are_numbers(mnist_5k.classes)
    assert not dataclasses.replace(mnist_5k, name="arrays").doubts
