"""The settings: their types, defaults and ranges, and which of them decide what a run is."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

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


OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"  # a person's own function


def _function(*names: str) -> Any:
    return _setting(
        names[0],
        f"one of: {', '.join(names)}; or a function of your own, such as module.name",
        lambda name: name in names or re.fullmatch(OWN, name) is not None,
    )


def _share(default: float) -> Any:
    return _setting(default, "a number from 0 to below 1", lambda v: 0 <= v < 1)


def _not_negative(default: float, high: float = math.inf) -> Any:
    until = "a finite number" if high == math.inf else f"a number up to {high:g}"
    return _setting(default, f"{until}, not below 0", lambda v: 0 <= v <= high and math.isfinite(v))


def _optional(rule: Any) -> Any:
    """A setting that may be null, which is what it is by default."""
    check, expected = rule.metadata["check"], rule.metadata["expected"]
    return _setting(None, f"{expected}, or null", lambda v: v is None or check(v))


def _positive(default: float) -> Any:
    return _setting(default, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))


def _whole(default: int, low: int, high: int) -> Any:
    return _setting(default, f"a whole number from {low:,} to {high:,}", lambda v: low <= v <= high)


def _free(default: Any, expected: str) -> Any:
    return _setting(default, expected, lambda value: True)


# Which settings each rule and each schedule has, beside those that all have.
RULES: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "nesterov": ("momentum",),
    "rmsprop": ("rho", "epsilon"),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "adamw": ("beta_1", "beta_2", "epsilon", "weight_decay"),
}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "step": ("every_epochs", "factor"),
    "exponential": ("factor",),
    "cosine": ("final",),
    "one_cycle": ("rising", "start", "final"),
}
TO_THE_END = ("cosine", "one_cycle")  # schedules whose rate at a step depends on how many there are in all


@dataclass(frozen=True)
class ModelSettings:
    """The network between the data's two ends."""

    hidden_sizes: list[int] = _setting(
        [256, 128],
        "a list of layer sizes from 1 to 65,536, such as [256,128]",
        lambda sizes: all(1 <= size <= 65_536 for size in sizes),
    )
    init_stddev: float = _positive(0.1)
    init: str = _one_of("truncated_normal", "he", "glorot", "lecun", "orthogonal")
    activation: str = _one_of("relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid")
    dropout: float = _share(0.0)


@dataclass(frozen=True)
class DatasetSettings:
    """Which images to learn, and where they lie."""

    name: str = _function("mnist", "mnist_5k", "digits", "fashion_mnist", "arrays")
    path: str | None = _free(None, "the path of an .npz file")
    offline: str | None = _setting(
        None, "one of: subset, error", lambda what: what in (None, "subset", "error")
    )  # only mnist has it


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule; its learning rate is the top-level `lr`. Null is what a rule has not."""

    name: str = _function(*RULES)
    momentum: float | None = _optional(_share(0.9))
    rho: float | None = _optional(_share(0.9))
    beta_1: float | None = _optional(_share(0.9))
    beta_2: float | None = _optional(_share(0.999))
    epsilon: float | None = _optional(_positive(1e-7))
    weight_decay: float | None = _optional(_not_negative(0.004))


@dataclass(frozen=True)
class ScheduleSettings:
    """What share of `lr` each step is taken with. Null is what a schedule has not."""

    name: str = _one_of(*SCHEDULES)
    warmup_epochs: float = _not_negative(0.0)
    every_epochs: float | None = _optional(_positive(1.0))
    factor: float | None = _optional(_positive(0.5))
    final: float | None = _optional(_not_negative(0.0))
    rising: float | None = _optional(_setting(0.3, "a number above 0 and below 1", lambda v: 0 < v < 1))
    start: float | None = _optional(_not_negative(0.04))


@dataclass(frozen=True)
class AugmentSettings:
    """How images are changed in each step, at the most."""

    shift: float = _not_negative(0.0)
    rotate: float = _not_negative(0.0, 180.0)


@dataclass(frozen=True)
class StoppingSettings:
    """When a run with validation images ends, and by what its weights are chosen."""

    patience: int | None = _optional(_whole(1, 1, 1_000_000))
    monitor: str = _one_of("loss", "accuracy")


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
    system_metrics: bool = _free(False, "true or false")
    register_as: str | None = _setting(
        None,
        "a name without / and :",
        lambda name: name is None or (bool(name.strip()) and not set(name) & set("/:'\"")),
    )


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
    loss: str = _function("mse", "cross_entropy")
    label_smoothing: float = _share(0.0)
    l2: float = _not_negative(0.0)
    clip_norm: float | None = _optional(_positive(1.0))
    precision: str = _one_of("float32", "bfloat16", "float64")
    validation_fraction: float = _share(0.0)
    engine: str = _one_of("compiled", "eager")
    log_every: int = _whole(100, 1, 1_000_000)
    resume: str | None = _setting(
        None, "the id of a run, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    report: str | None = _setting(
        None, "one of: full, light, none", lambda how: how in (None, "full", "light", "none")
    )  # null: full for a run, light for a sweep's jobs
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
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
        f"{key}={typed(value)}, but the run has {typed(before[key])}"
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


def typed(value: Any) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(typed(each) for each in value)}]"
    if isinstance(value, str) and (re.fullmatch(r"[-+.\d].*", value) or not value.isprintable()):
        return repr(value)  # a string that looks like a number, or would move the cursor
    return str(value)


def given(settings: Any) -> dict[str, Any]:
    """The settings of a group that are not null, by name."""
    values = dataclasses.asdict(settings)
    return {name: value for name, value in values.items() if value is not None}


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
