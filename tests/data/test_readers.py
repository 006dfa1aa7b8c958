"""Files as people have them: read exactly, or refused in two lines; sizes beyond the memory."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import files
from files import CASES, COLOR, COLOR_Y, DIGIT_PARTS, NAMES, TABLE, WHOLE, Case, X, Y
from mlp_tape.data import allocation, datasets
from mlp_tape.data.contents import Contents, Reading
from mlp_tape.data.readers import any_format, kinds
from mlp_tape.errors import DataError
from mlp_tape.training import host_arrays

READ = [case for case in CASES if not isinstance(case.expected, str)]
REFUSED = [case for case in CASES if isinstance(case.expected, str)]


def name(case: Case) -> str:
    return case.name


def read(path: Path, reading: Reading | None = None) -> Contents:
    return any_format.read(path, reading or Reading())


@pytest.mark.parametrize("case", READ, ids=name)
def test_file_is_read_as_it_was_saved(tmp_path: Path, case: Case) -> None:
    found = read(case.write(tmp_path), case.reading)
    assert not isinstance(case.expected, str)
    assert files.differs(found, case.expected) == ""
    assert case.remark in "\n".join(found.remarks)
    if case.class_names:
        assert found.class_names == case.class_names
    assert all("\n" not in remark for remark in found.remarks)


@pytest.mark.parametrize("case", READ, ids=name)
def test_data_set_is_that_of_the_same_arrays_as_npz(tmp_path: Path, case: Case) -> None:
    assert not isinstance(case.expected, str)
    if "one class" in case.name:
        pytest.skip("a data set has at least two classes")
    arrays = files.names("{kind}_{part}", case.expected)
    expected = datasets.load("arrays", str(files.npz("expected.npz", arrays)(tmp_path)))
    (tmp_path / "case").mkdir()
    reading = case.reading
    found = datasets.load(
        "arrays",
        str(case.write(tmp_path / "case")),
        label=reading.label,
        image_size=list(reading.image_size) if reading.image_size else None,
        image_mode=reading.image_mode,
    )
    assert (found.sha256, found.scale, found.classes) == (expected.sha256, expected.scale, expected.classes)


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_file_is_refused_in_two_lines(tmp_path: Path, case: Case) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = case.write(tmp_path)
    written = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as error:
        read(path, case.reading)
    assert isinstance(case.expected, str)
    assert case.expected in str(error.value)
    assert error.value.what and error.value.hint
    assert "\n" not in error.value.what and "\n" not in error.value.hint
    assert "allow_pickle" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == written != before or not path.exists()


def test_there_are_many_cases_with_different_names() -> None:
    assert len(READ) >= 60 and len(REFUSED) >= 60


@pytest.mark.parametrize("case", READ, ids=name)
def test_arrays_beyond_half_of_the_memory_are_in_temporary_files(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = case.write(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(allocation, "memory", lambda: 2**16)
    before = sorted(tmp_path.rglob("*"))
    try:
        found = read(path, case.reading)
    except DataError as error:
        assert "as an array, more than the memory" in error.what  # a table as text
        return
    assert sorted(tmp_path.rglob("*")) == before
    assert not isinstance(case.expected, str)
    assert files.differs(found, case.expected) == ""


@pytest.mark.parametrize("kind", ["npz", "npy", "idx", "png"])
@pytest.mark.parametrize("memory", [1, 2**40])
def test_arrays_can_be_used_by_tensorflow_without_a_copy(
    tmp_path: Path, kind: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation, "memory", lambda: memory)
    written = {
        "npz": files.npz("a.npz", {"x": X, "y": Y}),
        "npy": files.several(files.npy("x.npy", X), files.npy("y.npy", Y)),
        "idx": files.idx(suffix=".gz"),
        "png": files.pictures((X, Y)),
    }[kind](tmp_path)
    x, _ = read(written).parts["train"]
    assert host_arrays.is_usable(x)
    assert host_arrays.aligned(x, np.uint8) is x
    assert (_is_mapped(x)) == (memory == 1 or kind == "npy")


def _is_mapped(array: np.ndarray) -> bool:
    base = array
    while base is not None:
        if isinstance(base, np.memmap):
            return True
        base = getattr(base, "base", None)
    return False


def test_a_mapped_file_is_not_changed_by_a_change_of_the_array(tmp_path: Path) -> None:
    path = files.several(files.npy("x.npy", X), files.npy("y.npy", Y))(tmp_path)
    x, _ = read(path).parts["train"]
    x[:] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)


def test_only_the_beginning_of_a_file_is_read_to_find_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b"\x01")
        file.truncate(2**42)  # sparse; reading it would not end
    assert kinds.kind(path) == "unknown"
    with pytest.raises(DataError, match="of no known kind"):
        read(path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = files.npz("a.npz", {"x": X, "y": Y})(tmp_path)
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read all files
        with pytest.raises(DataError, match=r"a\.npz cannot be read: Permission denied"):
            read(path)
    finally:
        os.seteuid(user)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a directory"):
        read(tmp_path / "pipe")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "opened",)  # type: ignore[return-value]

    for path in (
        files.content("a.pkl", files.pickle.dumps(Harmful(), 2))(tmp_path),
        files.npz("a.npz", {"x": np.array([Harmful()] * 3), "y": Y[:3]})(tmp_path),
        files.npy("x.npy", np.array([Harmful()] * 3))(tmp_path),
    ):
        with pytest.raises(DataError):
            read(path)
    assert not (tmp_path / "opened").exists()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_are_read_or_refused_in_two_lines(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n, case in enumerate(CASES):
        place = tmp_path / str(n)
        place.mkdir()
        path = case.write(place)
        written = [each for each in sorted(place.rglob("*")) if each.is_file() and each.stat().st_size]
        if not written:
            continue
        file = written[rng.integers(len(written))]
        raw = bytearray(file.read_bytes())
        start = int(rng.integers(len(raw)))
        for position in rng.integers(min(len(raw), 300), size=seed % 3):  # most formats begin with a header
            raw[position] = rng.integers(256)
        if seed % 2:
            del raw[start : start + int(rng.integers(1, 1000))]
        file.write_bytes(raw)
        try:
            read(path, case.reading)
        except DataError as error:
            assert "\n" not in error.what and "\n" not in error.hint


def test_a_directory_that_links_to_itself_is_read_once(tmp_path: Path) -> None:
    files.pictures((COLOR, COLOR_Y))(tmp_path)
    (tmp_path / "red" / "loop").symlink_to(tmp_path)
    (tmp_path / "all").symlink_to(tmp_path)
    assert files.differs(read(tmp_path), {"train": files.IN_COLOR}) == ""


COMMANDS: dict[str, files.Parts] = {
    "missing values": {"train": (np.insert(TABLE[::2, [0, 2, 3]], 1, 1.0, 1), NAMES[::2])},
    "a question mark for a missing value": {
        "train": (
            np.insert(np.delete(TABLE, np.s_[3::4], 0)[:, [0, 2, 3]], 1, [1, 2, 3] * 10, 1),
            np.delete(NAMES, np.s_[3::4]),
        )
    },
    "texts among the features": {"train": (TABLE[:, 1:], NAMES)},
    "texts among the features, without a header": {"train": (TABLE[:, 1:], NAMES)},
    "zip of a directory": {"train": files.GREY},
    "tar.gz": {"train": files.GREY},
    "JSON": files.FLOWERS,
    "JSON lines": files.FLOWERS,
    "Arrow stream": files.FLOWERS,
    "Feather": files.FLOWERS,
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in COMMANDS], ids=name)
def test_the_command_in_a_hint_converts_the_file(tmp_path: Path, case: Case) -> None:
    with pytest.raises(DataError) as error:
        read(case.write(tmp_path), case.reading)
    typed, _, setting = error.value.hint.partition("type ")[2].rpartition(", then set dataset.path=")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(typed, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if done.returncode == 127:
        pytest.skip(f"install {shlex.split(typed)[0]}")
    assert done.returncode == 0, done.stderr
    assert files.differs(read(tmp_path / setting, case.reading), COMMANDS[case.name]) == ""


def test_the_size_in_a_hint_makes_images_readable(tmp_path: Path) -> None:
    path = files.several(files.pictures((X, Y)), files.content("0/x.png", files.png(COLOR[0])))(tmp_path)
    with pytest.raises(DataError, match=r"8x8 \(400\), 6x7 \(1\)") as error:
        read(path)
    assert error.value.hint == "type dataset.image_size=[8,8] to resize them"
    x, _ = read(path, Reading(image_size=(8, 8))).parts["train"]
    assert x.shape == (401, 8, 8, 3)


def test_the_label_in_a_hint_is_a_column(tmp_path: Path) -> None:
    table = files.flowers("my label")
    path = files.csv("a.csv", table)(tmp_path)
    with pytest.raises(DataError) as error:
        read(path, Reading("my-label"))
    assert error.value.hint == "did you mean dataset.label=4 ?"
    assert files.differs(read(path, Reading("4")), {"train": (TABLE, NAMES)}) == ""


@pytest.mark.parametrize("title", ["größe 1", "数据", "a=b", "a#b", "o'hara", "a&b", "[a]"])
def test_names_of_files_are_no_obstacle(tmp_path: Path, title: str) -> None:
    for written in (
        files.npz(f"{title}.npz", {"x": X, "y": Y})(tmp_path),
        files.csv(f"{title}.csv", files.frame((X, Y)))(tmp_path),
        files.parquet(f"{title}.parquet", files.frame((X, Y)))(tmp_path),
    ):
        found = read(written)
        assert files.differs(found, WHOLE) == ""
        assert found.source == written
    images = files.pictures((COLOR, COLOR_Y), f"{title}/")(tmp_path)
    assert files.differs(read(images / title), {"train": files.IN_COLOR}) == ""


def test_the_file_that_is_typed_is_the_one_that_is_read(tmp_path: Path) -> None:
    other = {"x": X[:50], "y": Y[:50]}
    files.npz("train.npz", other)(tmp_path)
    files.several(files.npy("images.npy", X[:50]), files.npy("labels.npy", Y[:50]))(tmp_path)
    typed = files.npz("data.npz", {"x": X, "y": Y})(tmp_path)
    assert files.differs(read(typed), WHOLE) == ""
    alone = files.npy("mine.npy", X)(tmp_path)
    with pytest.raises(DataError, match="has no x_train"):
        read(alone)


def test_script_writes_the_files_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("| equal |")
    assert lines[-1] == f"{len(CASES)} files: {len(READ)} equal, {len(REFUSED)} refused, 0 WRONG"
    assert DIGIT_PARTS.keys() == {"train", "test"}
