"""`run.py` as a subprocess: console output, exit code and the run in MLflow."""

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from conftest import LIMIT, ROOT, Run, kill_after_limit, sample, sync_unsent
from mlp_tape.cli import composition
from mlp_tape.errors import ConfigError
from mlp_tape.system import signals

NOISE = re.compile(r"oneDNN|cuda|absl|INFO|alembic|Traceback|UserWarning", re.IGNORECASE)


def runs_in(directory: Path) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_the_default_run_needs_no_network_cache_or_settings(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING  Training on the 5,000 MNIST images of mnist_5k instead" in done.stderr
    assert not NOISE.search(done.stdout + done.stderr)
    for line in (
        "x      (4000, 28, 28) float32, min 0.0, max 1.0",
        "y      (4000,) int32, min 0, max 9",
        "batch  (128, 28, 28) (128,)",
    ):
        assert line in done.stdout
    assert len(re.findall(r"^epoch \d  step 0  loss 0\.\d{6}$", done.stdout, re.M)) == 10
    assert re.search(r"^test accuracy 0\.\d{4} after 10 epochs, \d+\.\d s in all$", done.stdout, re.M)
    (run,) = runs_in(tmp_path)
    assert run.data.params["dataset.name"] == "mnist_5k"
    link = rf"\w{{8}}-{run.info.run_id}&compareRunsMode=CHART&workflowType=machine_learning"
    assert re.search(rf"/#/experiments/1/runs\?viewStateShareKey={link}$", done.stdout, re.M)
    (directory,) = (tmp_path / "outputs").glob("*/*")
    log = (directory / "console.log").read_text()
    assert all(line in log for line in done.stdout.splitlines())


@pytest.mark.long
def test_the_default_run_on_all_of_mnist(run_py: Run, mnist_npz: str, tmp_path: Path) -> None:
    done = run_py(tmp_path, f"dataset.path={mnist_npz}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = runs_in(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    rows = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in rows] == list(range(4690))
    assert 0.25 < rows[0].value < 0.8
    assert sum(row.value for row in rows[-469:]) / 469 < 0.11


@pytest.mark.long
def test_the_tuned_experiment_reaches_98_7_percent(run_py: Run, mnist_npz: str, tmp_path: Path) -> None:
    done = run_py(tmp_path, "+experiment=tuned", f"dataset.path={mnist_npz}", "tracking.enabled=false")
    accuracy = re.search(r"^test accuracy (0\.\d{4})", done.stdout, re.M)
    assert accuracy
    assert float(accuracy[1]) >= 0.987
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
@pytest.mark.concurrency
def test_two_runs_that_start_at_once_on_a_new_database_are_both_recorded(
    offline: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "dataset=digits", "epochs=1"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=offline) for _ in range(2)]
    assert [one.wait(LIMIT) for one in both] == [0, 0]
    assert [run.info.status for run in runs_in(tmp_path)] == ["FINISHED", "FINISHED"]
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 2


def test_errors_in_the_readme_are_those_of_the_program() -> None:
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\$ python run\.py (.+)\nerror: (.+)\n {7}(.+)$", text, re.M)
    assert len(shown) == 2
    for arguments, *lines in shown:
        with pytest.raises(ConfigError) as error:
            composition.settings_of(ROOT / "conf", shlex.split(arguments))
        assert [error.value.what, error.value.hint] == lines


REJECTED = [
    (["lrr=0.01"], "unknown setting: lrr", "did you mean lr=0.01 ?"),
    (["+lrr=0.01"], "unknown setting: lrr", "did you mean lr=0.01 ?"),
    (["++lrr=0.01"], "unknown setting: lrr", "did you mean lr=0.01 ?"),
    (["-m", "lrr=1,2"], "unknown setting: lrr", "did you mean lr=1,2 ?"),
    (["-m", "+lrr=1,2"], "unknown setting: lrr", "did you mean lr=1 ?"),
    (["lr=-1"], "lr=-1: expected a finite number above 0", "type for example lr=0.001"),
    (["-m", "lr=0.1,-1"], "lr=-1: expected a finite number above 0", "type for example lr=0.001"),
    (["model.hidden_sizes=[0]"], "model.hidden_sizes=[0]: expected", "model.hidden_sizes=[256,128]"),
    (["batch_size=0"], "batch_size=0: expected an integer from 1", "type for example batch_size=128"),
    (["dataset=nope"], "dataset=nope: expected one of: arrays, digits", "type for example dataset=arrays"),
    (["experiment=tuned"], "experiment is not in the defaults list", "type +experiment=tuned"),
    (["lr=0.1,0.2"], "Ambiguous value for argument 'lr=0.1,0.2'", "run.py -m"),
    (["lr=["], "cannot parse lr=[", "type for example lr=0.001"),
    (["model=3"], "Config group override must be a string", "--help"),
    (["~lr"], "lr has no value", "type lr=0.001"),
]


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    sample(REJECTED, *REJECTED[::4]),
    ids=[" ".join(case[0]) for case in REJECTED],
)
def test_an_invalid_command_prints_two_lines_and_starts_nothing(
    run_py: Run, tmp_path: Path, arguments: list[str], what: str, hint: str
) -> None:
    done = run_py(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {what}")
    assert hint in second
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["lr=-1"], ["-m", "lr=0.1,-1"]], ids=["run", "sweep"])
def test_full_errors_add_a_traceback_and_start_nothing(
    run_py: Run, tmp_path: Path, arguments: list[str]
) -> None:
    done = run_py(tmp_path, *arguments, HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "lr=-1: expected a finite number above 0" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.concurrency
def test_invalid_data_are_rejected_before_a_run_is_opened(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "dataset.path=nowhere.npz")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"error: {tmp_path / 'nowhere.npz'} does not exist"
    assert not (tmp_path / "mlflow.db").exists()


def test_settings_are_validated_before_tensorflow_or_mlflow_is_imported() -> None:
    probe = (
        "import os, sys; from mlp_tape.cli.main import main\n"
        "os._exit = sys.exit\n"
        "sys.argv = ['run.py', 'lr=-1']\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "print([name for name in ('tensorflow', 'mlflow', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_prints_the_text_of_this_program(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Trains a multilayer perceptron on MNIST with bare tensors")
    assert "python run.py +experiment=tuned" in done.stdout
    assert "dataset: arrays, digits, fashion_mnist, mnist, mnist_5k" in done.stdout


def test_tab_completes_groups_and_settings(run_py: Run, tmp_path: Path) -> None:
    assert "hydra_bash_completion" in run_py(tmp_path, "-sc", "install=bash").stdout
    for typed, expected in {"dataset=mni": "dataset=mnist dataset=mnist_5k", "batch": "batch_size="}.items():
        line = f"python run.py {typed}"
        done = run_py(tmp_path, "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
        assert done.stdout.strip() == expected


@pytest.mark.long
def test_the_tracking_uri_of_the_environment_is_used(run_py: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    done = run_py(tmp_path, "dataset=digits", "epochs=1", MLFLOW_TRACKING_URI=f"sqlite:///{other}")
    assert done.returncode == 0, done.stderr
    assert other.exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert f" --backend-store-uri sqlite:///{other}, then open the link" in done.stdout


@pytest.mark.concurrency
def test_a_signal_stops_the_run_even_if_its_exception_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", None)
    with signals.on_signals():
        signals.raise_if_stopped()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signals.received() == signal.SIGTERM
        with pytest.raises(signals.Stopped, match="SIGTERM"):
            signals.raise_if_stopped()


def test_the_error_for_a_directory_that_cannot_be_created_has_two_lines(run_py: Run, tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    done = run_py(tmp_path, "dataset=digits")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert str(tmp_path) in first or "outputs" in first
    assert "a directory that you can write to" in second


@pytest.mark.long
@pytest.mark.concurrency
def test_a_closed_pipe_does_not_end_the_run(offline: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "dataset=digits", "epochs=2"]
    program = subprocess.Popen(command, cwd=tmp_path, env=offline, stdout=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.readline()
    program.stdout.close()
    assert program.wait(LIMIT) == 0
    assert [run.info.status for run in runs_in(tmp_path)] == ["FINISHED"]
    (log,) = (tmp_path / "outputs").glob("*/*/console.log")
    assert "test accuracy" in log.read_text()


@pytest.mark.concurrency
@pytest.mark.parametrize(
    ("number", "code"), sample([(signal.SIGINT, 130), (signal.SIGTERM, 143)], (signal.SIGINT, 130))
)
def test_a_signal_closes_the_run_as_killed(
    offline: dict[str, str], tmp_path: Path, number: int, code: int
) -> None:
    """On a terminal, where there is also a progress bar."""
    screen, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "run.py"), "dataset=digits", "epochs=1000000", "log_every=10"]
    program = subprocess.Popen(
        command, cwd=tmp_path, env=offline | {"TERM": "xterm"}, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown, sent = b"", False
    with kill_after_limit(program):
        while True:
            try:
                shown += os.read(screen, 65536)
            except OSError:  # the program has left the terminal
                break
            if not sent and b"epoch 30 " in shown:
                program.send_signal(number)
                sent = True
    assert program.wait(LIMIT) == code
    sync_unsent(tmp_path, offline)
    (run,) = runs_in(tmp_path)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", number.name)
    text = shown.decode()
    assert "━" in text
    assert "Traceback" not in text
