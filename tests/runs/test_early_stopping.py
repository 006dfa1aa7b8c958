"""Selection of the best weights, and early stopping."""

import math

import numpy as np

from mlp_tape.runs.early_stopping import EarlyStopping
from mlp_tape.training.evaluation import Evaluation


def evaluation(loss: float) -> Evaluation:
    """Returns an evaluation with a given loss."""
    return Evaluation(loss, 0.5, np.zeros((1, 2), np.float32), np.zeros(1, np.int32), {})


def test_any_number_improves_on_a_loss_of_nan() -> None:
    best = EarlyStopping("loss", patience=2)
    for step, loss in enumerate((math.nan, math.nan, 0.5, 0.7), start=1):
        best.update(evaluation(loss), step, {"w1": np.full(1, step, np.float32)})
    assert (best.steps, best.loss, best.waited) == (3, 0.5, 1)
    best.update(evaluation(math.nan), 5, {"w1": np.zeros(1, np.float32)})
    assert (best.steps, best.is_over) == (3, True)
