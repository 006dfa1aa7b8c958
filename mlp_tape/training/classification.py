"""Metrics of a classification, by class, which show what accuracy hides if some classes are rare."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
IMBALANCED = 1.4  # times the share of a class if all had the same number of rows


@dataclass(frozen=True, eq=False)
class ByClass:
    """Precision, recall and F1 of each class, float64 [classes], each from 0 to 1.

    Attributes:
        rows: number of rows of each class, int64 [classes].
        precision: share of the rows predicted as the class that belong to it; 0 if there are none.
        recall: share of the rows of the class that are predicted as it; 0 if there are none.
    """

    rows: NDArray[np.int64]
    precision: Numbers
    recall: Numbers

    @property
    def f1(self) -> Numbers:
        """The harmonic mean of precision and recall; 0 if both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the recall of all classes that have rows (Brodersen et al. 2010)."""
        return float(self.recall[self.rows > 0].mean())

    @property
    def macro_f1(self) -> float:
        """The mean of F1 of all classes that have rows or are predicted."""
        return float(self.f1[(self.rows > 0) | (self.precision > 0)].mean())

    @property
    def is_imbalanced(self) -> bool:
        """Whether always answering with the most frequent class scores much better than guessing."""
        return self.majority_accuracy > IMBALANCED / len(self.rows)

    @property
    def majority_accuracy(self) -> float:
        """The accuracy of an answer that is always the class with the most rows."""
        return float(self.rows.max() / self.rows.sum())


def by_class(labels: NDArray[np.integer], predictions: NDArray[np.integer], n_classes: int) -> ByClass:
    """Computes the metrics of each class.

    Args:
        labels: true classes, int [n], at least one.
        predictions: predicted classes, int [n].
        n_classes: number of classes.
    """
    rows, predicted, correct = (
        np.bincount(each, minlength=n_classes)
        for each in (labels, predictions, labels[labels == predictions])
    )
    return ByClass(rows, correct / np.maximum(predicted, 1), correct / np.maximum(rows, 1))
