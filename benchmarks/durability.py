"""What tracking, outages and length cost: `python benchmarks/durability.py cost|outage|memory FILE.npz`.

And what the embedded store stands: `python benchmarks/durability.py store [SECONDS [SEED]]`.

cost: training time, first block to last, tracked and untracked, in turns.
outage: the same with a real `mlflow server` that is killed and started again three times, and with one that
    stays while another, which nobody uses, is: a server's start alone takes both cores for ten seconds.
memory: peak memory after 10,000 rows and at the end of a run of 1,000,000 (takes no file).
store: random commands beside each other for 120 seconds on one fresh store, a third of them killed; exit
    code 1, and what was wrong, where anything was lost, doubled or left behind. A seed repeats all choices.
"""

import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from benchmarks import torture  # noqa: E402
from conftest import Server  # noqa: E402


def start(directory: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)


def journal_of(directory: Path) -> Path | None:
    return next(iter(directory.glob("outputs/*/*/journal.jsonl")), None)


def training_seconds(directory: Path) -> float:
    """From the first step's end to the last one's, as the journal has it."""
    journal = journal_of(directory)
    assert journal is not None
    stamps = [json.loads(line)[3] for line in journal.open() if line.startswith('["train/loss"')]
    return (stamps[-1] - stamps[0]) / 1000


def run(*arguments: str) -> float:
    """Runs to the end in a fresh directory; returns the seconds of training."""
    with tempfile.TemporaryDirectory() as name:
        assert start(Path(name), *arguments).wait() == 0
        return training_seconds(Path(name))


def compare(name: str, pairs: list[tuple[float, float]]) -> None:
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    single = ", ".join(f"{b / a:.3f}" for a, b in pairs)
    print(
        f"{name}: medians {second:.2f} s against {first:.2f} s, ratio {second / first:.3f} (pairs {single})"
    )


def cost(path: str) -> None:
    data = f"dataset.path={Path(path).resolve()}"
    pairs = []
    for turn in range(5):
        kinds = ["tracking.enabled=false", "tracking.enabled=true"]
        seconds = {kind: run(data, kind) for kind in (kinds if turn % 2 == 0 else kinds[::-1])}
        pairs.append((seconds[kinds[0]], seconds[kinds[1]]))
    compare("tracked against untracked, 10 epochs", pairs)


def with_server(path: str, it_is_the_one: bool, epochs: int) -> tuple[float, int]:
    """Seconds of training while a server is killed and started three times; the rows that its own holds."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as elsewhere:
        directory = Path(name)
        server, other = Server(directory), Server(Path(elsewhere))
        server.start()
        other.start()
        stormy = server if it_is_the_one else other
        program = start(directory, f"dataset.path={path}", f"epochs={epochs}", f"tracking.uri={server.url}")
        while not any(path.stat().st_size for path in directory.glob("outputs/*/*/journal.jsonl")):
            time.sleep(0.1)
        for _ in range(3):
            time.sleep(4)
            stormy.stop()
            time.sleep(4)
            stormy.start()  # returns when it answers
        assert program.poll() is None, "the run was over before the third outage was"
        assert program.wait() == 0
        import mlflow

        (run_json,) = directory.glob("outputs/*/*/run.json")
        client = mlflow.MlflowClient(server.url)
        run_id = json.loads(run_json.read_text())["run_id"]
        history = client.get_metric_history(run_id, "train/loss")
        assert [row.step for row in history] == list(range(469 * epochs))
        assert client.get_run(run_id).info.status == "FINISHED"
        server.stop()
        other.stop()
        return training_seconds(directory), len(history)


def outage(path: str, epochs: int = 100) -> None:
    path, pairs = str(Path(path).resolve()), []
    for _ in range(3):
        calm, _rows = with_server(path, False, epochs)
        stormy, rows = with_server(path, True, epochs)
        print(
            f"{calm:.2f} s without, {stormy:.2f} s with three outages; all {rows:,} losses arrived",
            flush=True,
        )
        pairs.append((calm, stormy))
    compare(f"three outages against none, {epochs} epochs", pairs)


def memory(steps_per_epoch: int = 10_000, epochs: int = 100) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        x, y = rng.integers(0, 256, (steps_per_epoch, 8, 8), np.uint8), np.arange(steps_per_epoch) % 10
        np.savez(directory / "few.npz", x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
        arguments = ["dataset=arrays", "dataset.path=few.npz", "batch_size=1", f"epochs={epochs}"]
        program = start(directory, *arguments, "model.hidden_sizes=[16]", "log_every=1000", "lr=0.01")
        early = late = rows = 0
        while program.poll() is None:
            status = Path(f"/proc/{program.pid}/status")
            try:
                found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
            except OSError:
                break
            late = int(found[1]) if found else late
            journal = journal_of(directory)
            if not early and journal is not None and journal.stat().st_size > 60 * 10_000:
                early = late
            time.sleep(0.02)
        assert program.wait() == 0
        journal = journal_of(directory)
        assert journal is not None
        rows = sum(1 for _ in journal.open())
        seconds = training_seconds(directory)
    print(f"{rows:,} rows in {seconds:.0f} s of training; peak memory {early / 1024:.0f} MiB after 10,000")
    print(f"rows, {late / 1024:.0f} MiB at the end: {(late - early) / 1024:.0f} MiB more")


def store(seconds: str = "120", seed: str = "") -> None:
    directory, number = Path(tempfile.mkdtemp(prefix="torture-")), int(seed or random.randrange(1_000_000))
    print(f"seed {number}, in {directory}", flush=True)
    report = torture.torture(directory, float(seconds), number)
    print(report)
    if report.wrong:
        sys.exit(f"{directory} is kept: logs/ has what each command printed, place/ the store and the runs")
    shutil.rmtree(directory)


if __name__ == "__main__":
    {"cost": cost, "outage": outage, "memory": memory, "store": store}[sys.argv[1]](*sys.argv[2:])
