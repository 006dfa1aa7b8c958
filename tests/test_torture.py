"""Random commands on one fresh store, a third of them killed: nothing is lost, and nothing is doubled.

MLP_TAPE_TORTURE_SECONDS=600 MLP_TAPE_TORTURE_SEED=7 python -m pytest -n0 -s -m "" tests/test_torture.py
takes longer, and makes the choices of that seed.
"""

import os
import random
from pathlib import Path

import pytest

from benchmarks import torture

SECONDS = float(os.environ.get("MLP_TAPE_TORTURE_SECONDS", "120"))
SEED = int(os.environ.get("MLP_TAPE_TORTURE_SEED") or random.randrange(1_000_000))


@pytest.mark.long
def test_the_store_is_whole_after_commands_that_were_killed_beside_each_other(tmp_path: Path) -> None:
    report = torture.torture(tmp_path, SECONDS, SEED)
    print(report)
    assert report.commands
    assert report.wrong == [], f"seed {SEED}, in {tmp_path}"
