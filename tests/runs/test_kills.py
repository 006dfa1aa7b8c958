"""A run that is killed at random moments and resumed equals an uninterrupted one.

MLP_TAPE_KILLS=30 python -m pytest -n0 -s -m "" tests/runs/test_kills.py kills 30 runs three times each
and prints at which points.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import LIMIT, ROOT
from mlp_tape.storage import run_record

KILLS = 3  # per run
RUNS = int(os.environ.get("MLP_TAPE_KILLS", "1"))
ARGUMENTS = [
    "dataset=mnist_5k",
    "lr=0.1",
    "shuffle=true",
    "batch_size=96",  # 4,000 = 41 * 96 + 64
    "epochs=40",
    "log_every=10",
    "checkpoint.every_steps=23",
]


class Program:
    """The program, run in its own directory as a process that can be killed."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        directory.mkdir()
        self.directory, self.environment = directory, environment

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Starts the program."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *arguments: str) -> str:
        """Runs the program to its end, and returns its output."""
        program = self.start(*arguments)
        output, _ = program.communicate(timeout=LIMIT)
        assert program.returncode == 0, output
        return output

    @property
    def runs(self) -> list[Path]:
        """The directories of its runs."""
        return [path.parent for path in self.directory.glob("outputs/*/*/run.json")]

    @property
    def is_finished(self) -> bool:
        """Whether a run has been delivered completely."""
        return any(run_record.read(path).sent for path in self.runs)

    def kill_at_random(self, rng: random.Random, seconds: float, *arguments: str) -> list[str]:
        """Kills a run at a random moment; returns where it was killed, or nothing if it ended before."""
        rows = sum(path.stat().st_size for path in self.directory.glob("outputs/*/*/journal.jsonl"))
        program = self.start(*arguments)
        wait = rng.uniform(0, seconds)
        if rng.random() < 0.7:  # start-up takes most of the time, but should get fewer of the kills
            wait = rng.uniform(0, 0.25 * seconds)
            while program.poll() is None and not self._is_training(rows):
                time.sleep(0.01)
        try:
            output, _ = program.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()
            return [self._describe(rows)]
        assert program.returncode == 0, output
        return []

    def _is_training(self, rows: int) -> bool:
        return rows < sum(path.stat().st_size for path in self.directory.glob("outputs/*/*/journal.jsonl"))

    def _describe(self, rows: int) -> str:
        if not self.runs:
            return "before the run was created"
        (directory,) = self.runs
        if (directory / "weights.npz").exists():
            return "in the report"
        if not self._is_training(rows):
            return "before the first block"
        *complete, _ = (directory / "journal.jsonl").read_text().splitlines()
        return f"at step {json.loads(complete[-1])[1]}" if complete else "in the first row"


def state_of(program: Program) -> tuple[str, list[tuple[str, int, float]], str]:
    """Returns the SHA-256 of the weights, all metric rows in MLflow, and the status."""
    (directory,) = program.runs
    weights = hashlib.sha256((directory / "weights.npz").read_bytes()).hexdigest()
    client = mlflow.MlflowClient(f"sqlite:///{program.directory / 'mlflow.db'}")
    run = client.get_run(run_record.read(directory).run_id)
    rows = [
        (key, row.step, row.value)
        for key in sorted(run.data.metrics)
        for row in client.get_metric_history(run.info.run_id, key)
    ]
    assert len(set(rows)) == len(rows), "MLflow has duplicate rows"
    return weights, rows, run.info.status


def histograms_of(program: Program) -> dict[str, bytes]:
    """Returns the contents of the histogram files."""
    (directory,) = program.runs
    files = sorted(directory.glob("histograms/step-*.npz"))
    assert files
    found: dict[str, bytes] = {}
    for path in files:
        with np.load(path) as archive:
            found |= {f"{path.stem} {key}": archive[key].tobytes() for key in archive.files}
    return found


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("seed", range(RUNS))
def test_run_killed_at_random_moments_equals_an_uninterrupted_one(
    offline: dict[str, str], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    uninterrupted = Program(tmp_path / "whole", offline)
    began = time.monotonic()
    uninterrupted.finish(*ARGUMENTS, f"seed={seed}")
    seconds = time.monotonic() - began

    killed = Program(tmp_path / "killed", offline)
    hits: list[str] = []
    while not killed.is_finished:
        arguments = ["resume=last"] if killed.runs else [*ARGUMENTS, f"seed={seed}"]
        if len(hits) == KILLS:
            killed.finish(*arguments)
        else:
            hits += killed.kill_at_random(rng, seconds, *arguments)

    expected, found = state_of(uninterrupted), state_of(killed)
    print(f"\nseed {seed}, killed {', '.join(hits) or 'never'}: {len(found[1])} rows, {found[0][:16]}")
    assert len([row for row in expected[1] if row[0] == "train/loss"]) == 40 * 42
    assert found == expected
    assert histograms_of(killed) == histograms_of(uninterrupted)
    assert found[2] == "FINISHED"
