"""The code and the diffs in docs/extending.md work as described there."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import LIMIT, ROOT, Run, sample
from mlp_tape.storage import run_record

PAGE = (ROOT / "docs" / "extending.md").read_text()
COMMANDS = re.findall(r"^python run\.py (.*)$", PAGE, re.M)
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with `mine.py`."""
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def test_each_function_has_fewer_than_20_lines() -> None:
    functions = [node for node in ast.parse(CODE).body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions] == ["huber", "lion", "spirals"]
    assert all(node.end_lineno - node.lineno < 19 for node in functions)


@pytest.mark.parametrize("command", sample(COMMANDS))
def test_each_command_trains(run_py: Run, here: Path, command: str) -> None:
    assert len(COMMANDS) == 3
    arguments = command.split()
    arguments += ["optimizer=adam", "lr=0.01"] if "spirals" in command else ["dataset=digits"]
    arguments += ["lr=0.5"] if "huber" in command else []
    done = run_py(here, *arguments, "epochs=20", "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_record.read(here / "run")
    assert run.results["test/accuracy"] > (0.6 if "spirals" in command else 0.15)
    client = mlflow.MlflowClient(f"sqlite:///{here}/mlflow.db")
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [text for text in client.get_run(run.run_id).data.params.values() if text.startswith("mine.")]


@pytest.mark.long
def test_a_user_defined_optimizer_can_be_swept_and_resumes_to_identical_weights(
    run_py: Run, here: Path
) -> None:
    arguments = ["dataset=digits", "optimizer.name=mine.lion", "lr=0.0003", "tracking.enabled=false"]
    done = run_py(here, "-m", *arguments, "epochs=2", "+optimizer.beta_1=0.5,0.9", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    weights = [np.load(here / f"sweep/{job}/weights.npz")["w1"] for job in range(2)]
    assert not np.array_equal(*weights)
    for epochs, run in (("4", "whole"), ("2", "parts")):
        done = run_py(here, *arguments, f"epochs={epochs}", f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
    done = run_py(here, "resume=parts", "epochs=4")
    assert done.returncode == 0, done.stderr
    weights = [np.load(here / run / "weights.npz")["w1"] for run in ("whole", "parts")]
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize(
    ("setting", "what"),
    sample(
        [
            ("loss=mine.hubr", "error: mine.hubr cannot be imported"),
            ("loss=yours.huber", "error: yours.huber cannot be imported"),
            ("optimizer.name=mine.np", "error: "),
            ("dataset.name=mine.huber", "error: "),
        ],
        ("loss=mine.hubr", "error: mine.hubr cannot be imported"),
    ),
)
def test_a_function_that_cannot_be_imported_is_reported_before_a_run_is_opened(
    run_py: Run, here: Path, setting: str, what: str
) -> None:
    done = run_py(here, *([] if "dataset" in setting else ["dataset=digits"]), setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(what)
    assert "Traceback" not in done.stderr
    assert not (here / "mlflow.db").exists()
    assert not list(here.glob("outputs/*/*/run.json"))


@pytest.fixture
def patched(tmp_path: Path, offline: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that applies a diff to a copy of the program, if given, or else calls Python in the copy."""
    for name in ("mlp_tape", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)

    def call(*arguments: str, diff: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments] if diff is None else ["git", "apply", "-"]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=offline | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
            input=diff,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    return call


@pytest.mark.parametrize(
    ("diff", "option", "key", "value", "wrong", "expected"),
    sample(
        NEW := [
            (0, "optimizer=momentum", "optimizer.damping", "0.5", "2", "a number from 0 to below 1"),
            (1, "optimizer=sgd", "clip_value", "0.0001", "0", "a finite number above 0, or null"),
        ],
    ),
)
def test_a_setting_is_added_by_its_field_and_its_use(
    patched: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    diff: int,
    option: str,
    key: str,
    value: str,
    wrong: str,
    expected: str,
) -> None:
    assert len(DIFFS) == len(NEW)
    files = re.findall(r"^\+\+\+ b/(.*)$", DIFFS[diff], re.M)
    assert len(files) == 2, "its field and its use"
    applied = patched(diff=DIFFS[diff])
    assert applied.returncode == 0, applied.stderr

    rejected = patched("run.py", option, f"{key}={wrong}")
    assert rejected.returncode == 2
    assert rejected.stderr.startswith(f"error: {key}={wrong}: expected {expected}\n")
    assert f"\n| `{key}` | `null` | {expected} |" in patched("-m", "mlp_tape", "settings").stdout
    name = key.rpartition(".")[2]
    assert f"{name}: " in patched("run.py", "--help", option).stdout

    common = ["run.py", "dataset=digits", "epochs=1", "report=light", "tracking.enabled=false", option]
    for directory, overrides in {"without": [], "with": [f"{key}={value}"]}.items():
        done = patched(*common, f"hydra.run.dir={directory}", *overrides)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: {value}" in (tmp_path / "with" / "config.yaml").read_text()
    weights = [np.load(tmp_path / directory / "weights.npz")["w1"] for directory in ("without", "with")]
    assert not np.array_equal(*weights), "the setting has no effect"
