"""Stress test of the embedded store: random commands in parallel, a third of which are killed.

MLP_TAPE_TORTURE_SECONDS=600 MLP_TAPE_TORTURE_SEED=7 python -m pytest -n0 -s -m "" tests/test_torture.py
runs for 600 seconds with the random choices of seed 7.
"""

import os
import random
from pathlib import Path

import pytest

from benchmarks import torture

SECONDS = float(os.environ.get("MLP_TAPE_TORTURE_SECONDS", "120"))
SEED = int(os.environ.get("MLP_TAPE_TORTURE_SEED") or random.randrange(1_000_000))


@pytest.mark.long
def test_store_is_complete_after_parallel_commands_were_killed(tmp_path: Path) -> None:
    report = torture.torture(tmp_path, SECONDS, SEED)
    print(report)
    assert report.commands
    assert report.problems == [], f"seed {SEED}, in {tmp_path}"
