"""The code of docs/extending.md does what that page says."""

import ast
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import ROOT, Run, sample
from mlp_tape.storage import run_record

PAGE = (ROOT / "docs" / "extending.md").read_text()
COMMANDS = re.findall(r"^python run\.py (.*)$", PAGE, re.M)
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with `mine.py`."""
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def test_each_function_has_less_than_20_lines() -> None:
    functions = [node for node in ast.parse(CODE).body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions] == ["huber", "lion", "spirals"]
    assert all(node.end_lineno - node.lineno < 19 for node in functions)


@pytest.mark.parametrize("command", sample(COMMANDS, COMMANDS[0]))
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
def test_an_optimizer_of_ones_own_is_swept_and_goes_on_with_the_same_bits(run_py: Run, here: Path) -> None:
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
def test_what_is_not_there_is_told_before_a_run_is_opened(
    run_py: Run, here: Path, setting: str, what: str
) -> None:
    done = run_py(here, *([] if "dataset" in setting else ["dataset=digits"]), setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(what)
    assert "Traceback" not in done.stderr
    assert not (here / "mlflow.db").exists()
    assert not list(here.glob("outputs/*/*/run.json"))
