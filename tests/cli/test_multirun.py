"""The configs of the jobs of a sweep, without a composition by Hydra for each job."""

from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT
from mlp_tape.cli import hydra_internals, main, multirun

FIRST = ["lr=0.1", "model.hidden_sizes=[3]", "dataset.path=null", "dataset=digits"]
CONF = str(ROOT / "conf")


@pytest.mark.parametrize(
    ("wanted", "compositions"),
    [
        (FIRST, 0),
        (["lr=1e-3", "model.hidden_sizes=[2,3]", "dataset.path=null", "dataset=digits"], 0),
        (["lr=${seed}", "model.hidden_sizes=[]", "dataset.path=null", "dataset=digits"], 0),
        (["lr=0.1", "model.hidden_sizes=[3]", "dataset.path='a b'", "dataset=digits"], 2),
        (["lr=0.1", "model.hidden_sizes=[3]", "dataset.path=null", "dataset=mnist"], 1),
        (["lr=0.1", "model.hidden_sizes=[3]", "dataset.path=null", "dataset=digits", "seed=1"], 2),
        (["lr=0.1", "model.hidden_sizes=[3]", "dataset.path=null", "+experiment=smoke"], 1),
        (["seed=1", "model.hidden_sizes=[3]", "dataset.path=null", "dataset=digits"], 2),
    ],
)
def test_a_job_has_the_config_that_hydra_would_compose(
    wanted: list[str], compositions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.CheckSettings  # its module registers the resolvers
    compose, composed = ConfigLoaderImpl.load_sweep_config, list[list[str]]()

    def counted(self: ConfigLoaderImpl, master: DictConfig, overrides: list[str]) -> DictConfig:
        composed.append(overrides)
        return compose(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    with initialize_config_dir(CONF, version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["lr=0.1,0.2"], RunMode.MULTIRUN)
        assert master.hydra.sweep.dir  # contains a time and a token, which the jobs share
        once = multirun.composed_once(loader.load_sweep_config)
        with hydra_internals.sweep_composition(lambda _: once):
            loader.load_sweep_config(master, FIRST)
            made = loader.load_sweep_config(master, wanted)
            again = loader.load_sweep_config(master, wanted)
        expected = compose(loader, master, wanted)
    # With other options of the groups, the first such job is composed; the next one is a copy of it.
    assert composed == [FIRST, *[wanted] * compositions]
    for each in (made, again, expected):
        each.hydra.job.num, each.hydra.job.id = 7, "7"
    assert OmegaConf.to_container(made) == OmegaConf.to_container(expected)
    assert OmegaConf.to_container(made, resolve=True) == OmegaConf.to_container(expected, resolve=True)
    assert made.hydra.sweep.dir == again.hydra.sweep.dir == master.hydra.sweep.dir
    assert OmegaConf.is_struct(made)
