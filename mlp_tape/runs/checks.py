"""Whether settings fit a data set; checked before anything is trained."""

from mlp_tape.config.settings import Settings
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError


def check_fit(settings: Settings, dataset: Dataset) -> None:
    """Raises an error if settings do not fit a data set, without splitting it.

    Args:
        settings: validated settings; those of a job as `SweepDirectory.resolved` returns them.
        dataset: data set as it was loaded.

    Raises:
        ConfigError: the settings require images of another kind.
        DataError: the validation images that they require cannot be held out.
    """
    if settings.validation_fraction:
        datasets.check_fraction(dataset, settings.validation_fraction)
    elif settings.stopping.patience is not None and not len(dataset.y_validation):
        patience = f"stopping.patience={settings.stopping.patience}"
        raise ConfigError(
            f"{patience} requires validation images", f"type {patience} validation_fraction=0.1"
        )
    if (settings.augment.shift or settings.augment.rotate) and dataset.x_train.ndim != 3:
        shape = dataset.x_train.shape[1:]
        raise ConfigError(
            f"augment requires images of shape [height, width], but {dataset.name} has {list(shape)}",
            "leave augment.shift and augment.rotate at 0",
        )
