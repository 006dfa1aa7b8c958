"""Selection of the best weights, and early stopping."""

import math

import numpy as np
import pytest

from mlp_tape.runs.early_stopping import EarlyStopping
from mlp_tape.training.evaluation import Evaluation


def evaluation(loss: float, accuracy: float = 0.5) -> Evaluation:
    """Returns an evaluation with a given loss and accuracy."""
    return Evaluation(loss, accuracy, np.zeros((1, 2), np.float32), np.zeros(1, np.int32), {})


def test_any_number_improves_on_a_loss_of_nan() -> None:
    best = EarlyStopping("loss", patience=2)
    for step, loss in enumerate((math.nan, math.nan, 0.5, 0.7), start=1):
        best.update(evaluation(loss), step, {"w1": np.full(1, step, np.float32)})
    assert (best.steps, best.loss, best.waited) == (3, 0.5, 1)
    best.update(evaluation(math.nan), 5, {"w1": np.zeros(1, np.float32)})
    assert (best.steps, best.is_over) == (3, True)


@pytest.mark.parametrize(
    ("monitor", "found", "steps"),
    [
        ("accuracy", [(0.4, 0.8), (0.3, 0.7), (0.9, 0.9), (0.2, 0.6)], 3),
        ("accuracy", [(0.4, 0.8), (0.3, 0.8), (0.5, 0.8)], 2),
        ("accuracy", [(math.nan, 0.8), (0.5, 0.8), (math.nan, 0.8)], 2),
        ("loss", [(0.4, 0.8), (0.3, 0.7), (0.9, 0.9), (0.3, 0.9)], 2),
    ],
)
def test_best_weights_are_those_with_the_best_metric_and_of_equal_ones_the_lower_loss(
    monitor: str, found: list[tuple[float, float]], steps: int
) -> None:
    best = EarlyStopping(monitor, patience=None)
    for step, (loss, accuracy) in enumerate(found, start=1):
        best.update(evaluation(loss, accuracy), step, {"w1": np.zeros(1, np.float32)})
    assert best.steps == steps
    assert best.results["validation/accuracy"] == found[steps - 1][1]
