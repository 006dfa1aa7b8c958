"""Settings: defaults, validation and error messages."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT
from hints import alternatives
from mlp_tape.cli import config_store
from mlp_tape.config import validation
from mlp_tape.config.settings import (
    ModelSettings,
    Settings,
    defaults_with,
    flatten,
    groups,
    job_identity,
    options,
    to_dict,
)
from mlp_tape.errors import ConfigError
from mlp_tape.system.redaction import without_password
from mlp_tape.training.train_step import StepConfig

config_store.register()


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(overrides))


def test_the_composed_config_has_the_defaults_of_the_dataclasses() -> None:
    settings = validation.parse(composed())
    expected = dict(flatten(Settings())) | {"dataset.offline": "subset"}
    assert dict(flatten(settings)) == expected


CONFIGS = sorted(ROOT.glob("conf/*.yaml")) + sorted(
    path
    for path in ROOT.glob("conf/*/*.yaml")
    if path.stem != "seed"  # spells the seed program out
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "conf")))
def test_a_yaml_file_does_not_repeat_a_default(path: Path) -> None:
    assert repeated_defaults(path.read_text(), path.parent.name) == []


def test_a_repeated_default_is_detected() -> None:
    assert repeated_defaults("warmup_epochs: 0.0\nname: cosine\nfinal: 0.5", "schedule") == [
        "schedule.warmup_epochs"
    ]
    assert repeated_defaults("name: adam\nbeta_1: 0.9\nbeta_2: 0.9", "optimizer") == ["optimizer.beta_1"]
    assert repeated_defaults("lr: 0.001", "conf") == ["lr"]
    assert repeated_defaults("# @package _global_\nmodel:\n  dropout: 0.0\nlr: 1", "experiment") == [
        "model.dropout"
    ]


def repeated_defaults(text: str, group: str) -> list[str]:
    """Returns the settings in a YAML file whose value is their default, other than the name of an option."""
    values = yaml.safe_load(text)
    if group in groups():
        values = {group: values}
    defaults = {key: [value] for key, value in flatten(Settings())}
    for name in groups():
        for option in options(name).values():
            for key, value in option.items():
                defaults[f"{name}.{key}"].append(value)
    names = [f"{name}.name" for name in groups()]
    return [key for key, value in leaves(values) if key not in names and value in defaults.get(key, [])]


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_an_option_has_no_setting_of_another_option() -> None:
    assert set(composed("optimizer=adam").optimizer) == {"name", "beta_1", "beta_2", "epsilon"}
    assert set(composed("+experiment=tuned", "optimizer=momentum").optimizer) == {"name", "momentum"}
    assert set(composed("schedule=cosine").schedule) == {"name", "warmup_epochs", "final"}
    assert "offline" not in composed("dataset=digits").dataset


def test_a_user_defined_option_can_extend_another(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "deep.yaml").write_text("defaults: [mlp, _self_]\nhidden_sizes: [9, 9, 9]\n")
    settings = validation.parse(composed("model=deep", f"hydra.searchpath=[file://{tmp_path}]"))
    assert settings.model == ModelSettings(hidden_sizes=[9, 9, 9])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), ("True", True), ("0", False), ("FALSE", False), ("", False)],
)
def test_a_flag_in_the_environment_has_each_spelling_that_mlflow_accepts(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: bool
) -> None:
    pytest.importorskip("psutil", reason="pip install -e '.[system]' to run this test")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", text)
    assert validation.parse(composed()).tracking.system_metrics is expected
    typed = f"tracking.system_metrics={str(not expected).lower()}"
    assert validation.parse(composed(typed)).tracking.system_metrics is not expected


@pytest.mark.parametrize(
    "typed",
    [
        ["tags={team: x, ticket: 42, done: true}"],
        ["tags.team=x", "tags.ticket=42", "+tags.done=true"],
        ["tags={team: y, ticket: '42'}", "tags.team=x", "tags.done=true"],
    ],
    ids=str,
)
def test_tags_can_be_typed_one_by_one_or_together_and_are_texts(typed: list[str]) -> None:
    assert validation.parse(composed(*typed)).tags == {"team": "x", "ticket": "42", "done": "true"}
    assert validation.parse(composed("tags.git.team=x", "tags.a=1", "~tags.a")).tags == {"git.team": "x"}


def test_name_tags_and_note_do_not_identify_a_job() -> None:
    described = validation.parse(composed("run_name=a", "tags.b=c", "note=d"))
    assert job_identity(described, "") == job_identity(Settings(dataset=described.dataset), "")


def test_passwords_are_removed_from_recorded_tags_and_notes() -> None:
    settings = Settings(tags={"store": "http://me:secret@host"}, note="see http://me:secret@host")
    assert "secret" not in repr(to_dict(settings))


def test_the_environment_variable_of_a_setting_is_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "maybe")
    with pytest.raises(ConfigError, match=r"tracking\.system_metrics=maybe: expected true or false"):
        validation.parse(composed())


def test_the_settings_of_an_older_version_are_completed() -> None:
    recorded = {"optimizer": {"name": "adam", "beta_1": 0.5}, "schedule": {"name": "step", "factor": 0.1}}
    values = defaults_with(recorded)
    assert (values["optimizer"]["beta_2"], values["schedule"]["every_epochs"]) == (0.999, 3.0)
    assert values["optimizer"]["momentum"] is None


def test_a_setting_of_the_training_step_has_a_unique_name() -> None:
    names = [key.rpartition(".")[2] for key, _ in flatten(Settings())]
    assert all(names.count(field.name) <= 1 for field in dataclasses.fields(StepConfig))


@pytest.mark.parametrize("experiment", sorted(path.stem for path in ROOT.glob("conf/experiment/*.yaml")))
def test_the_experiments_are_valid(experiment: str) -> None:
    validation.parse(composed(f"+experiment={experiment}"))


def test_the_seed_experiment_is_the_default() -> None:
    assert validation.parse(composed("+experiment=seed")) == validation.parse(composed("shuffle=false"))


@pytest.mark.parametrize("dataset", ["mnist", "mnist_5k", "digits", "fashion_mnist", "arrays"])
def test_each_dataset_accepts_a_path_and_makes_it_absolute(dataset: str) -> None:
    settings = validation.parse(composed(f"dataset={dataset}", "dataset.path=some/file.npz"))
    assert settings.dataset.name == dataset
    assert settings.dataset.path == str(Path.cwd() / "some/file.npz")


INVALID = [
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


@pytest.mark.parametrize(("override", "found", "expected"), INVALID)
def test_the_error_for_an_invalid_value_contains_value_and_range(
    override: str, found: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        validation.parse(composed(override))
    assert error.value.what.startswith(f"{found}: expected ")
    assert expected in error.value.what
    key = found.split("=")[0].removesuffix(".name")  # dataset=mnist rather than dataset.name=mnist
    assert error.value.hint.startswith(f"type for example {key}=")
    assert error.value.exit_code == 2


def test_the_suggested_value_is_valid() -> None:
    for override, _, _ in INVALID:
        with pytest.raises(ConfigError) as error:
            validation.parse(composed(override))
        for line in alternatives(error.value.hint):
            validation.parse(composed(*line))


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
def test_the_error_for_an_unknown_key_suggests_the_most_similar_key(key: str, near: str) -> None:
    assert validation.unknown_key(key).hint.startswith(f"did you mean {near}=")
    with pytest.raises(ConfigError, match=f"unknown setting: {key}"):
        validation.parse(composed(f"+{key}=1"))


def test_a_deleted_setting_is_not_replaced_by_its_default() -> None:
    for key in ("lr", "model", "dataset.name"):
        with pytest.raises(ConfigError, match=f"{key} has no value"):
            validation.parse(composed(f"~{key}"))


def test_the_error_for_an_unresolvable_value_names_it() -> None:
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
def test_passwords_are_removed_from_text(text: str, clean: str) -> None:
    assert without_password(text) == clean


@pytest.mark.parametrize("value", ["${nothing}", "${oc.env:NOTHING}", "${strange:}", "???"])
def test_the_error_for_a_key_with_a_line_break_is_one_line(value: str) -> None:
    given = composed()
    given.lr = {"a\nb": value}
    with pytest.raises(ConfigError) as error:
        validation.parse(given)
    assert "\n" not in error.value.what + error.value.hint
    assert "lr.a b" in error.value.what + error.value.hint
