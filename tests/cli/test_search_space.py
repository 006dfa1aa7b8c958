"""Tests of the space of a search, as it is typed in Hydra's override grammar."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from mlp_tape.cli import config_store, multirun, search_options, search_plan, search_space
from mlp_tape.cli.search_space import Space
from mlp_tape.errors import ConfigError
from mlp_tape.sweeps.space import Parameter

ROOT = Path(__file__).parents[2]
pytest.importorskip("optuna")


def composed(*overrides: str) -> tuple[DictConfig, Any]:
    """Returns the config of a search and Hydra's config loader; to be called with Hydra initialized."""
    config_store.register()
    loader: Any = GlobalHydra.instance().config_loader()
    typed = map(search_options.in_full, ["hydra/sweeper=optuna", *overrides])
    return loader.load_configuration("config", list(typed), RunMode.MULTIRUN), loader


def space(*overrides: str, over: str | None = "seed") -> Space:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return search_space.parse(*composed(*overrides), over)


def checked(*overrides: str) -> search_plan.SearchPlan:
    """Returns the plan of a search, whose jobs have been validated."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config, loader = composed(*overrides)
        found = search_plan.parse(config, loader)
        assert found
        found.planned(config, multirun.composed_once(loader.load_sweep_config))
        return found


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lr=interval(0.1,1)", Parameter("lr", "float", 0.1, 1.0)),
        ("lr=tag(log,interval(0.1,1))", Parameter("lr", "float", 0.1, 1.0, log=True)),
        ("batch_size=interval(16,64)", Parameter("batch_size", "int", 16, 64, 1)),
        ("model.dropout=interval(0,0.5)", Parameter("model.dropout", "float", 0.0, 0.5)),
        ("+optimizer.steps=int(interval(1,9))", Parameter("optimizer.steps", "int", 1, 9, 1, prefix="+")),
        ("batch_size=tag(log,interval(16,64))", Parameter("batch_size", "int", 16, 64, 1, True)),
        ("epochs=range(1,6)", Parameter("epochs", "int", 1, 5, 1)),
        ("epochs=range(1,6,2)", Parameter("epochs", "int", 1, 5, 2)),
        ("epochs=range(6,1,-2)", Parameter("epochs", "int", 2, 6, 2)),
        ("lr=range(0.1,0.5,0.1)", Parameter("lr", "float", 0.1, 0.4, 0.1)),
        ("lr=0.1,0.2", Parameter("lr", "categorical", choices=[0.1, 0.2], typed=["0.1", "0.2"])),
        ("lr=choice(0.1,1e-1,1)", Parameter("lr", "categorical", choices=[0.1, 1], typed=["0.1", "1"])),
        (
            "optimizer=glob(ada*)",
            Parameter("optimizer", "categorical", choices=["adam", "adamw"], typed=["adam", "adamw"]),
        ),
        (
            "model.hidden_sizes=[8],[8,4]",
            Parameter("model.hidden_sizes", "categorical", choices=["[8]", "[8,4]"], typed=["[8]", "[8,4]"]),
        ),
        (
            "clip_norm=null,1",
            Parameter("clip_norm", "categorical", choices=["null", "1"], typed=["null", "1"]),
        ),
    ],
)
def test_values_become_a_parameter(typed: str, expected: Parameter) -> None:
    assert space(typed).parameters == [expected]


def test_shuffled_values_have_the_same_order_in_any_process() -> None:
    (found,) = space("epochs=shuffle(5,3,4)").parameters
    assert found.choices == [5, 3, 4]


def test_overrides_are_what_would_be_typed() -> None:
    found = space("note=text", "lr=range(0.1,0.5,0.1)", "optimizer=adam,sgd", "l2=${lr}", "seed=3,4")
    assert found.seeds == ["3", "4"]
    params = {"lr": 0.1 + 0.2, "optimizer": "sgd"}
    assert found.overrides(params, seed=1) == ["note=text", "lr=0.3", "optimizer=sgd", "l2=${lr}", "seed=4"]
    assert [each.name for each in space("lr=0.1,0.2", "seed=3,4", over=None).parameters] == ["lr", "seed"]


def test_each_pair_of_values_is_validated() -> None:
    probes = {tuple(each) for each in space("lr=0.1,0.2,0.3", "l2=interval(0,1)", "epochs=1").probes()}
    assert probes == {(f"lr={lr}", f"l2={l2}", "epochs=1") for lr in (0.1, 0.2, 0.3) for l2 in (0.0, 1.0)}


@pytest.mark.parametrize(
    ("typed", "what", "hint"),
    [
        (["lr=interval(1,0.1)"], "ends before it starts", "type 'lr=interval(0.1,1)'"),
        (["lr=interval(1,1)"], "is empty", "type lr=1, or two different ends"),
        (
            ["lr=interval(0.1,inf)"],
            "an interval has finite ends",
            "type for example 'lr=interval(0.01,1)'",
        ),
        (["lr=tag(log,interval(0,1))"], "needs numbers above 0", "type 'lr=tag(log,interval(0.001,1))'"),
        (["lr=tag(log,range(0.1,1,0.1))"], "has no steps", "type 'lr=tag(log,interval(0.1,0.9))' or"),
        (["batch_size=interval(1.5,4)"], "is an integer", "type 'batch_size=interval(1,4)'"),
        (["epochs=range(3,1)"], "has no values", "type the smaller number first, such as"),
        (["epochs=range(1,3,0)"], "the step is 0", "type epochs=1,2"),
        (["model.dropout=interval(0,1)"], "model.dropout=1.0: expected", "type for example model.dropout=0"),
        (["lr=0.1,0.2", "batch_size=16,-16"], "batch_size=-16: expected", "type for example batch_size=128"),
        (["lr=interval(0.1,1)", "sampler=grid"], "has no grid", "type values, such as lr=0.325,0.775"),
        (["optimizer=sgd,adam", "sampler=cmaes"], "sampler=cmaes searches numbers", "type sampler=tpe"),
        (["lr=0.1", "epochs=1"], "nothing to search", "type values, such as"),
        (["lr=0.1,0.2", "n_trials=null"], "the search would never end", "type n_trials=20 or timeout=600"),
        (["lr=0.1,0.2", "timeout=0"], "timeout=0: expected a number of seconds", "type timeout=null"),
        (["lr=0.1,0.2", "direction=minimize"], "has direction=maximize", "leave it out, or type"),
        (["lr=0.1,0.2", "sweep.choose_by=validation/loss", "direction=maximize"], "has direction=min", ""),
        (
            ["lr=0.1,0.2", "sweep.objectives=[validation/accuracy,seconds]", "pruner=hyperband"],
            "pruner=hyperband: with several objectives, nothing can be pruned",
            "type pruner=none",
        ),
        (
            ["lr=0.1,0.2", "+hydra.sweeper.storage=x"],
            "unknown setting: hydra.sweeper.storage",
            "leave it out",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(typed: list[str], what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(*typed)
    assert what in error.value.what
    assert error.value.hint.startswith(hint)


def test_sampler_and_pruner_have_their_settings() -> None:
    found = checked("lr=interval(0.1,1)", "sampler=cmaes", "hydra.sweeper.sampler.popsize=4", "pruner=none")
    assert found.options.sampler == {
        "name": "cmaes",
        "seed": 0,
        "n_startup_trials": 1,
        "popsize": 4,
        "with_margin": False,
    }
    assert found.options.pruner == {"name": "none"}


@pytest.mark.parametrize(
    ("package", "typed", "what", "hint"),
    [
        ("optuna", [], "a search requires Optuna 4 or later, which is not installed", "run pip install "),
        ("cmaes", ["sampler=cmaes"], "sampler=cmaes requires cmaes, which is not", "run pip install "),
        ("torch", ["sampler=gp"], "sampler=gp requires PyTorch, which is not", "run pip install torch, or "),
    ],
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, typed: list[str], what: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
    with pytest.raises(ConfigError) as error:
        checked("lr=interval(0.1,1)", *typed)
    assert error.value.what.startswith(what)
    assert error.value.hint.startswith(hint)


def test_an_old_optuna_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "optuna-2.10.1.dist-info").mkdir()
    (tmp_path / "optuna-2.10.1.dist-info" / "METADATA").write_text("Name: optuna\nVersion: 2.10.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as error:
        checked("lr=interval(0.1,1)")
    assert error.value.what == "a search requires Optuna 4 or later, and 2.10.1 is installed"
    assert error.value.hint.startswith("run pip install ")


def test_optuna_is_only_imported_by_a_search() -> None:
    code = (
        "import sys, hydra_plugins.mlp_tape, mlp_tape.cli.main, mlp_tape.sweeps.search, mlp_tape.sweeps.job;"
        "print('optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_the_plug_in_imports_nothing_else_of_this_program() -> None:
    code = (
        "import sys, hydra_plugins.mlp_tape;"
        "print([name for name in sys.modules if name.split('.')[0] in ('mlp_tape', 'mlflow', 'tensorflow')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
