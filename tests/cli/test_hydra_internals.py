"""The undocumented parts of Hydra that this package uses."""

import gc
import re
import sys
import weakref
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT, Run
from mlp_tape.cli import hydra_internals, sweeper
from mlp_tape.config.settings import Settings
from mlp_tape.sweeps.plan import PlannedJob


def test_the_installed_hydra_has_all_of_them() -> None:
    assert hydra_internals.missing() == [], (
        f"Hydra {hydra.__version__} lacks these names; mlp_tape/cli/hydra_internals.py describes the "
        "purpose of each, and what happens without it"
    )


def test_a_missing_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = hydra_internals.PARSER.partition(":")
    monkeypatch.delattr(sys.modules[module], name)
    assert hydra_internals.missing() == [hydra_internals.PARSER]
    assert hydra_internals.arguments_parser() is None


def test_no_other_module_uses_private_parts_of_hydra() -> None:
    used = [
        path.name
        for path in (ROOT / "mlp_tape").rglob("*.py")
        if re.search(r"hydra\._|load_sweep_config =", path.read_text())
    ]
    assert used == ["hydra_internals.py"]


class BasicLauncher:
    """Stands for Hydra's, which returns the config of each job."""

    def __init__(self) -> None:
        self.launched: list[list[str]] = []
        self.configs: list[weakref.ref[DictConfig]] = []

    def launch(self, overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        gc.collect()  # configs refer to themselves
        assert not [each for each in self.configs if each() is not None], "those of earlier jobs are gone"
        self.launched += overrides
        assert initial_job_idx == len(self.launched) - len(overrides)
        config = OmegaConf.create({"lr": 0.1})
        self.configs.append(weakref.ref(config))
        returned = JobReturn(cfg=config, hydra_cfg=config, status=JobStatus.COMPLETED)
        returned.return_value = float(initial_job_idx)
        return [returned]


@pytest.mark.parametrize("batch", [None, 2])
def test_the_configs_of_jobs_that_have_ended_are_not_kept(
    batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BasicLauncher, "__module__", hydra_internals.BASIC_LAUNCHER.partition(":")[0])
    jobs = [PlannedJob([f"lr={number}"], Settings()) for number in range(5)]
    launcher: Any = BasicLauncher()
    assert sweeper.of_plan(jobs, batch)(launcher) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert launcher.launched == [job.overrides for job in jobs]


@pytest.mark.long
def test_a_sweep_runs_with_a_hydra_that_lacks_all_of_them(run_py: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import mlp_tape.cli.hydra_internals as internals\ninternals.find = lambda name: None\n"
    )
    path = f"{tmp_path}:{ROOT}"
    arguments = ["dataset=digits", "epochs=1", "lr=0.1,0.2"]
    done = run_py(tmp_path, "-m", *arguments, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each.parent.name for each in tmp_path.glob("multirun/*/*/*/weights.npz")} == {"0", "1"}
