"""The settings: their types, defaults and ranges, and which of them identify a run."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from mlp_tape.config import constraints
from mlp_tape.system.redaction import without_password

# The settings of each update rule and each schedule, in addition to those common to all.
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
TO_THE_END = ("cosine", "one_cycle")  # schedules whose rate depends on the total number of steps


@dataclass(frozen=True)
class ModelSettings:
    """The network, apart from the sizes of input and output, which the data determine.

    Attributes:
        hidden_sizes: Sizes of the hidden layers, any number of them. The data determine the input and output
            sizes.
        init_stddev: Standard deviation of the truncated normal distribution of `truncated_normal`. Biases
            start at zero.
        init: Distribution of the initial weights.
        activation: Activation function of the hidden layers.
        dropout: Fraction of each hidden layer that is dropped in training.
    """

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
    """The data set to train on, and its location.

    Attributes:
        name: Data set, selected by `dataset=`.
        path: File with the arrays `x_train`, `y_train`, `x_test` and `y_test`.
        offline: What to do if MNIST is neither in the cache nor can be downloaded: `subset` trains on the
            5,000 bundled images, `error` ends the program.
    """

    name: str = constraints.function("mnist", "mnist_5k", "digits", "fashion_mnist", "arrays")
    path: str | None = constraints.free(None, "the path of an .npz file")
    offline: str | None = constraints.setting(
        None, "one of: subset, error", lambda what: what in (None, "subset", "error")
    )  # for mnist only


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule; its learning rate is the top-level `lr`. Settings it does not use are null.

    Attributes:
        name: Update rule, selected by `optimizer=`.
        momentum: Factor by which the velocity decays in each step, for `momentum` and `nesterov`.
        rho: Decay rate of the mean of squared gradients, for `rmsprop`.
        beta_1: Decay rate of the mean of gradients, for `adam` and `adamw`.
        beta_2: Decay rate of the mean of squared gradients, for `adam` and `adamw`.
        epsilon: Small constant in the denominator, for `rmsprop`, `adam` and `adamw`.
        weight_decay: Fraction of each parameter, times the learning rate, that is subtracted from it in each
            step, for `adamw`.
    """

    name: str = constraints.function(*RULE_SETTINGS)
    momentum: float | None = constraints.share(None)
    rho: float | None = constraints.share(None)
    beta_1: float | None = constraints.share(None)
    beta_2: float | None = constraints.share(None)
    epsilon: float | None = constraints.positive(None)
    weight_decay: float | None = constraints.not_negative(None)


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate schedule, a factor applied to `lr`. Settings it does not use are null.

    Attributes:
        name: Learning rate schedule, selected by `schedule=`.
        warmup_epochs: Number of epochs, before any schedule begins, in which the learning rate rises linearly
            to `lr`.
        every_epochs: Number of epochs between two reductions, for `step`.
        factor: Factor by which the learning rate is multiplied: at each reduction for `step`, gradually over
            each epoch for `exponential`.
        final: Learning rate at the end, as a fraction of `lr`, for `cosine` and `one_cycle`.
        rising: Fraction of the steps in which the learning rate rises, for `one_cycle`.
        start: Learning rate at the first step, as a fraction of `lr`, for `one_cycle`.
    """

    name: str = constraints.one_of(*SCHEDULE_SETTINGS)
    warmup_epochs: float = constraints.not_negative(0.0)
    every_epochs: float | None = constraints.positive(None)
    factor: float | None = constraints.positive(None)
    final: float | None = constraints.not_negative(None)
    rising: float | None = constraints.positive(None, 1.0)
    start: float | None = constraints.not_negative(None)


@dataclass(frozen=True)
class AugmentSettings:
    """Upper limits of the random shift (pixels) and rotation (degrees) of the training images.

    Attributes:
        shift: Maximum shift along each axis, in pixels.
        rotate: Maximum rotation, in degrees.
    """

    shift: float = constraints.not_negative(0.0)
    rotate: float = constraints.not_negative(0.0, 180.0)


@dataclass(frozen=True)
class StoppingSettings:
    """Early stopping and the criterion for selecting weights, for runs with validation images.

    Attributes:
        patience: Number of epochs without better weights after which training ends; requires
            `validation_fraction`.
        monitor: Validation metric by which weights are compared.
    """

    patience: int | None = constraints.whole(None, 1, 1_000_000)
    monitor: str = constraints.one_of("loss", "accuracy")


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save checkpoints, in addition to the end of each epoch and when a run is stopped.

    Attributes:
        every_steps: Number of steps between additional checkpoints.
    """

    every_steps: int | None = constraints.setting(
        None, "an integer from 1, or null", lambda steps: steps is None or steps >= 1
    )


