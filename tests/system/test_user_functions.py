"""Functions of the user that fail, or cannot be imported: two lines that name the file and the line."""

from pathlib import Path

import pytest

from conftest import Run, sample
from mlp_tape.errors import ConfigError, UserFunctionError
from mlp_tape.storage import run_record
from mlp_tape.system import user_functions

MINE = """import numpy as np
import tensorflow as tf

def raises(y, logits):
    x = y + 1
    return tf.matmul(x, 3)

def nothing(y, logits):
    return None

def ragged(y, logits):
    return [[1.0], [2.0, 3.0]]

def square(params, grads, lr, t):
    return {name: g @ g for name, g in grads.items()}

def forgets(params, grads, lr, t):
    return {}

def ragged_data():
    return {"x_train": [[1, 2], [3]], "y_train": [0, 1], "x_test": [[1, 2], [3]], "y_test": [0, 1]}

def fails():
    return np.zeros(3)[7]

def number():
    return 3

def late(y, logits):
    def check(loss):
        late.calls = getattr(late, "calls", 0) + 1
        if late.calls > 20:
            raise RuntimeError("too late")
        return loss
    return tf.py_function(check, [tf.reduce_mean((y - logits) ** 2)], tf.float32)
"""
SMALL = ["epochs=3", "report=none", "model.hidden_sizes=[8]"]
FAILING = [
    ("loss=mine.raises", "mine.raises failed: mine.py, line 6: "),
    ("loss=mine.nothing", "mine.nothing failed: mine.py, line 8: "),
    ("loss=mine.ragged", "mine.ragged failed: mine.py, line 11: "),
    ("optimizer.name=mine.square", "mine.square failed: mine.py, line 15: "),
    ("optimizer.name=mine.forgets", "mine.forgets failed: mine.py, line 17: "),
    ("dataset.name=mine.fails", "mine.fails failed: mine.py, line 24: "),
    ("dataset.name=mine.ragged_data", "mine.py, line 20: mine.ragged_data() returns what is no array"),
    ("dataset.name=mine.number", "mine.py, line 26: mine.number() returns int"),
    ("loss=broken.f", "broken.f cannot be imported: broken.py, line 2: SyntaxError: "),
    (
        "loss=lacks.f",
        "lacks.f cannot be imported: lacks.py, line 1: ModuleNotFoundError: No module named 'nosuch'",
    ),
    ("loss=exits.f", "exits.f cannot be imported: exits.py, line 1: SystemExit: "),
    ("loss=json.f", "json.f cannot be imported: json.py has the name of another module"),
    ("loss=random.f", "random.f cannot be imported: random.py has the name of another module"),
    ("loss=queue.f", "queue.f cannot be imported: queue.py has the name of another module"),
    ("loss=mlp_tape.f", "mlp_tape.f cannot be imported: mlp_tape.py has the name of another module"),
    ("loss=data.f", "data.f failed: data.py, line 2: "),
    ("loss=mine.raise_", "mine.raise_ cannot be imported: mine.py has no function raise_"),
    ("loss=nowhere.f", "nowhere.f cannot be imported: No module named 'nowhere'"),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with modules of the user."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def f(y, logits):\n    return (\n")
    (tmp_path / "lacks.py").write_text("import nosuch.thing\n")
    (tmp_path / "exits.py").write_text("exit()\n")
    for name in ("json", "random", "queue", "mlp_tape", "data"):
        (tmp_path / f"{name}.py").write_text("def f(y, logits):\n    return (y - logits).no_such_thing()\n")
    return tmp_path


@pytest.mark.parametrize(("setting", "what"), sample(FAILING, FAILING[0], FAILING[8]))
def test_what_is_wrong_with_an_own_function_is_reported_before_a_run_is_opened(
    run_py: Run, here: Path, setting: str, what: str
) -> None:
    dataset = [] if setting.startswith("dataset") else ["dataset=digits"]
    done = run_py(here, *dataset, *SMALL, setting)
    assert done.returncode == 2, done.stdout + done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {what}")
    assert second.strip()
    assert not (here / "mlflow.db").exists()


@pytest.mark.parametrize("sweep", sample([False, True], False), ids=["run", "sweep"])
def test_a_failure_during_training_names_file_and_line(run_py: Run, here: Path, sweep: bool) -> None:
    multirun = ["-m", "seed=0,1", "hydra/launcher=joblib"] if sweep else []
    done = run_py(here, *multirun, "dataset=digits", "loss=mine.late", "engine=eager", *SMALL)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "mine.late failed: mine.py, line 33: " in done.stderr + done.stdout
    for path in here.rglob("run.json"):
        record = run_record.read(path.parent)
        if record.kind == "run":
            assert record.status == "FAILED"
            assert "mine.py, line 33" in record.reason


def test_a_call_is_blamed_on_the_line_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_calls.py").write_text("def f(x):\n\n    return 1 / x\n")
    function = user_functions.find("own_calls.f", {})
    assert user_functions.called("own_calls.f", function, 2) == 0.5
    with pytest.raises(UserFunctionError) as error:
        user_functions.called("own_calls.f", function, 0)
    assert error.value.what == "own_calls.f failed: own_calls.py, line 3: ZeroDivisionError: division by zero"
    assert user_functions.defined_at("own_calls.f") == "own_calls.py, line 1"
    assert user_functions.failure(ValueError("not raised in a file of the user"), "adam", "mse") is None
    with pytest.raises(ConfigError) as unknown:
        user_functions.find("own_calls.ff", {})
    assert unknown.value.hint == "type own_calls.f"
