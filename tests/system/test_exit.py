"""One way out, however it ends: the promised exit code, no crash, an empty temporary directory."""

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

from conftest import ROOT, SMALL, Run, Server, ended, mlp_tape, runs_in, sample, started, wait_until
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal
from proxy import Proxy

pytestmark = pytest.mark.concurrency
CRASH = re.compile(r"Fatal Python error|terminate called|Extension modules|core dumped|Aborted|Segmentation")
DIVERGES = ["dataset=digits", "lr=1e20"]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """An empty directory for temporary files, which has to be empty afterwards."""
    made = tmp_path / "temporary"
    made.mkdir()
    return made


def check(done: "subprocess.CompletedProcess[str]", code: int, temporary: Path) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert not CRASH.search(done.stdout + done.stderr)
    assert [path.name for path in temporary.rglob("*")] == []


ENDS = [
    ([*SMALL, "report=full"], 0),
    (DIVERGES, 1),
    (["-m", *SMALL, "lr=0.1,1e20"], 1),
    (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL, "lr=0.1,1e20"], 1),
    (["-m", "hydra/launcher=submitit_local", *SMALL, "lr=0.1,1e20"], 1),
    (["lr=-1"], 2),
    (["dataset.path=nowhere.npz"], 2),
    (["--help"], 0),
    ([*SMALL, "loss=mine.raises"], 1),
]


@pytest.mark.parametrize(
    ("arguments", "code"), sample(ENDS, ENDS[1], ENDS[5]), ids=[" ".join(case[0]) for case in ENDS]
)
def test_every_end_has_its_exit_code_and_leaves_nothing(
    run_py: Run, tmp_path: Path, temporary: Path, arguments: list[str], code: int
) -> None:
    if "submitit_local" in "".join(arguments):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[slurm]'")
    (tmp_path / "mine.py").write_text("def raises(y, logits):\n    raise ZeroDivisionError('mine')\n")
    check(run_py(tmp_path, *arguments, TMPDIR=str(temporary)), code, temporary)


@pytest.mark.long
def test_the_traceback_that_was_asked_for_comes_with_the_same_exit_code(
    run_py: Run, tmp_path: Path, temporary: Path
) -> None:
    done = run_py(tmp_path, *DIVERGES, TMPDIR=str(temporary), HYDRA_FULL_ERROR="1")
    check(done, 1, temporary)
    assert "DivergenceError" in done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.long
