"""Process exit: the documented exit code, no crash, and no temporary files, whatever the cause."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import (
    ROOT,
    SMALL,
    Run,
    Server,
    mlp_tape,
    runs_in,
    sample,
    start_program,
    wait_for_exit,
    wait_until,
)
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal, count_after
from proxy import Proxy

pytestmark = pytest.mark.concurrency
CRASH = re.compile(r"Fatal Python error|terminate called|Extension modules|core dumped|Aborted|Segmentation")
DIVERGES = ["dataset=digits", "lr=1e20"]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """An empty directory for temporary files, which must be empty after the test."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def check(done: "subprocess.CompletedProcess[str]", code: int, temporary: Path) -> None:
    """Checks the exit code, that the process did not crash, and that it left no temporary files."""
    assert done.returncode == code, done.stdout + done.stderr
    assert not CRASH.search(done.stdout + done.stderr)
    assert [path.name for path in temporary.rglob("*")] == []


COMMANDS = [
    ([*SMALL, "report=full"], 0),
    (DIVERGES, 1),
    (["-m", *SMALL, "lr=0.1,1e20"], 1),
    (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL, "lr=0.1,1e20"], 1),
    (["-m", "hydra/launcher=submitit_local", *SMALL, "lr=0.1,1e20"], 1),
    (["lr=-1"], 2),
    (["dataset.path=nowhere.npz"], 2),
    (["--help"], 0),
    ([*SMALL, "loss=mine.raises"], 2),
]


@pytest.mark.parametrize(
    ("arguments", "code"),
    sample(COMMANDS, COMMANDS[5]),
    ids=[" ".join(case[0]) for case in COMMANDS],
)
def test_every_exit_has_its_code_and_leaves_no_temporary_files(
    run_py: Run, tmp_path: Path, temporary: Path, arguments: list[str], code: int
) -> None:
    if "submitit_local" in "".join(arguments):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[slurm]'")
    (tmp_path / "mine.py").write_text("def raises(y, logits):\n    raise ZeroDivisionError('mine')\n")
    check(run_py(tmp_path, *arguments, TMPDIR=str(temporary)), code, temporary)


@pytest.mark.long
def test_hydra_full_error_adds_a_traceback_with_the_same_exit_code(
    run_py: Run, tmp_path: Path, temporary: Path
) -> None:
    done = run_py(tmp_path, *DIVERGES, TMPDIR=str(temporary), HYDRA_FULL_ERROR="1")
    check(done, 1, temporary)
    assert "DivergenceError" in done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.long
