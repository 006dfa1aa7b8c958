"""Commands under terminals that have only ASCII, with closed streams, and without a directory to write to."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import LIMIT, ROOT, SMALL, Run, mlp_tape, sample
from mlp_tape.storage import run_record

RUN_PY = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'run.py'))}"
TOOLS = f"{shlex.quote(sys.executable)} -m mlp_tape"
ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
COMMANDS = [
    f"{TOOLS} compare run/ä other",
    f"{TOOLS} settings",
    f"{TOOLS} sync .",
    f"{TOOLS} doctor",
    f"{TOOLS} walk dataset=digits",
    f"{TOOLS} --help",
    f"{RUN_PY} --help",
    f"{RUN_PY} --cfg job note=größe",
    f"{RUN_PY} {' '.join(SMALL)} note=größe",
    f"{RUN_PY} -m {' '.join(SMALL)} note=größe seed=0,1",
]
INVALID = [f"{RUN_PY} größe=1", f"{RUN_PY} dataset.path=größe.npz", f"{TOOLS} compare größe"]
CLOSED = [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"]


@pytest.fixture(scope="module")
def two_runs(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two runs, whose directories and settings are not ASCII."""
    directory = tmp_path_factory.mktemp("größe")
    for run, lr in (("run/ä", 0.1), ("other", 0.2)):
        done = run_py(
            directory,
            *SMALL,
            "tracking.enabled=false",
            f"hydra.run.dir={run}",
            f"lr={lr}",
            "run_name=Versüch",
        )
        assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def here(two_runs: Path, tmp_path: Path) -> Path:
    """A copy of the two runs."""
    return Path(shutil.copytree(two_runs, tmp_path / "größe"))


def typed(command: str, directory: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )


@pytest.mark.parametrize("environment", sample(ASCII, ASCII[0]), ids=str)
@pytest.mark.parametrize(
    "command", sample(COMMANDS, COMMANDS[0]), ids=lambda text: " ".join(text.split()[1:])[-40:]
)
def test_a_command_succeeds_on_a_terminal_without_unicode(
    here: Path, offline: dict[str, str], command: str, environment: dict[str, str]
) -> None:
    done = typed(command, here, offline | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if "note=größe" in command and "--cfg" not in command:
        runs = [path for path in here.rglob("run.json") if {"outputs", "multirun"} & {*path.parts}]
        assert runs
        for path in runs:
            record = run_record.read(path.parent)
            assert record.status == "FINISHED"
            assert record.sent
    if environment.get("PYTHONIOENCODING") == "ascii" and "compare" in command:
        assert "|" in done.stdout
        assert "\\u2502" not in done.stdout, "the frame of a plot"


@pytest.mark.parametrize("environment", ASCII, ids=str)
@pytest.mark.parametrize("command", sample(INVALID, INVALID[0]), ids=lambda text: text.split()[-1])
def test_an_error_has_two_lines_on_a_terminal_without_unicode(
    tmp_path: Path, offline: dict[str, str], command: str, environment: dict[str, str]
) -> None:
    done = typed(command, tmp_path, offline | environment)
    assert done.returncode == 2, done.stdout + done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert second.strip()


@pytest.mark.parametrize(
    ("command", "redirection"),
    sample(
        [(command, closed) for command in COMMANDS for closed in CLOSED],
        (COMMANDS[0], ">&-"),
    ),
    ids=lambda text: " ".join(text.split()[1:])[-40:] or text,
)
def test_a_closed_stream_does_not_change_the_result(
    here: Path, offline: dict[str, str], command: str, redirection: str
) -> None:
    done = typed(f"{{ {command} {redirection}; echo ${{PIPESTATUS[0]}} > code; }} 2> errors", here, offline)
    assert (here / "code").read_text().strip() == "0", (here / "errors").read_text()
    assert "Traceback" not in (here / "errors").read_text() + done.stderr
    for path in here.rglob("run.json"):
        assert run_record.read(path.parent).status == "FINISHED"


def test_an_error_with_closed_streams_keeps_its_exit_code(tmp_path: Path, offline: dict[str, str]) -> None:
    for redirection in CLOSED[:-1]:
        assert typed(f"{RUN_PY} lr=-1 {redirection}", tmp_path, offline).returncode == 2


def test_a_plot_that_cannot_be_written_is_reported_after_the_table(
    here: Path, offline: dict[str, str]
) -> None:
    done = mlp_tape(here, offline, "compare", "run/ä", "other", "--png=no/such/directory/x.png")
    assert done.returncode == 1
    assert "test/accuracy" in done.stdout
    first, second = done.stderr.splitlines()
    assert first == f"error: No such file or directory: {here}/no/such/directory/x.png"
    assert second == "       type --png=FILE with a directory you can write to"


@pytest.mark.skipif(not shutil.which("setpriv") or os.getuid() != 0, reason="drops the rights of root")
def test_runs_are_compared_in_a_directory_that_is_read_only(
    offline: dict[str, str], here: Path, tmp_path: Path
) -> None:
    for parent in (here, *here.parents):
        if parent.is_relative_to(Path(tempfile.gettempdir()) / "pytest-of-root"):
            parent.chmod(0o755)
    for path in here.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    command = f"setpriv --reuid=65534 --regid=65534 --clear-groups {TOOLS} compare run/ä other"
    if typed(command.replace("compare run/ä other", "--help"), here, offline).returncode:
        pytest.skip("other users cannot run this interpreter")
    done = typed(command, here, offline)
    assert done.returncode == 1
    assert "test/accuracy" in done.stdout
    assert f"error: Permission denied: {here}/comparison.png\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_named_like_a_module_of_python_does_not_matter(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    for name in ("random", "queue", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    for command in (f"{TOOLS} --help", f"{TOOLS} settings", f"{RUN_PY} --cfg job"):
        done = typed(command, tmp_path, offline)
        assert done.returncode == 0, done.stderr
