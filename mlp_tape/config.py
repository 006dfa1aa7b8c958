"""The settings: their types, defaults and ranges, and what is said of a wrong one."""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_tape.errors import ConfigError
from mlp_tape.redact import without_password

Check = Callable[[Any], bool]


def _setting(default: Any, expected: str, check: Check) -> Any:
    """A dataclass field with its range in words and as a test."""
    rule: dict[str, Any] = {"expected": expected, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rule)
    return field(default=default, metadata=rule)


def _one_of(*names: str) -> Any:
    return _setting(names[0], f"one of: {', '.join(names)}", names.__contains__)


def _positive(default: float) -> Any:
    return _setting(default, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))


def _whole(default: int, low: int, high: int) -> Any:
    return _setting(default, f"a whole number from {low:,} to {high:,}", lambda v: low <= v <= high)


def _free(default: Any, expected: str) -> Any:
    return _setting(default, expected, lambda value: True)


@dataclass(frozen=True)
class ModelSettings:
    """The network between the data's two ends."""

    hidden_sizes: list[int] = _setting(
        [256, 128],
        "a list of layer sizes from 1 to 65,536, such as [256,128]",
        lambda sizes: all(1 <= size <= 65_536 for size in sizes),
    )
    init_stddev: float = _positive(0.1)
    activation: str = _one_of("relu")


@dataclass(frozen=True)
class DatasetSettings:
    """Which images to learn, and where they lie."""

    name: str = _one_of("mnist", "mnist_5k", "digits", "fashion_mnist", "arrays")
    path: str | None = _free(None, "the path of an .npz file")
    offline: str | None = _setting(
        None, "one of: subset, error", lambda what: what in (None, "subset", "error")
    )  # only mnist has it


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule; its learning rate is the top-level `lr`."""

    name: str = _one_of("sgd")


@dataclass(frozen=True)
class CheckpointSettings:
    """When the state of a run is kept, other than after each epoch and when it is stopped."""

    every_steps: int | None = _setting(
        None, "a whole number from 1, or null", lambda steps: steps is None or steps >= 1
    )


@dataclass(frozen=True)
class TrackingSettings:
    """Where MLflow keeps the run."""

    enabled: bool = _free(True, "true or false")
    uri: str | None = _free(None, "an MLflow tracking URI")
    experiment: str = _setting("mlp_tape", "a name that is not empty", lambda name: bool(name.strip()))
    patience: float = _positive(30.0)


@dataclass(frozen=True)
class SweepSettings:
    """What the jobs of `python run.py -m ...` have in common."""

    resume: str | None = _setting(
        None, "the id of a sweep, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    fail_fast: bool = _free(False, "true or false")


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on, checked."""

    lr: float = _positive(0.001)
    batch_size: int = _whole(128, 1, 10_000_000)
    epochs: int = _whole(10, 1, 1_000_000)
    seed: int = _whole(0, 0, 2**32 - 1)
    shuffle: bool = _free(False, "true or false")
    loss: str = _one_of("mse")
    engine: str = _one_of("compiled", "eager")
    log_every: int = _whole(100, 1, 1_000_000)
    resume: str | None = _setting(
        None, "the id of a run, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    report: str | None = _setting(
        None, "one of: full, light", lambda how: how in (None, "full", "light")
    )  # null: full for a run, light for a sweep's jobs
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)


# What may change when a run is gone on with: it decides neither the weights nor the rows.
FREE = (
    "epochs",
    "resume",
    "report",
    "tracking.",
    "checkpoint.",
    "dataset.path",
    "dataset.offline",
    "sweep.",
)


def differences(old: Settings, new: Settings, among: Container[str]) -> list[str]:
    """Names those of some settings that would make other weights or rows: `lr=0.1, but the run has 0.01`."""
    before = dict(flat(old))
    return [
        f"{key}={_typed(value)}, but the run has {_typed(before[key])}"
        for key, value in flat(new)
        if key in among and value != before[key] and not key.startswith(FREE)
    ]