def test_every_tool_leaves_nothing(
    run_py: Run, offline: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    environment = offline | {"TMPDIR": str(temporary)}
    assert run_py(tmp_path, *SMALL).returncode == 0
    assert run_py(tmp_path, *DIVERGES).returncode == 1
    (astray,) = tmp_path.glob("outputs/*/*/divergence")
    for arguments, code in (
        (["walk", *SMALL], 0),
        (["replay", str(astray.parent)], 0),
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
    "until", sample(["x ", "epoch 3 "], "epoch 3 "), ids=["while it gets ready", "while it trains"]
)
def test_a_signal_leaves_nothing(
    offline: dict[str, str], tmp_path: Path, temporary: Path, number: signal.Signals, until: str
) -> None:
    arguments = ["dataset=digits", "epochs=1000000", "log_every=1000000"]
    program = started(tmp_path, offline | {"TMPDIR": str(temporary)}, until, *arguments)
    program.send_signal(number)
    shown = ended(program)
    check(subprocess.CompletedProcess(arguments, program.returncode, shown, ""), 128 + number, temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", [[str(ROOT / "run.py"), "dataset=digits"], ["-m", "mlp_tape", "sync"]])
def test_a_signal_during_the_imports_is_answered_by_the_exit_code(
    offline: dict[str, str], tmp_path: Path, number: signal.Signals, program: list[str]
) -> None:
    """Half a second on a quiet machine, and several on a busy one."""
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
def test_a_program_that_is_killed_leaves_nothing_either(
    offline: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    """Its MLflow process, which ends after it, tidies up for both."""
    arguments = ["dataset=digits", "epochs=1000000", "log_every=1000000"]
    program = started(tmp_path, offline | {"TMPDIR": str(temporary)}, "epoch 3 ", *arguments)
    assert list(temporary.iterdir())
    program.kill()
    ended(program)
    wait_until("an empty directory", lambda: not list(temporary.iterdir()))


@pytest.mark.long
def test_errors_end_as_promised_while_the_machine_is_busy(offline: dict[str, str], tmp_path: Path) -> None:
    """Four of fifty crashed: two at a time, on images that keep TensorFlow's threads at work."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 28, 28), np.uint8)
    labels = np.arange(20_000) % 10
    np.savez(tmp_path / "many.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    command = [sys.executable, str(ROOT / "run.py"), "dataset=arrays", "dataset.path=many.npz", "lr=1e20"]
    command += ["tracking.enabled=false"]
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    ended = []
    try:
        for _ in range(int(os.environ.get("MLP_TAPE_ERRORS", "2"))):
            two = [
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
            for program in two:
                shown, _ = program.communicate()
                ended.append((program.returncode, bool(CRASH.search(shown))))
    finally:
        for program in spinning:
            program.kill()
    assert set(ended) == {(1, False)}


@pytest.mark.long
@pytest.mark.parametrize("sweep", [False, True], ids=["a run", "a sweep"])
def test_ctrl_c_does_not_wait_until_a_slow_server_has_everything(
    server: Server, offline: dict[str, str], tmp_path: Path, sweep: bool
) -> None:
    """Of 50,000 rows; what is unsent goes later, by `sync`, and nothing is lost."""
    with Proxy(server.url) as proxy:
        images, labels = np.zeros((10_000, 8, 8), np.uint8), np.arange(10_000) % 10  # 10,000 steps an epoch
        halves = {"x_train": images, "y_train": labels, "x_test": images[:100], "y_test": labels[:100]}
        np.savez(tmp_path / "many.npz", **halves)
        arguments = ["dataset=arrays", "dataset.path=many.npz", "batch_size=1", "epochs=1000000"]
        arguments += ["log_every=1000", "lr=0.01", "model.hidden_sizes=[8]", f"tracking.uri={proxy.url}"]
        swept = ["-m", "lr=0.01,0.02"] if sweep else []
        until = "job 0" if sweep else "epoch 0 "
        program = started(tmp_path, offline, until, *swept, *arguments)
        proxy.seconds = 5.0
        (journal,) = tmp_path.glob("multirun/*/*/0/journal.jsonl" if sweep else "outputs/*/*/journal.jsonl")
        lines = list[str]()
        assert program.stdout is not None
        reading = threading.Thread(target=lines.extend, args=(program.stdout,))  # else the pipe is soon full
        reading.start()
        wait_until("50,000 rows", lambda: journal.stat().st_size > 50_000 * 55)
        before = proxy.asked.total()
        program.send_signal(signal.SIGINT)
        program.wait()
        reading.join()
        shown = "".join(lines)
        assert program.returncode == 130, shown
        assert proxy.asked.total() - before < 15, "it did not wait for one answer after the other"
    assert "python -m mlp_tape sync" in shown
    directory = journal.parent
    with Journal(directory) as rows:
        assert rows.count_unsent() > 20_000
    (directory / "run.json").write_text((directory / "run.json").read_text().replace(proxy.url, server.url))
    done = mlp_tape(tmp_path, offline, "sync", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = run_record.read(directory).run_id
    run = next(each for each in runs_in(server.url) if each.info.run_id == run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGINT")
    client = mlflow.MlflowClient(server.url)
    with Journal(directory) as rows:
        steps = [row.step for row in rows.read("train/loss")]
    assert [row.step for row in client.get_metric_history(run_id, "train/loss")] == steps
