"""The settings: their types, defaults and ranges, and which of them decide what a run is."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from mlp_tape.config import constraints
from mlp_tape.system.redaction import without_password

# Which settings each rule and each schedule has, beside those that all have.
RULE_SETTINGS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "nesterov": ("momentum",),
    "rmsprop": ("rho", "epsilon"),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "adamw": ("beta_1", "beta_2", "epsilon", "weight_decay"),
}
SCHEDULE_SETTINGS: dict[str, tuple[str, ...]] = {
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

    hidden_sizes: list[int] = constraints.setting(
        [256, 128],
        "a list of layer sizes from 1 to 65,536, such as [256,128]",
        lambda sizes: all(1 <= size <= 65_536 for size in sizes),
    )
    init_stddev: float = constraints.positive(0.1)
    init: str = constraints.one_of("truncated_normal", "he", "glorot", "lecun", "orthogonal")
    activation: str = constraints.one_of("relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid")
    dropout: float = constraints.share(0.0)


@dataclass(frozen=True)
class DatasetSettings:
    """Which images to learn, and where they lie."""

    name: str = constraints.function("mnist", "mnist_5k", "digits", "fashion_mnist", "arrays")
    path: str | None = constraints.free(None, "the path of an .npz file")
    offline: str | None = constraints.setting(
        None, "one of: subset, error", lambda what: what in (None, "subset", "error")
    )  # only mnist has it


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule; its learning rate is the top-level `lr`. Null is what a rule has not."""

    name: str = constraints.function(*RULE_SETTINGS)
    momentum: float | None = constraints.share(None)
    rho: float | None = constraints.share(None)
    beta_1: float | None = constraints.share(None)
    beta_2: float | None = constraints.share(None)
    epsilon: float | None = constraints.positive(None)
    weight_decay: float | None = constraints.not_negative(None)


@dataclass(frozen=True)
class ScheduleSettings:
    """What share of `lr` each step is taken with. Null is what a schedule has not."""

    name: str = constraints.one_of(*SCHEDULE_SETTINGS)
    warmup_epochs: float = constraints.not_negative(0.0)
    every_epochs: float | None = constraints.positive(None)
    factor: float | None = constraints.positive(None)
    final: float | None = constraints.not_negative(None)
    rising: float | None = constraints.positive(None, 1.0)
    start: float | None = constraints.not_negative(None)


@dataclass(frozen=True)
class AugmentSettings:
    """How images are changed in each step, at the most."""

    shift: float = constraints.not_negative(0.0)
    rotate: float = constraints.not_negative(0.0, 180.0)


@dataclass(frozen=True)
class StoppingSettings:
    """When a run with validation images ends, and by what its weights are chosen."""

    patience: int | None = constraints.whole(None, 1, 1_000_000)
    monitor: str = constraints.one_of("loss", "accuracy")


@dataclass(frozen=True)
class CheckpointSettings:
    """When the state of a run is kept, other than after each epoch and when it is stopped."""

    every_steps: int | None = constraints.setting(
        None, "a whole number from 1, or null", lambda steps: steps is None or steps >= 1
    )


@dataclass(frozen=True)
class TrackingSettings:
    """Where MLflow keeps the run."""

    enabled: bool = constraints.free(True, "true or false")
    uri: str | None = constraints.free(None, "an MLflow tracking URI")
    experiment: str = constraints.setting(
        "mlp_tape", "a name that is not empty", lambda name: bool(name.strip())
    )
    patience: float = constraints.positive(30.0)
    system_metrics: bool = constraints.free(False, "true or false")
    register_as: str | None = constraints.setting(
        None,
        "a name without / and :",
        lambda name: name is None or (bool(name.strip()) and not set(name) & set("/:'\"")),
    )


@dataclass(frozen=True)
class SweepSettings:
    """What the jobs of `python run.py -m ...` have in common."""

    resume: str | None = constraints.setting(
        None, "the id of a sweep, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    fail_fast: bool = constraints.free(False, "true or false")


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on, checked."""

    lr: float = constraints.positive(0.001)
    batch_size: int = constraints.whole(128, 1, 10_000_000)
    epochs: int = constraints.whole(10, 1, 1_000_000)
    seed: int = constraints.whole(0, 0, 2**32 - 1)
    shuffle: bool = constraints.free(False, "true or false")
    loss: str = constraints.function("mse", "cross_entropy")
    label_smoothing: float = constraints.share(0.0)
    l2: float = constraints.not_negative(0.0)
    clip_norm: float | None = constraints.positive(None)
    precision: str = constraints.one_of("float32", "bfloat16", "float64")
    validation_fraction: float = constraints.share(0.0)
    engine: str = constraints.one_of("compiled", "eager")
    log_every: int = constraints.whole(100, 1, 1_000_000)
    resume: str | None = constraints.setting(
        None, "the id of a run, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    report: str | None = constraints.setting(
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
    before = dict(flatten(old))
    return [
        f"{key}={format_value(value)}, but the run has {format_value(before[key])}"
        for key, value in flatten(new)
        if key in among and value != before[key] and not key.startswith(FREE)
    ]


def job_identity(settings: Settings, data_sha256: str) -> str:
    """Tells whether two jobs are the same: 16 hexadecimal digits of the SHA-256 of all that decides a run.

    Args:
        settings: with the name of the data that are really used.
        data_sha256: of those data.
    """
    decisive = {key: value for key, value in flatten(settings) if key == "epochs" or not key.startswith(FREE)}
    text = json.dumps(decisive | {"data_sha256": data_sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def format_value(value: Any) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(format_value(each) for each in value)}]"
    if isinstance(value, str) and (re.fullmatch(r"[-+.\d].*", value) or not value.isprintable()):
        return repr(value)  # a string that looks like a number, or would move the cursor
    return str(value)


def non_null(settings: Any) -> dict[str, Any]:
    """The settings of a group that are not null, by name."""
    values = dataclasses.asdict(settings)
    return {name: value for name, value in values.items() if value is not None}


def flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of each setting, in order."""
    for rule in fields(settings):
        value = getattr(settings, rule.name)
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{rule.name}.")
        else:
            yield f"{prefix}{rule.name}", value


def to_dict(settings: Settings) -> dict[str, Any]:
    """The settings as a file may hold them: plain values, without passwords."""

    def plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: without_password(value) if isinstance(value, str) else value for key, value in pairs}

    return dataclasses.asdict(settings, dict_factory=plain)
