"""Histograms of the values of a tensor."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 256
MOST = 20  # approximate number of times in a run that histograms are computed


@dataclass(frozen=True)
class Histogram:
    """Counts of the values of a tensor in bins of equal width.

    Attributes:
        counts: number of values in each bin, int32 [bins].
        low: lowest value.
        high: highest value.
    """

    counts: NDArray[np.int32]
    low: float
    high: float

    def quantile(self, share: float) -> float:
        """Returns the quantile of the values at `share`, 0 to 1, accurate to the width of a bin."""
        below = np.cumsum(self.counts) / self.counts.sum()
        place = (int(np.searchsorted(below, share)) + (share > 0.5)) / len(self.counts)
        return self.low + min(place, 1.0) * (self.high - self.low)

    def density(self, edges: NDArray[np.floating]) -> NDArray[np.floating]:
        """Returns the fraction of the values between adjacent edges, assuming uniform density in each bin.

        Args:
            edges: float [n + 1], ascending.

        Returns:
            float [n], from 0 to 1.
        """
        own = np.linspace(self.low, self.high, len(self.counts) + 1)
        if self.low == self.high:  # all values are equal
            own = self.low + np.linspace(-0.5, 0.5, len(self.counts) + 1) * (edges[1] - edges[0])
        below = np.concatenate([[0.0], np.cumsum(self.counts)]) / self.counts.sum()
        share: NDArray[np.floating] = np.diff(np.interp(edges, own, below))
        return share


def histogram(values: NDArray[Any]) -> Histogram | None:
    """Computes the histogram of some values; returns None if any of them is not finite."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    counts, _ = np.histogram(values, BINS, (low, high) if low < high else (low - 0.5, low + 0.5))
    return Histogram(counts.astype(np.int32), low, high)


def every(steps: int, steps_per_epoch: int, log_every: int) -> int:
    """Returns the interval, in logged steps, at which a run computes histograms about `MOST` times.

    Args:
        steps: number of steps of the run.
        steps_per_epoch: number of steps per epoch.
        log_every: number of steps between logged steps; counting restarts with each epoch.
    """
    logged = steps / steps_per_epoch * -(-steps_per_epoch // log_every)
    return max(1, round(logged / MOST))
