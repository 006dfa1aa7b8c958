"""The package installed from a wheel in another environment: the command `mlp-tape`, in any directory."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from conftest import LIMIT, ROOT, runs_in
from mlp_tape.system import program

MlpTape = Callable[..., str]
OWN = "# @package _global_\nlr: 0.5\ndataset:\n  name: digits\nepochs: 1\nreport: light\n"


def build(kind: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which has the packages of this one, but not its mlp_tape."""
    wheel = build("wheel", tmp_path_factory.mktemp("wheel"))
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(str(Path(numpy.__file__).parents[1]))  # its own .pth are not read
    return place


@pytest.fixture
def mlp_tape(environment: Path, offline: dict[str, str], tmp_path: Path) -> MlpTape:
    """A function that types a line of a shell in an empty directory, and returns what is printed."""
    place = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])

    def typed(line: str, code: int = 0) -> str:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=offline | {"PATH": place},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return typed


@pytest.mark.long
def test_wheel_contains_package_and_configs_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"mlp_tape", "hydra_plugins"}
    configs = {f"mlp_tape/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mlp_tape").rglob("*.py")}
    assert configs | modules | {"mlp_tape/py.typed", "hydra_plugins/mlp_tape.py"} <= names
    assert not [name for name in names if "test" in name]


@pytest.mark.long
def test_source_distribution_contains_what_a_clone_does(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["run.py", "MLproject", "LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"]
    assert {*wanted, "conf/config.yaml", "mlp_tape/__init__.py", "docs/settings.md"} <= names
    assert {"tests/conftest.py", "benchmarks/results.json"} <= names
    assert not [name for name in names if name.startswith((".venv", "outputs", "mlflow.db", "dist"))]


@pytest.mark.long
def test_command_trains_sweeps_resumes_and_repeats_in_any_directory(
    mlp_tape: MlpTape, environment: Path, tmp_path: Path
) -> None:
    where = mlp_tape("python -c 'import mlp_tape; print(mlp_tape.__file__)'")
    assert where.startswith(str(environment))
    assert "test accuracy" in mlp_tape("mlp-tape dataset=digits epochs=1")
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert run.data.tags["command"] == "mlp-tape dataset=digits epochs=1"
    assert run.data.tags["mlflow.source.name"] == "mlp-tape"
    assert "mlflow.source.git.commit" not in run.data.tags
    assert mlp_tape("mlp-tape sync") == "1 run, nothing to send\n"

    shown = mlp_tape(f"mlp-tape resume={run.info.run_id} epochs=2")
    assert "resumed after 12 steps" in shown
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert run.data.tags["command"] == "mlp-tape dataset=digits epochs=2"

    mlp_tape(run.data.tags["command"])
    runs = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    accuracies = {each.data.metrics["test/accuracy"] for each in runs}
    assert len(runs) == 2 and len(accuracies) == 1

    shown = mlp_tape("mlp-tape -m lr=0.1,0.2 dataset=digits epochs=1 hydra/launcher=joblib")
    assert ": mlp-tape lr=0.2 dataset=digits epochs=1 validation_fraction=0.1\n" in shown
    assert "2 jobs" in mlp_tape("mlp-tape -m sweep.resume=last")
    tags = [each.data.tags["command"] for each in runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")]
    assert all(tag.startswith("mlp-tape ") for tag in tags), tags


@pytest.mark.long
def test_command_finds_experiments_of_its_user_and_repeats_them(mlp_tape: MlpTape, tmp_path: Path) -> None:
    place = tmp_path / "my experiments" / "experiment"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text(OWN)
    typed = f"mlp-tape {shlex.quote('--config-dir=my experiments')} +experiment=mine"
    shown = mlp_tape(typed)
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert run.data.params["lr"] == "0.5"
    results = re.findall(r"epoch 0  test loss .*", mlp_tape(run.data.tags["command"]))
    assert len(results) == 1 and results[0] in shown
    help = mlp_tape(f"{typed} --help")
    assert "\nmlp-tape -m lr=0.1,0.01,0.001" in help and "mine" in help and "run.py" not in help


@pytest.mark.long
def test_command_runs_tools_by_their_names(mlp_tape: MlpTape) -> None:
    assert mlp_tape("mlp-tape walk dataset=digits").count("(64, 256)") > 1
    assert mlp_tape("mlp-tape settings") == (ROOT / "docs" / "settings.md").read_text()
    assert mlp_tape("mlp-tape sync", code=2).endswith("type mlp-tape sync DIRECTORY\n")
    assert mlp_tape("mlp-tape snyc", code=2).endswith("type mlp-tape sync\n")
    assert mlp_tape("mlp-tape lrr=1", code=2).endswith("did you mean lr=1 ?\n")
    assert mlp_tape("mlp-tape xyzxyz=1", code=2).endswith("mlp-tape --help lists the settings\n")
    assert mlp_tape("python -m mlp_tape", code=2).startswith("usage: python -m mlp_tape ")
    assert "usage: mlp-tape compare" in mlp_tape("mlp-tape compare --help")


def test_a_checkout_uses_the_configs_at_its_top() -> None:
    assert program.is_checkout() and program.conf() == ROOT / "conf"


@pytest.mark.parametrize(
    ("started_as", "train", "tool"),
    [
        (program.RUN_PY, "python run.py", "python -m mlp_tape"),
        (program.COMMAND, "mlp-tape", "mlp-tape"),
        (program.MODULE, "python run.py", "python -m mlp_tape"),
        ("anything else", "mlp-tape", "mlp-tape"),
    ],
)
def test_messages_propose_what_the_person_typed(
    monkeypatch: pytest.MonkeyPatch, started_as: str, train: str, tool: str
) -> None:
    from mlp_tape.cli.messages import composition_error
    from mlp_tape.config import validation
    from mlp_tape.storage.run_record import RunRecord
    from mlp_tape.tracking import uri

    ambiguous = Exception("Ambiguous value for argument 'lr=1,2'")
    monkeypatch.setenv(program.VARIABLE, "")
    program.start_as(started_as)
    assert (program.train(), program.tool()) == (train, tool)
    assert validation.unknown_key("xyzxyz").hint == f"{train} --help lists the settings"
    assert composition_error(ambiguous, [], lambda overrides: {}).hint.endswith(f"{train} -m ...")
    assert uri.relocate_command("sqlite:////x.db").startswith(f"{tool} relocate")
    assert RunRecord(Path("/x")).sync == f"{tool} sync /x"


def test_a_run_is_repeated_by_the_program_that_created_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlp_tape.storage import run_record

    monkeypatch.setenv(program.VARIABLE, program.COMMAND)
    run_record.RunRecord(tmp_path, overrides=["lr=0.1"]).save()
    monkeypatch.setenv(program.VARIABLE, program.RUN_PY)
    record = run_record.read(tmp_path)
    assert (record.command, record.resume) == ("mlp-tape lr=0.1", f"mlp-tape resume={tmp_path}")
    record.kind = "sweep"
    assert (record.command, record.resume) == ("mlp-tape -m lr=0.1", f"mlp-tape -m sweep.resume={tmp_path}")
