"""The figures in docs/benchmarks.md are the measured ones, of programs that do the same work."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loops, measure, report, worker
from conftest import ROOT, sample
from mlp_tape.data.datasets import Dataset

RESULTS = ROOT / "benchmarks" / "results.json"


@pytest.mark.parametrize("variant", sample(worker.variants(), "mlp_tape, compiled", "NumPy"))
def test_all_benchmarked_loops_train_the_same_epoch(variant: str, mnist_5k: Dataset) -> None:
    module = importlib.import_module(f"benchmarks.loops.{worker.variants()[variant]}")
    x, y = mnist_5k.x_train[:1000], mnist_5k.y_train[:1000]  # seven full batches, and one of 104 images
    try:
        epoch, weights = module.prepare(variant, x, y, loops.first_weights())
    except ImportError as error:
        pytest.skip(f"{error}: pip install -e '.[bench]'")
    epoch()
    epoch()
    start = loops.first_weights()
    reference, expected = importlib.import_module("benchmarks.loops.numpy_loop").prepare("NumPy", x, y, start)
    reference()
    reference()
    for array, other, first in zip(weights(), expected(), start, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)
        assert np.abs(other - first).max() > 1e-4, "the weights have not changed"


def test_openblas_chooses_its_own_kernel_in_the_workers_that_it_does_the_work_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = ["-c", "from benchmarks import measure; measure.print_ready()"]
    chosen = measure.Worker(program, with_openblas=True).kernel
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")  # the oldest kernel that OpenBLAS has for x86-64
    assert measure.Worker(program).status != f"ready {chosen}"
    assert measure.Worker(program, with_openblas=True).kernel == chosen != ""


@pytest.mark.skipif(sys.platform != "linux", reason="what processes share is not known elsewhere")
def test_memory_that_processes_share_is_counted_once(tmp_path: Path) -> None:
    shared = (
        "import os, time; shared = bytearray(os.urandom(1)) * 2**28; [os.fork(), os.fork()]; time.sleep(2)"
    )
    _, mib = measure.command(["-c", shared], tmp_path)
    assert 256 < mib < 400
    own = f"import os; [os.fork(), os.fork()]; {shared.partition('; [')[0]}; time.sleep(2)"
    assert measure.command(["-c", own], tmp_path)[1] > 4 * 256


def test_documentation_shows_the_measured_figures() -> None:
    results = json.loads(RESULTS.read_text())
    assert {"epoch", "whole", "without"} <= set(results) <= set(report.TITLES)
    written = report.markdown(results)
    assert written == (ROOT / "benchmarks" / "RESULTS.md").read_text()
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    tables = re.findall(r"^\| \| median .*?\n\n", page, re.M | re.S)
    assert len(tables) == 3
    assert [table for table in tables if table not in written] == []
