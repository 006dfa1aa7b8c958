"""Invalid input is rejected immediately with one clear error, and changes no file."""

import os
import time
from pathlib import Path

import pytest

from conftest import ROOT, Run, sample
from corpus import CASES, Case
from mlp_tape.cli import composition
from mlp_tape.errors import ConfigError

QUICK = [case for case in CASES if case.is_quick]
TYPED = [case for case in CASES if not case.is_quick]
TABLE = os.environ.get("MLP_TAPE_CORPUS")  # a file to which each input appends a line


def name(case: Case) -> str:
    return " ".join(case.arguments)[:60]


@pytest.mark.parametrize("case", sample(CASES, *QUICK, *TYPED[::12]), ids=name)
def test_invalid_input_is_rejected_and_changes_no_file(run_py: Run, tmp_path: Path, case: Case) -> None:
    if case.is_quick and not TABLE:
        with pytest.raises(ConfigError) as error:
            composition.settings_of(ROOT / "conf", case.arguments)
        assert case.message in f"error: {error.value.what}"
        assert error.value.hint.strip()
        assert error.value.exit_code == 2
        return
    there = set()
    if case.file is not None:
        case.file(tmp_path / "data.npz")
        there = {"data.npz"}
    began = time.monotonic()
    done = run_py(tmp_path, *case.arguments, **case.environment)
    seconds = time.monotonic() - began
    if TABLE:
        first = (done.stderr.splitlines() or [""])[0]
        with Path(TABLE).open("a") as table:
            table.write(f"| `{' '.join(case.arguments)!r}` | {first} | {done.returncode} | {seconds:.2f} |\n")
    assert done.returncode == 2, done.stdout + done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert case.message in first
    assert second.strip()
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {"data.npz.lock"}  # the lock of a database
    assert left == there


def test_a_rejected_run_removes_no_file_of_the_user(run_py: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "empty").mkdir(parents=True)
    (mine / "__init__.py").touch()
    for place in ("mine", "mine/empty", "mine/outputs/new"):
        done = run_py(tmp_path, "dataset=arrays", "dataset.path=nothing.npz", f"hydra.run.dir={place}")
        assert done.returncode == 2
    assert (mine / "__init__.py").exists()
    assert (mine / "empty").is_dir()
    assert not [path for path in tmp_path.rglob("*") if path.name in ("run.lock", "journal.jsonl")]


def test_the_corpus_is_large() -> None:
    assert len({(tuple(case.arguments), case.message) for case in CASES}) >= 150
