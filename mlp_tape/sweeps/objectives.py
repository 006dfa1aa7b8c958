"""What the jobs of a sweep are chosen by: metrics of their records."""

from mlp_tape.config import metrics
from mlp_tape.config.settings import Settings
from mlp_tape.storage.metric_keys import VALIDATION_ACCURACY

direction = metrics.direction
WARNING = "measured on the test images by which it was chosen, and therefore too high on average"


def chosen(settings: Settings) -> list[str]:
    """Returns the metrics by which a sweep chooses, one or more.

    Args:
        settings: settings of one of its jobs, as `SweepDirectory.resolved` returns them.
    """
    return settings.sweep.objectives or [settings.sweep.choose_by or VALIDATION_ACCURACY]
