"""The verdict on a run that repeats another: which differences another order of additions explains."""

import math

from mlp_tape.runs.evidence import ComparedPlace, relative_difference
from mlp_tape.storage.metric_keys import TRAIN_LOSS

IDENTICAL, ROUNDING, DIFFERENT = "bit-identical", "equal to within rounding", "different"
# Another order of additions changes the last bits, and training amplifies that: with Adam on MNIST, from 7e-8
# to 4e-7 within 300 steps, and to 0.2 of the mean loss of an epoch in 4,000. Differences of rounding are:
FIRST = 1e-5  # at most, of the first step that differs
EARLY, STEPS = 1e-3, 100  # and of as many steps from there on
COARSE = 1_000  # factor for both if the forward pass is computed in bfloat16
MEAN = 0.5  # of the mean loss of each epoch
ACCURACY = 0.02  # of an accuracy or F1, an absolute difference


def is_rounding(place: ComparedPlace, steps_per_epoch: int, precision: str) -> bool:
    """Returns whether the differences are such as another order of additions causes.

    They are small at first, grow gradually, and lead to similar results. Once a loss differs, most losses
    after it do: a value that differs while those that follow from it are the same was not computed so.

    Args:
        place: what was found about a place.
        steps_per_epoch: number of steps in an epoch.
        precision: dtype of the forward pass.
    """
    coarseness = COARSE if precision == "bfloat16" else 1
    first = place.first
    if place.is_broken or first is None:
        return False
    early = [(step, each) for step, each in place.relative() if step < first + STEPS]
    if any(each > (FIRST if step == first else EARLY) * coarseness for step, each in early):
        return False
    losses = [recorded != here for _, recorded, here in place.pairs.get(TRAIN_LOSS, [])]
    after = losses[losses.index(True) :] if True in losses else []
    if sum(after) < len(after) / 2 or place.accuracy > ACCURACY:
        return False
    pairs, n = place.pairs.get(TRAIN_LOSS, []), steps_per_epoch
    epochs = [pairs[i : i + n] for i in range(0, len(pairs), n)]
    means = [[math.fsum(pair[which] for pair in epoch) for which in (1, 2)] for epoch in epochs]
    return all(relative_difference(*pair) <= MEAN for pair in means)


def sizes(place: ComparedPlace) -> tuple[float, float]:
    """Returns the largest relative difference of the first steps that differ, and that of an accuracy."""
    first = place.first or 0
    return max(each for step, each in place.relative() if step < first + STEPS), place.accuracy
