"""The Python API: `import mlp_tape`, docs/python.md and docs/notebook.ipynb."""

import ast
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase

import mlp_tape
from conftest import LIMIT, ROOT, runs_in, sample, wait_until
from mlp_tape.cli import composition
from mlp_tape.config.settings import Settings
from mlp_tape.errors import ConfigError, TrackingError
from mlp_tape.system import program, signals
from mlp_tape.tracking import client_process

QUICK = ["dataset=digits", "epochs=2", "model.hidden_sizes=[8]", "lr=0.1", "report=light"]
UNTRACKED = [*QUICK, "tracking.enabled=false"]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(autouse=True)
def notebook_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and a process that was not started as `run.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(program.VARIABLE)


def run_script(text: str, directory: Path, environment: dict[str, str]) -> str:
    """Runs a program, and returns what it printed."""
    (directory / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=directory,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_imports_no_library_until_a_name_is_used(offline: dict[str, str], tmp_path: Path) -> None:
    heavy = "{'tensorflow', 'mlflow', 'hydra', 'omegaconf', 'numpy', 'mlp_tape.api'} & set(sys.modules)"
    text = (
        f"import sys, mlp_tape\nprint({heavy}, mlp_tape.ConfigError.exit_code, {heavy})\n"
        "assert {'train', 'settings', '__version__'} <= set(dir(mlp_tape))\n"
        "try: mlp_tape.nothing\nexcept AttributeError as error: print(error)\n"
        "mlp_tape.settings('lr=1')\n"
        "print({'tensorflow', 'mlflow'} & set(sys.modules))\n"
    )
    assert run_script(text, tmp_path, offline).splitlines() == [
        "set() 2 set()",
        "module 'mlp_tape' has no attribute 'nothing'",
        "set()",
    ]


def test_settings_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["+experiment=tuned", "dataset=digits", "optimizer.weight_decay=0.2"]
    settings = mlp_tape.settings(*typed)
    assert settings == composition.settings_of(ROOT / "conf", typed)
    assert mlp_tape.settings() == composition.settings_of(ROOT / "conf", [])
    assert mlp_tape.settings(settings, "epochs=3") == dataclasses.replace(settings, epochs=3)
    (tmp_path / "my configs" / "experiment").mkdir(parents=True)
    (tmp_path / "my configs" / "experiment" / "mine.yaml").write_text("# @package _global_\nlr: 0.5\n")
    assert mlp_tape.settings("+experiment=mine", config_dir="my configs").lr == 0.5
    monkeypatch.chdir("my configs")
    assert mlp_tape.settings("+experiment=mine", config_dir="").lr == 0.5, "the current directory"
    with pytest.raises(ConfigError, match="there is no directory"):
        mlp_tape.settings(config_dir="nowhere")


def test_a_mapping_may_contain_some_settings() -> None:
    mapping = {"lr": 0.1, "optimizer": "adam", "model": {"hidden_sizes": [8]}, "hydra": {"verbose": True}}
    wanted = mlp_tape.settings("lr=0.1", "optimizer=adam", "model.hidden_sizes=[8]", "dataset=digits")
    assert mlp_tape.settings(mapping, "dataset=digits") == wanted
    own = {
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "tags": {"team": "a, b"},
        "epochs": "${batch_size}",
    }
    found = mlp_tape.settings(own | {"batch_size": 32})
    assert (found.schedule.name, found.tags, found.epochs) == ("cosine", {"team": "a, b"}, 32)
    with pytest.raises(
        mlp_tape.ConfigError, match=r"unknown setting: model.hidden_size\ndid you mean model.hidden_sizes"
    ):
        mlp_tape.settings({"model": {"hidden_size": [8]}})
    with pytest.raises(mlp_tape.ConfigError, match="Interpolation key 'nope' not found"):
        mlp_tape.settings({"lr": "${nope}"})
    with pytest.raises(mlp_tape.ConfigError, match="Missing mandatory value: lr"):
        mlp_tape.settings({"lr": "???"})
    with pytest.raises(mlp_tape.ConfigError, match="3 are no settings"):
        mlp_tape.settings(3)


EXPERIMENTS = sorted(path.stem for path in ROOT.glob("conf/experiment/*.yaml"))
HARD = [
    ["note=\"it's $5, ${x} or 'more'\"".replace("${", "\\${")],
    ["tags={team: 'a b', n: 42}", "run_name='null'", "dataset.path='/a,b/ü=(1).npz'"],
    ["optimizer.name=mine.lion", "+optimizer.beta_1=0.5", "loss=mine.huber"],
    ["schedule=step", "clip_norm=1", "stopping.patience=2", "validation_fraction=0.1"],
    ["dataset=mnist", "dataset.offline=error", "shuffle=true", "lr=1e-05"],
]


@pytest.mark.parametrize(
    "overrides", sample([*HARD, *([f"+experiment={name}"] for name in EXPERIMENTS)], *HARD)
)
def test_overrides_of_settings_compose_these_settings(overrides: list[str]) -> None:
    settings = mlp_tape.settings(*overrides)
    assert mlp_tape.settings(*composition.as_overrides(settings)) == settings


def test_hydra_of_another_program_is_left_as_it_was(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    (tmp_path / "config.yaml").write_text("defaults: [_self_, optimizer: sgd]\na: 1\n")
    earlier = dict(ConfigStore.instance().repo.setdefault("optimizer", {}))  # of this process, if any
    ConfigStore.instance().store("sgd", {"mine": True}, group="optimizer")
    try:
        with pytest.warns(UserWarning), initialize_config_dir(str(tmp_path), version_base="1.1"):
            outer, base, repo = GlobalHydra.instance().hydra, getbase(), ConfigStore.instance().repo
            assert mlp_tape.settings("optimizer=adam").optimizer.name == "adam"
            with pytest.raises(mlp_tape.ConfigError):
                mlp_tape.settings("no such setting")
            assert GlobalHydra.instance().hydra is outer and getbase() == base
            assert ConfigStore.instance().repo is repo
            assert compose("config") == {"optimizer": {"mine": True}, "a": 1}
        assert not GlobalHydra.instance().is_initialized()
    finally:
        ConfigStore.instance().repo["optimizer"] = earlier


def test_a_run_has_results_history_and_parameters(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = mlp_tape.settings(*QUICK)
    run = mlp_tape.train(settings)
    shown = capfd.readouterr().out
    assert f"test accuracy {run.accuracy:.4f} after 2 epochs" in shown
    assert run.history["train/loss"].shape == (24,) and run.steps["train/loss"].tolist() == list(range(24))
    assert run.history["test/accuracy"][-1] == run.accuracy and run.steps["test/loss"].tolist() == [11, 23]
    assert {name: array.shape for name, array in run.params.items()} == {
        "w1": (64, 8), "b1": (8,), "w2": (8, 10), "b2": (10,)
    }  # fmt: skip
    assert {array.dtype for array in run.params.values()} == {np.dtype(np.float32)}
    resolved = {"shuffle": False, "validation_fraction": 0.0}
    assert run.settings == dataclasses.replace(settings, **resolved, tracking=run.settings.tracking)
    (recorded,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (
        (recorded.info.run_id, recorded.info.status) == (run.run_id, run.status) == (run.run_id, "FINISHED")
    )
    assert recorded.data.tags["mlflow.source.name"] == "mlp_tape.train"
    command = recorded.data.tags["command"]
    assert command.startswith("mlp_tape.train(mlp_tape.settings('lr=0.1', 'epochs=2', 'report=light'")
    again = eval(command, {"mlp_tape": mlp_tape})
    assert again.directory != run.directory
    assert all((again.params[name] == array).all() for name, array in run.params.items())
    assert mlp_tape.find("last") == again and mlp_tape.find(run.run_id) == run

    data = mlp_tape.blocks(settings).dataset
    assert (run.predict(data.x_test) == data.y_test).mean() == pytest.approx(run.accuracy)
    assert run.scores(data.x_test.reshape(-1, 64)[:3]).shape == (3, 10)
    with pytest.raises(mlp_tape.DataError, match=r"values from 0\.?0? ?to|have values from"):
        run.predict(data.x_test * 10.0)
    with pytest.raises(mlp_tape.DataError, match=r"shape \[1, 3\]"):
        run.predict([[1, 2, 3]])


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of points, with labels that are words."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    return rng.normal(4 * y[:, None], 1, (200, 3)), np.array(["near", "far"])[y]


def test_arrays_are_trained_on_silently_and_labels_are_predicted(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = arrays()
    settings = mlp_tape.settings(*UNTRACKED, "optimizer=adam", "batch_size=16", "dataset.scale=standardize")
    run = mlp_tape.train(settings, x, y, show=False, directory="here")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert run.directory == Path("here").absolute() and (run.directory / "console.log").stat().st_size
    assert (run.run_id, run.settings.dataset.name) == ("", "arrays")
    assert (run.predict(x) == y).mean() > 0.9
    with pytest.raises(mlp_tape.ConfigError, match="is the directory of another run"):
        mlp_tape.train(settings, x, y, show=False, directory="here")
    parts = x[:100], y[:100], x[100:150], y[100:150]
    run = mlp_tape.train(settings, *parts, x_validation=x[150:], y_validation=y[150:], show=False)
    assert run.history["validation/loss"].shape == (2,)
    with pytest.raises(mlp_tape.DataError, match=r"^y_train and y_test: there is no such array\n"):
        mlp_tape.train(settings, x, x_test=x, show=False)


def test_a_run_without_a_report_has_the_parameters_of_its_checkpoint() -> None:
    run = mlp_tape.train(mlp_tape.settings(*UNTRACKED, "report=none"), show=False)
    training = mlp_tape.blocks(run.settings)
    for _ in training:
        pass
    assert all((training.params[name].numpy() == array).all() for name, array in run.params.items())
    with pytest.raises(mlp_tape.MlpTapeError, match="has no model"):
        run.predict(training.dataset.x_test)


def test_blocks_are_the_steps_of_a_run_and_variables_may_be_changed() -> None:
    settings = mlp_tape.settings(*UNTRACKED)
    run = mlp_tape.train(settings, show=False)
    training = mlp_tape.blocks(settings)
    losses = np.concatenate([block.losses for block in training])
    assert losses.tolist() == run.history["train/loss"].tolist()
    assert training.test().accuracy == pytest.approx(run.accuracy)

    changed = mlp_tape.blocks(settings)
    for block in changed:
        if block.ends_epoch and not block.epoch:
            changed.params["w2"].assign(np.zeros_like(changed.params["w2"]))
            changed.params["b2"].assign(np.zeros_like(changed.params["b2"]))
            assert changed.test().loss == pytest.approx(0.1)  # of scores that are all 0
    assert changed.state.global_step == 24
    assert not Path("outputs", "blocks").exists() and len(list(Path("outputs").rglob("run.json"))) == 1


def test_errors_are_raised_and_leave_no_directory() -> None:
    settings = mlp_tape.settings(*QUICK, "tracking.uri=http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"cannot be opened: no answer.*\n.*tracking.enabled=false"):
        mlp_tape.train(settings, show=False)
    with pytest.raises(mlp_tape.ConfigError, match=r"leave augment\.shift"):
        mlp_tape.train(mlp_tape.settings(*UNTRACKED, "augment.shift=1"), *arrays(), show=False)
    assert not Path("outputs").exists()
    Path("file").write_text("")
    with pytest.raises(mlp_tape.MlpTapeError, match="choose another directory"):
        mlp_tape.train(mlp_tape.settings(*UNTRACKED), directory="file/run", show=False)


def test_a_run_on_arrays_is_resumed_with_the_same_arrays() -> None:
    x, y = arrays()
    run = mlp_tape.train(mlp_tape.settings(*UNTRACKED, "report=none"), x, y, show=False)
    more = mlp_tape.settings("resume=last", "epochs=4")
    assert more.lr == 0.1
    with pytest.raises(mlp_tape.DataError, match="the data differ from those of the run"):
        mlp_tape.train(more, x[1:], y[1:], show=False)
    longer = mlp_tape.train(more, x, y, show=False)
    whole = mlp_tape.train(mlp_tape.settings(*UNTRACKED, "report=none", "epochs=4"), x, y, show=False)
    assert longer.directory == run.directory
    assert all((longer.params[name] == array).all() for name, array in whole.params.items())
    assert longer.history["train/loss"].tolist() == whole.history["train/loss"].tolist()


def test_threads_train_at_the_same_time() -> None:
    settings = mlp_tape.settings(*UNTRACKED)
    found: list[mlp_tape.Run] = []
    threads = [
        threading.Thread(target=lambda: found.append(mlp_tape.train(settings, show=False))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = found
    assert first.directory != second.directory
    assert (first.params["w1"] == second.params["w1"]).all()


def test_the_mlflow_process_serves_several_runs_and_ends_when_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlp_tape.train(mlp_tape.settings(*QUICK), show=False)
    process = client_process._running[Path.cwd()]
    monkeypatch.setattr(client_process, "IDLE", 0.0)
    mlp_tape.train(mlp_tape.settings(*QUICK), show=False)
    wait_until("the end of the process", lambda: not process.exists)
    wait_until("that it is forgotten", lambda: not client_process._running)


def test_the_mlflow_process_is_not_idle_while_another_run_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a run that this module did not start, such as one that a test executes."""
    monkeypatch.setattr(client_process, "IDLE", 0.0)
    process = client_process.running()
    with client_process.in_use():
        with client_process.ended_when_idle():
            pass
        assert client_process._end_of_idling
        client_process._end_of_idling.join()
        assert process.exists and client_process.running() is process
    with client_process.ended_when_idle():
        pass
    wait_until("the end of the process", lambda: not process.exists)


def test_ctrl_c_is_deferred_once_and_the_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt) as second, signals.on_interrupt(), signals.deferred():
        signal.raise_signal(signal.SIGINT)
        assert signals.stop_reason() == "SIGINT"
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(second.value, signals.Stopped)
    with pytest.raises(signals.Stopped), signals.on_interrupt():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before and not signals.stop_reason()


INTERRUPTED = """
import os, signal, mlp_tape
from mlp_tape.tracking import client_process
settings = mlp_tape.settings("dataset=digits", "epochs=1000000", "report=none", "log_every=10")
try:
    mlp_tape.train(settings, show=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
run = mlp_tape.find("last")
steps = len(run.history["train/loss"])
settings = mlp_tape.settings("resume=last", f"epochs={steps // 12 + 2}")
again = mlp_tape.train(settings)
print([run.status, again.status, again.directory == run.directory, again.run_id == run.run_id])
print([len(again.history["train/loss"]) == settings.epochs * 12])
print([process._program.pid for process in client_process._running.values()][0])
"""


@pytest.mark.long
@pytest.mark.concurrency
def test_an_interrupted_run_is_killed_and_resumed_in_the_same_process(
    offline: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(INTERRUPTED)
    user = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=offline | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout
    for line in user.stdout:
        if line.startswith("epoch 3"):
            break
    user.send_signal(signal.SIGINT)
    output, _ = user.communicate(timeout=LIMIT)
    assert user.returncode == 0
    assert "stopped by SIGINT; to resume: mlp_tape.train(mlp_tape.settings('resume=" in output
    *_, statuses, lengths, pid = output.splitlines()
    assert (statuses, lengths) == ("['KILLED', 'FINISHED', True, True]", "[True]"), output
    wait_until("the end of the MLflow process", lambda: not psutil.pid_exists(int(pid)))


@pytest.mark.long
@pytest.mark.concurrency
def test_the_stop_button_of_a_notebook_closes_the_run_and_the_kernel_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    kernel, client = manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path), startup_timeout=LIMIT)

    def execute(code: str, stop_at: str = "", presses: int = 0) -> str:
        request, text, left = client.execute(code), "", presses
        while True:
            message = client.get_iopub_msg(timeout=LIMIT)
            content = message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            text += content.get("text", "") + content.get("ename", "")
            if stop_at in text:
                while left:
                    kernel.interrupt_kernel()
                    left -= 1
            if content.get("execution_state") == "idle":
                return str(text)

    try:
        execute("import mlp_tape\ndef train(*typed): return mlp_tape.train(mlp_tape.settings(*typed))")
        shown = execute(f"run = train(*{UNTRACKED}, 'epochs=1000000')", "epoch 3 ", 1)
        assert "stopped by SIGINT" in shown and shown.endswith("Stopped"), shown
        assert "\x1b" not in shown
        shown = execute("run = train('resume=last')", "resumed after ", 3)
        assert shown.endswith(("Stopped", "KeyboardInterrupt")), shown
        shown = execute(
            "run = mlp_tape.find('last'); print(run.status, len(run.history['train/loss']) >= 36)"
        )
        assert shown == "KILLED True\n"
        shown = execute("run = train('resume=last', f'epochs={len(run.history[\"train/loss\"]) // 12 + 2}')")
        assert "test accuracy" in shown and execute("print(run.status)") == "FINISHED\n"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)


@pytest.mark.long
def test_examples_of_the_page_run(offline: dict[str, str], tmp_path: Path) -> None:
    *blocks, last = python_blocks()
    assert len(blocks) >= 5 and "hydra.main" in last
    printed = run_script("\n".join(blocks), tmp_path, offline)
    assert "\nnesterov 0.0" in printed and "unknown setting: lrr - did you mean lr=0.1 ?" in printed
    (study,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    (tmp_path / "study.yaml").write_text(study)
    assert "test accuracy" in run_script(last, tmp_path, offline)


def test_readme_shows_the_first_example() -> None:
    assert python_blocks()[0] in (ROOT / "README.md").read_text()


def test_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 6
    for cell in cells:
        ast.parse("".join(cell["source"]))
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.long
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=int(LIMIT), kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    accuracies = re.findall(r"test accuracy (\S+)", printed)
    assert len(accuracies) == 2 and accuracies[0] == accuracies[1], printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not [output for output in outputs if output.get("name") == "stderr"], outputs


def test_settings_are_a_dataclass_with_types() -> None:
    assert isinstance(mlp_tape.settings("lr=1"), Settings) and os.environ.get(program.VARIABLE) is None