def identity(settings: Settings, data_sha256: str) -> str:
    """Tells whether two jobs are the same: 16 hexadecimal digits of the SHA-256 of all that decides a run.

    Args:
        settings: with the name of the data that are really used.
        data_sha256: of those data.
    """
    decisive = {key: value for key, value in flat(settings) if key == "epochs" or not key.startswith(FREE)}
    text = json.dumps(decisive | {"data_sha256": data_sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(config: DictConfig) -> Settings:
    """Turns Hydra's config into checked settings.

    Paths become absolute, seen from the current directory.

    Args:
        config: what Hydra composed, without its `hydra` node.

    Raises:
        ConfigError: a key that is unknown, or a value of the wrong type or out of range; it names
            the key, the value and what was expected.
    """
    try:
        given = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0], f"{_named(error)}give it a value") from error
    assert isinstance(given, dict)
    settings: Settings = _build(Settings, given, prefix="")
    return settings


def _named(error: OmegaConfBaseException) -> str:
    return f"{error.full_key}: " if error.full_key else ""


def _build(kind: type, given: dict[Any, Any], prefix: str) -> Any:
    rules = {rule.name: rule for rule in fields(kind)}
    types = get_type_hints(kind)
    for name in given:
        if name not in rules:
            raise unknown_key(f"{prefix}{name}")
    for name, rule in rules.items():
        if name not in given and rule.default is not None:
            raise ConfigError(f"{prefix}{name} has no value", f"type {prefix}{name}=..., without ~")
    values = {}
    for name, value in given.items():
        key = f"{prefix}{name}"
        if is_dataclass(types[name]):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{key}={_typed(value)}: expected a group of settings",
                    f"type a setting of it, such as {key}.{fields(types[name])[0].name}=...",
                )
            values[name] = _build(types[name], value, prefix=f"{key}.")
        else:
            values[name] = _checked(key, value, types[name], rules[name])
    return kind(**values)


def _checked(key: str, given: Any, kind: Any, rule: Field[Any]) -> Any:
    """The value as its type, or a ConfigError that says what was expected."""
    value = given
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    elif kind in (str, str | None) and type(value) in (int, float):
        value = str(value)
    if not _fits(value, kind) or (value is not None and not rule.metadata["check"](value)):
        expected = rule.metadata["expected"]
        near = difflib.get_close_matches(str(value), expected.removeprefix("one of: ").split(", "), n=1)
        default = rule.default if rule.default_factory is MISSING else rule.default_factory()
        raise ConfigError(
            f"{key}={_typed(given)}: expected {expected}",
            f"type for example {key}={near[0] if near else _typed(default)}",
        )
    if key == "dataset.path" and value is not None:
        return str(Path(value).expanduser().absolute())
    return value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; a bool is no int, and a number is no string."""
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return isinstance(value, list) and all(_fits(each, item) for each in value)
    if get_args(kind):
        return any(_fits(value, option) for option in get_args(kind))
    return type(value) is kind


def _typed(value: Any) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(_typed(each) for each in value)}]"
    if isinstance(value, str) and re.fullmatch(r"[-+.\d].*", value):
        return repr(value)  # a string that looks like a number
    return str(value)


def unknown_key(key: str) -> ConfigError:
    """The error for a key that no setting has, with the nearest right name."""
    group = key.partition("@")[0].removeprefix("+")
    if group in ("experiment", "cluster", "sweep"):
        return ConfigError(f"{group} is not among the defaults", f"type +{group}=..., with a plus")
    known = [name for name, _ in flat(Settings())]
    leaves = {name.split(".")[-1]: name for name in known}
    group, _, leaf = key.rpartition(".")
    near = (
        [name for name in [leaves.get(leaf)] if name]
        or difflib.get_close_matches(key, known, n=1)
        or [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1)]
    )
    if near:
        return ConfigError(f"unknown setting: {key}", f"did you mean {near[0]}=... ?")
    of_group = [name for name in known if group and name.startswith(f"{group}.")]
    if of_group:
        return ConfigError(f"unknown setting: {key}", f"{group} has {', '.join(of_group)}")
    return ConfigError(f"unknown setting: {key}", "python run.py --help lists the settings")


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of each setting, in order."""
    for rule in fields(settings):
        value = getattr(settings, rule.name)
        if is_dataclass(value):
            yield from flat(value, f"{prefix}{rule.name}.")
        else:
            yield f"{prefix}{rule.name}", value


def nested(settings: Settings) -> dict[str, Any]:
    """The settings as a file may hold them: plain values, without passwords."""

    def plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: without_password(value) if isinstance(value, str) else value for key, value in pairs}

    return dataclasses.asdict(settings, dict_factory=plain)