def test_every_tool_leaves_no_temporary_files(
    run_py: Run, offline: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    environment = offline | {"TMPDIR": str(temporary)}
    assert run_py(tmp_path, *SMALL).returncode == 0
    assert run_py(tmp_path, *DIVERGES).returncode == 1
    (divergence,) = tmp_path.glob("outputs/*/*/divergence")
    for arguments, code in (
        (["walk", *SMALL], 0),
        (["replay", str(divergence.parent)], 0),
        (["replay", "nowhere"], 2),
        (["compare", "last"], 0),
        (["compare", "nothing"], 2),
        (["sync"], 0),
        (["rebuild"], 2),
        (["no such command"], 2),
    ):
        check(mlp_tape(tmp_path, environment, *arguments), code, temporary)


@pytest.mark.long
@pytest.mark.parametrize("number", sample([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
@pytest.mark.parametrize(
    "until", sample(["x ", "epoch 3 "], "epoch 3 "), ids=["during preparation", "during training"]
)
def test_signal_leaves_no_temporary_files(
    offline: dict[str, str], tmp_path: Path, temporary: Path, number: signal.Signals, until: str
) -> None:
    arguments = ["dataset=digits", "epochs=1000000", "log_every=1000000"]
    program = start_program(tmp_path, offline | {"TMPDIR": str(temporary)}, until, *arguments)
    program.send_signal(number)
    output = wait_for_exit(program)
    check(subprocess.CompletedProcess(arguments, program.returncode, output, ""), 128 + number, temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", [[str(ROOT / "run.py"), "dataset=digits"], ["-m", "mlp_tape", "sync"]])
def test_signal_during_imports_sets_the_exit_code(
    offline: dict[str, str], tmp_path: Path, number: signal.Signals, program: list[str]
) -> None:
    """The imports take half a second on an idle machine, and several on a busy one."""
    hook = "import os, signal, sys, threading\n"
    hook += "class Hook:\n    def find_spec(self, name, path=None, target=None):\n"
    hook += f"        if name in ('hydra', 'omegaconf'): os.kill(os.getpid(), {int(number)})\n"
    hook += "sys.meta_path.insert(0, Hook())\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    environment = offline | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (128 + number, "")


@pytest.mark.long
def test_killed_program_leaves_no_temporary_files(
    offline: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    """The MLflow process, which ends after the program, removes them for both."""
    arguments = ["dataset=digits", "epochs=1000000", "log_every=1000000"]
    program = start_program(tmp_path, offline | {"TMPDIR": str(temporary)}, "epoch 3 ", *arguments)
    assert list(temporary.iterdir())
    program.kill()
    wait_for_exit(program)
    wait_until("an empty directory", lambda: not list(temporary.iterdir()))


@pytest.mark.long
def test_errors_have_the_documented_exit_code_on_a_busy_machine(
    offline: dict[str, str], tmp_path: Path
) -> None:
    """Four of fifty such runs used to crash: two in parallel, while TensorFlow's threads compute."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 28, 28), np.uint8)
    labels = np.arange(20_000) % 10
    np.savez(tmp_path / "many.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    command = [sys.executable, str(ROOT / "run.py"), "dataset=arrays", "dataset.path=many.npz", "lr=1e20"]
    command += ["tracking.enabled=false"]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    exits = []
    try:
        for _ in range(int(os.environ.get("MLP_TAPE_ERRORS", "2"))):
            programs = [
                subprocess.Popen(
                    command,
                    cwd=tmp_path,
                    env=offline,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                for _ in range(2)
            ]
            for program in programs:
                output, _ = program.communicate()
                exits.append((program.returncode, bool(CRASH.search(output))))
    finally:
        for program in busy:
            program.kill()
    assert set(exits) == {(1, False)}


@pytest.mark.long
@pytest.mark.parametrize("sweep", [False, True], ids=["a run", "a sweep"])
def test_ctrl_c_does_not_wait_for_a_slow_server(
    server: Server, offline: dict[str, str], tmp_path: Path, sweep: bool
) -> None:
    """At least 50,000 rows have been written; `sync` delivers the unsent ones later, and none is lost."""
    with Proxy(server.url) as proxy:
        images, labels = np.zeros((10_000, 8, 8), np.uint8), np.arange(10_000) % 10  # 10,000 steps per epoch
        arrays = {"x_train": images, "y_train": labels, "x_test": images[:100], "y_test": labels[:100]}
        np.savez(tmp_path / "many.npz", **arrays)
        arguments = ["dataset=arrays", "dataset.path=many.npz", "batch_size=1", "epochs=1000000"]
        arguments += ["log_every=1000", "lr=0.01", "model.hidden_sizes=[8]", f"tracking.uri={proxy.url}"]
        swept = ["-m", "lr=0.01,0.02"] if sweep else []
        until = "job 0" if sweep else "epoch 0 "
        program = start_program(tmp_path, offline, until, *swept, *arguments)
        proxy.seconds = 5.0
        (journal,) = tmp_path.glob("multirun/*/*/0/journal.jsonl" if sweep else "outputs/*/*/journal.jsonl")
        lines = list[str]()
        assert program.stdout is not None
        reading = threading.Thread(target=lines.extend, args=(program.stdout,))
        reading.start()  # otherwise the pipe would fill up
        wait_until("50,000 rows", lambda: journal.stat().st_size > 50_000 * 55)
        before = proxy.requests.total()
        program.send_signal(signal.SIGINT)
        program.wait()
        reading.join()
        output = "".join(lines)
        assert program.returncode == 130, output
        assert proxy.requests.total() - before < 15, "the program waited for many responses"
    assert "python -m mlp_tape sync" in output
    directory = journal.parent
    assert count_after(directory, run_record.read(directory).delivery.position) > 20_000
    for path in (directory / "run.json", directory / "delivery.json"):
        if path.exists():  # the run may not be open in MLflow yet
            path.write_text(path.read_text().replace(proxy.url, server.url))
    done = mlp_tape(tmp_path, offline, "sync", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = run_record.read(directory).run_id
    run = next(each for each in runs_in(server.url) if each.info.run_id == run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGINT")
    client = mlflow.MlflowClient(server.url)
    with Journal(directory) as rows:
        steps = [row.step for row in rows.read("train/loss")]
    assert [row.step for row in client.get_metric_history(run_id, "train/loss")] == steps
