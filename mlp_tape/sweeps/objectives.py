"""What the jobs of a sweep are chosen by: metrics of their records."""

from collections.abc import Sequence

from mlp_tape.config import metrics
from mlp_tape.config.settings import Settings
from mlp_tape.config.validation import nothing_to_choose_by
from mlp_tape.data.datasets import Dataset
from mlp_tape.storage.metric_keys import VALIDATION_ACCURACY

direction = metrics.direction
WARNING = "measured on the test images by which it was chosen, and therefore too high on average"


def chosen(settings: Settings) -> list[str]:
    """Returns the metrics by which a sweep chooses, one or more.

    Args:
        settings: settings of one of its jobs, as `SweepDirectory.resolved` returns them.
    """
    return settings.sweep.objectives or [settings.sweep.choose_by or VALIDATION_ACCURACY]


def check_measurable(chosen: Sequence[str], settings: Settings, dataset: Dataset) -> None:
    """Checks that a job measures the metrics by which its sweep chooses.

    Args:
        chosen: the metrics.
        settings: settings of the job, as `SweepDirectory.resolved` returns them.
        dataset: data set as it was loaded.

    Raises:
        ConfigError: a metric requires validation images, and the job has none.
    """
    of_validation = [key for key in chosen if key.startswith("validation/")]
    if of_validation and not settings.validation_fraction and not len(dataset.y_validation):
        raise nothing_to_choose_by(of_validation[0])
