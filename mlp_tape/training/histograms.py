"""Histograms: how the values of a tensor are spread."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 256
MOST = 20  # times in a run, about


@dataclass(frozen=True)
class Histogram:
    """How often the values of a tensor lie in each of some bins of equal width.

    Attributes:
        counts: int32 [bins].
        low: the lowest value.
        high: the highest value.
    """

    counts: NDArray[np.int32]
    low: float
    high: float

    def quantile(self, share: float) -> float:
        """The value below which that share of the values lies, to the width of a bin."""
        below = np.cumsum(self.counts) / self.counts.sum()
        place = (int(np.searchsorted(below, share)) + (share > 0.5)) / len(self.counts)
        return self.low + min(place, 1.0) * (self.high - self.low)

    def density(self, edges: NDArray[np.floating]) -> NDArray[np.floating]:
        """The share of the values between each two of some edges, as if each bin were filled evenly.

        Args:
            edges: rising, [n + 1].

        Returns:
            float [n], from 0 to 1.
        """
        own = np.linspace(self.low, self.high, len(self.counts) + 1)
        if self.low == self.high:  # all values are the same
            own = self.low + np.linspace(-0.5, 0.5, len(self.counts) + 1) * (edges[1] - edges[0])
        below = np.concatenate([[0.0], np.cumsum(self.counts)]) / self.counts.sum()
        share: NDArray[np.floating] = np.diff(np.interp(edges, own, below))
        return share


def histogram(values: NDArray[Any]) -> Histogram | None:
    """Counts values; None where one of them is not finite."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    counts, _ = np.histogram(values, BINS, (low, high) if low < high else (low - 0.5, low + 0.5))
    return Histogram(counts.astype(np.int32), low, high)


def every(steps: int, steps_per_epoch: int, log_every: int) -> int:
    """Of how many logged steps one has histograms, so that a run has not many more than `MOST`."""
    logged = steps / steps_per_epoch * -(-steps_per_epoch // log_every)
    return max(1, round(logged / MOST))
