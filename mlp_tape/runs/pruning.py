"""The end of a job of a search at an epoch's end, if other jobs did better until then."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pruning:
    """What a job reports to its search at the end of each epoch, and receives from it.

    Attributes:
        metric: name of the metric that is reported, such as `accuracy`.
        decide: function of the epoch, from 0, and the value of the metric, that returns whether the job ends.
        why: why the job ends, for the console.
    """

    metric: str
    decide: Callable[[int, float], bool]
    why: str = "as other jobs did better until then"

    def ends_job(self, epoch: int, value: Callable[[str], float]) -> bool:
        """Reports the value of the metric at the end of an epoch; returns whether the search ends the job."""
        return self.decide(epoch, value(self.metric))
