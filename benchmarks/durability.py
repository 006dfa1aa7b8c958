"""The cost of tracking, of outages and of long runs, and a stress test of the embedded store.

`python benchmarks/durability.py cost|outage|memory FILE.npz`, or `... store [SECONDS [SEED]]`.

cost: training time from the first to the last step, tracked and untracked, alternately.
outage: training time with an `mlflow server` that is killed and restarted three times, compared with one
    that keeps running while an unused server is killed and restarted, since starting a server alone occupies
    two cores for ten seconds.
memory: peak memory after 10,000 rows, and at the end of a run of 1,000,000 rows (takes no file).
store: random commands in parallel for 120 seconds on a new store, a third of which are killed. The exit code
    is 1, with a list of the problems, if anything is lost, duplicated or left behind. The same seed makes the
    same random choices.
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
    """Starts the program in a directory."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)


def journal_of(directory: Path) -> Path | None:
    """Returns the journal of the run in a directory; None if there is none yet."""
    return next(iter(directory.glob("outputs/*/*/journal.jsonl")), None)


def training_seconds(directory: Path) -> float:
    """Returns the time from the end of the first step to the end of the last, according to the journal."""
    journal = journal_of(directory)
    assert journal is not None
    timestamps = [json.loads(line)[3] for line in journal.open() if line.startswith('["train/loss"')]
    return (timestamps[-1] - timestamps[0]) / 1000


def run(*arguments: str) -> float:
    """Executes a run in a new directory, and returns its training time in seconds."""
    with tempfile.TemporaryDirectory() as name:
        assert start(Path(name), *arguments).wait() == 0
        return training_seconds(Path(name))


def compare(name: str, pairs: list[tuple[float, float]]) -> None:
    """Prints the medians of pairs of measurements, and their ratio."""
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    single = ", ".join(f"{b / a:.3f}" for a, b in pairs)
    print(
        f"{name}: medians {second:.2f} s against {first:.2f} s, ratio {second / first:.3f} (pairs {single})"
    )


def cost(path: str) -> None:
    """Measures the cost of tracking."""
    data = f"dataset.path={Path(path).resolve()}"
    pairs = []
    for turn in range(5):
        kinds = ["tracking.enabled=false", "tracking.enabled=true"]
        seconds = {kind: run(data, kind) for kind in (kinds if turn % 2 == 0 else kinds[::-1])}
        pairs.append((seconds[kinds[0]], seconds[kinds[1]]))
    compare("tracked against untracked, 10 epochs", pairs)


def with_server(path: str, interrupted: bool, epochs: int) -> tuple[float, int]:
    """Trains while a server is killed and restarted three times.

    Args:
        path: path of the data.
        interrupted: whether that is the server of the run; otherwise, it is an unused one.
        epochs: number of epochs.

    Returns:
        The training time in seconds, and the number of losses that the server of the run has received.
    """
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as elsewhere:
        directory = Path(name)
        server, other = Server(directory), Server(Path(elsewhere))
        server.start()
        other.start()
        restarted = server if interrupted else other
        program = start(directory, f"dataset.path={path}", f"epochs={epochs}", f"tracking.uri={server.url}")
        while not any(path.stat().st_size for path in directory.glob("outputs/*/*/journal.jsonl")):
            time.sleep(0.1)
        for _ in range(3):
            time.sleep(4)
            restarted.stop()
            time.sleep(4)
            restarted.start()  # returns when the server responds
        assert program.poll() is None, "the run ended before the third outage"
        assert program.wait() == 0
        import mlflow

        (delivery,) = directory.glob("outputs/*/*/delivery.json")
        client = mlflow.MlflowClient(server.url)
        run_id = json.loads(delivery.read_text())["run_id"]
        history = client.get_metric_history(run_id, "train/loss")
        assert [row.step for row in history] == list(range(469 * epochs))
        assert client.get_run(run_id).info.status == "FINISHED"
        server.stop()
        other.stop()
        return training_seconds(directory), len(history)


def outage(path: str, epochs: int = 100) -> None:
    """Measures the cost of outages of the tracking server."""
    path, pairs = str(Path(path).resolve()), []
    for _ in range(3):
        without, _rows = with_server(path, False, epochs)
        with_outages, rows = with_server(path, True, epochs)
        print(
            f"{without:.2f} s without outages, {with_outages:.2f} s with three; all {rows:,} losses received",
            flush=True,
        )
        pairs.append((without, with_outages))
    compare(f"three outages against none, {epochs} epochs", pairs)


def memory(steps_per_epoch: int = 10_000, epochs: int = 100) -> None:
    """Measures the peak memory of a long run."""
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
    """Runs the stress test of the embedded store."""
    directory, number = Path(tempfile.mkdtemp(prefix="torture-")), int(seed or random.randrange(1_000_000))
    print(f"seed {number}, in {directory}", flush=True)
    report = torture.torture(directory, float(seconds), number)
    print(report)
    if report.problems:
        sys.exit(f"see {directory}: logs/ has the output of each command, work/ has the store and the runs")
    shutil.rmtree(directory)


if __name__ == "__main__":
    {"cost": cost, "outage": outage, "memory": memory, "store": store}[sys.argv[1]](*sys.argv[2:])
