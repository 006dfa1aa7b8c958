"""A wrong setting is refused with its key, its value and what was expected."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, flatten
from mlp_tape.errors import ConfigError
from mlp_tape.system.redaction import without_password


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(overrides))


def test_the_yaml_files_and_the_dataclasses_give_the_same_defaults() -> None:
    settings = validation.parse(composed())
    expected = dict(flatten(Settings())) | {"dataset.offline": "subset"}
    assert dict(flatten(settings)) == expected


@pytest.mark.parametrize("experiment", sorted(path.stem for path in ROOT.glob("conf/experiment/*.yaml")))
def test_the_experiments_are_valid(experiment: str) -> None:
    validation.parse(composed(f"+experiment={experiment}"))


def test_the_seed_experiment_is_the_default() -> None:
    assert validation.parse(composed("+experiment=seed")) == validation.parse(composed())


@pytest.mark.parametrize("dataset", ["mnist", "mnist_5k", "digits", "fashion_mnist", "arrays"])
def test_each_dataset_takes_a_path_which_becomes_absolute(dataset: str) -> None:
    settings = validation.parse(composed(f"dataset={dataset}", "dataset.path=some/file.npz"))
    assert settings.dataset.name == dataset
    assert settings.dataset.path == str(Path.cwd() / "some/file.npz")


WRONG = [
    ("lr=-1", "lr=-1", "finite number above 0"),
    ("lr=0", "lr=0", "finite number above 0"),
    ("lr=nan", "lr=nan", "finite number above 0"),
    ("lr=inf", "lr=inf", "finite number above 0"),
    (f"lr={10**400}", f"lr={10**400}", "finite number above 0"),
    ("lr=abc", "lr=abc", "finite number above 0"),
    ("lr=true", "lr=true", "finite number above 0"),
    ("lr=null", "lr=null", "finite number above 0"),
    ("lr=[1]", "lr=[1]", "finite number above 0"),
    ("batch_size=0", "batch_size=0", "an integer from 1"),
    ("batch_size=1.5", "batch_size=1.5", "an integer from 1"),
    ("epochs=-3", "epochs=-3", "an integer from 1"),
    ("seed=-1", "seed=-1", "an integer from 0"),
    ("log_every=0", "log_every=0", "an integer from 1"),
    ("shuffle=1", "shuffle=1", "true or false"),
    ("loss=mes", "loss=mes", "one of: mse"),
    ("engine=compile", "engine=compile", "one of: compiled, eager"),
    ("model.hidden_sizes=[0]", "model.hidden_sizes=[0]", "layer sizes from 1"),
    ("model.hidden_sizes=[9,x]", "model.hidden_sizes=[9,x]", "layer sizes from 1"),
    ("model.hidden_sizes=256", "model.hidden_sizes=256", "layer sizes from 1"),
    ("model.init_stddev=0", "model.init_stddev=0", "finite number above 0"),
    ("dataset.name=mnits", "dataset.name=mnits", "one of: mnist"),
    ("dataset.offline=maybe", "dataset.offline=maybe", "one of: subset, error"),
    ("tracking.enabled=perhaps", "tracking.enabled=perhaps", "true or false"),
    ("tracking.experiment=''", "tracking.experiment=", "a name that is not empty"),
]


@pytest.mark.parametrize(("override", "found", "expected"), WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(override: str, found: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validation.parse(composed(override))
    assert caught.value.what.startswith(f"{found}: expected ")
    assert expected in caught.value.what
    assert caught.value.hint.startswith(f"type for example {found.split('=')[0]}=")
    assert caught.value.exit_code == 2


def test_the_value_that_is_proposed_is_right() -> None:
    for override, _, _ in WRONG:
        with pytest.raises(ConfigError) as caught:
            validation.parse(composed(override))
        validation.parse(composed(caught.value.hint.removeprefix("type for example ")))


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lrr", "lr"),
        ("batchsize", "batch_size"),
        ("hidden_sizes", "model.hidden_sizes"),
        ("model.hidden_size", "model.hidden_sizes"),
        ("tracking.url", "tracking.uri"),
        ("model.actvation", "model.activation"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_right_one(key: str, near: str) -> None:
    assert validation.unknown_key(key).hint == f"did you mean {near}=... ?"
    with pytest.raises(ConfigError, match=f"unknown setting: {key}"):
        validation.parse(composed(f"+{key}=1"))


def test_a_deleted_setting_is_not_replaced_by_its_default() -> None:
    for key in ("lr", "model", "dataset.name"):
        with pytest.raises(ConfigError, match=f"{key} has no value"):
            validation.parse(composed(f"~{key}"))


def test_an_unresolvable_value_is_named() -> None:
    with pytest.raises(ConfigError, match="NOT_THERE"):
        validation.parse(OmegaConf.create({"lr": "${oc.env:NOT_THERE}"}))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:secret@host/path", "https://***@host/path"),
        ("tracking.uri=https://user:s@e=c@host", "tracking.uri=https://***@host"),
        ("at postgresql://u:p@db/x and http://h/", "at postgresql://***@db/x and http://h/"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("lr=0.01", "lr=0.01"),
    ],
)
def test_no_text_keeps_a_password(text: str, clean: str) -> None:
    assert without_password(text) == clean


@pytest.mark.parametrize("value", ["${nothing}", "${oc.env:NOTHING}", "${strange:}", "???"])
def test_a_key_with_a_line_break_is_told_of_in_one_line(value: str) -> None:
    given = composed()
    given.lr = {"a\nb": value}
    with pytest.raises(ConfigError) as refused:
        validation.parse(given)
    assert "\n" not in refused.value.what + refused.value.hint
    assert "lr.a b" in refused.value.what + refused.value.hint
