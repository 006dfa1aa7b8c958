"""Sweepers of other packages, which run the jobs of this program and receive the values to choose by."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]
# Has the name of hydra-optuna-sweeper and stores the same groups, as that requires Optuna 2.
SWEEPER = """
import json
from pathlib import Path
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class OtherSweeper(Sweeper):
    def __init__(self, sampler, n_trials):
        self.sampler, self.n_trials = sampler, n_trials

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        fixed = [each for each in arguments if "interval" not in each]
        jobs = [["lr=0.1", *fixed], ["lr=0.2", *fixed]]
        values = [job.return_value for job in self.launcher.launch(jobs, initial_job_idx=0)]
        Path("values.json").write_text(json.dumps([self.sampler["other"], self.n_trials, *values]))

store = ConfigStore.instance()
target = "hydra_plugins.hydra_optuna_sweeper.other.OtherSweeper"
node = {"defaults": [{"sampler": "tpe"}], "_target_": target, "n_trials": 20}
store.store(group="hydra/sweeper", name="optuna", node=node)
store.store(group="hydra/sweeper/sampler", name="tpe", node={"other": 7})
"""


@pytest.mark.long
def test_a_sweeper_of_another_package_with_the_name_of_ours_is_the_one_that_runs(
    run_py: Run, tmp_path: Path
) -> None:
    place = tmp_path / "packages" / "hydra_plugins" / "hydra_optuna_sweeper"
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / "other.py").write_text(SWEEPER)
    space = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "lr=interval(0.1,0.2)"]
    fixed = ["dataset=digits", "epochs=1", "report=none", "tracking.enabled=false"]
    packages = f"{tmp_path / 'packages'}:{ROOT}"
    done = run_py(tmp_path, "-m", *space, *fixed, "validation_fraction=0.1", PYTHONPATH=packages)
    assert done.returncode == 0, done.stdout + done.stderr
    other, n_trials, *values = json.loads((tmp_path / "values.json").read_text())
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("multirun/*/*/?/run.json"))]
    assert (other, n_trials) == (7, 2)
    assert values == [record["results"]["validation/accuracy"] for record in records]