@dataclass(frozen=True)
class TrackingSettings:
    """Where and how MLflow records the run.

    Attributes:
        enabled: Whether MLflow records the run.
        uri: Tracking URI. If null, `MLFLOW_TRACKING_URI`, and if that is not set either, the SQLite database
            `mlflow.db` in the current directory.
        experiment: Name of the MLflow experiment, which is created if it does not exist.
        patience: Number of seconds without a response, at the end of a run, after which the remaining data
            are left to `python -m mlp_tape sync`.
        system_metrics: Whether to record CPU load, memory, disk, network and GPU of the machine, each second,
            as metrics `system/...`; requires `pip install -e '.[system]'`. The command line's default is the
            value of `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`; `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` sets
            another interval.
        register_as: Name under which the model of a full report is also registered.
    """

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
    """Settings shared by all jobs of `python run.py -m ...`.

    Attributes:
        resume: Sweep to resume.
        fail_fast: Whether the first job that fails ends the sweep.
    """

    resume: str | None = constraints.setting(
        None, "the id of a sweep, its directory, or last", lambda which: which is None or bool(which.strip())
    )
    fail_fast: bool = constraints.free(False, "true or false")


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    Attributes:
        lr: Learning rate.
        batch_size: Number of images per step. The last batch of an epoch may be smaller; it is used.
        epochs: Number of passes over the training images.
        seed: Seed of everything random: initial weights, order of the images, dropout, augmentation.
        shuffle: Whether each epoch has its own order of the images, a pure function of seed and epoch. If
            false, the order is that of the file.
        loss: `mse` is the mean of (one_hot(y) - logits)² over batch and classes, `cross_entropy` the
            cross-entropy of the softmax, mean over the batch.
        label_smoothing: Fraction of each training label that is distributed evenly over all classes.
        l2: Factor of the sum of the squared weights that is added to the loss in training.
        clip_norm: Maximum norm of all gradients together. If null, gradients are not clipped.
        precision: Precision of forward and backward pass. Parameters are float32 in any case.
        validation_fraction: Fraction of the training images held out for validation. If above 0, the run ends
            with the weights that are best on them, and `test/*` is measured once, with these weights.
        engine: `compiled` runs blocks of steps as one XLA call, `eager` the same step operation by operation.
        log_every: Number of steps from one printed loss, and one row of norms, to the next.
        resume: Run to resume.
        report: What a run produces at its end: `none`, `light` (weights) or `full` (also plots and a model).
            If null, full for a run and light for the jobs of a sweep.
        checkpoint: Settings of checkpoints.
        model: Settings of the network.
        dataset: Settings of the data.
        optimizer: Settings of the update rule.
        schedule: Settings of the learning rate schedule.
        augment: Settings of the augmentation.
        stopping: Settings of early stopping.
        tracking: Settings of MLflow tracking.
        sweep: Settings of a sweep.
    """

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


# Settings that may change when a run is resumed: they do not affect steps already taken or their metrics.
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
    """Describes differences between settings that affect weights or metrics.

    Args:
        old: settings of the existing run.
        new: settings to compare with.
        among: dotted keys of the settings to compare.

    Returns:
        A description of each difference, such as `lr=0.1, but the run has 0.01`.
    """
    before = dict(flatten(old))
    return [
        f"{key}={format_value(value)}, but the run has {format_value(before[key])}"
        for key, value in flatten(new)
        if key in among and value != before[key] and not key.startswith(FREE)
    ]


def job_identity(settings: Settings, data_sha256: str) -> str:
    """Returns the identity of a job: 16 hexadecimal digits of the SHA-256 of everything that determines it.

    Args:
        settings: settings of the job, with the name of the data set that is actually used.
        data_sha256: SHA-256 of that data set.
    """
    decisive = {key: value for key, value in flatten(settings) if key == "epochs" or not key.startswith(FREE)}
    text = json.dumps(decisive | {"data_sha256": data_sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def format_value(value: Any) -> str:
    """Formats a value as it would be typed on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(format_value(each) for each in value)}]"
    if isinstance(value, str) and (re.fullmatch(r"[-+.\d].*", value) or not value.isprintable()):
        return repr(value)  # looks like a number, or contains control characters
    return str(value)


def non_null(settings: Any) -> dict[str, Any]:
    """Returns the settings of a group that are not null, by name."""
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
    """Returns the settings as nested dictionaries of plain values, without passwords, to write to a file."""

    def plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: without_password(value) if isinstance(value, str) else value for key, value in pairs}

    return dataclasses.asdict(settings, dict_factory=plain)
