"""Overall accuracy, average accuracy and kappa from one confusion matrix (LoLA-SpecViT, section on metrics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scores:
    """What a classification is worth, in percent.

    Attributes:
        oa: overall accuracy, the share of tested pixels that are right.
        aa: average accuracy, the mean over the classes of their own shares. A class with no tested pixel has none and
            is left out (the published code counts it as 0).
        kappa: ``(oa - pe) / (1 - pe)``, with ``pe`` what chance would agree on.
        of_class: the accuracy of each class; NaN where no pixel was tested.
        untested: numbers (from 0) of the classes with no tested pixel.
    """

    oa: float
    aa: float
    kappa: float
    of_class: NDArray[np.float64]
    untested: tuple[int, ...]


def confusion(truth: NDArray[np.integer], estimate: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """``[classes, classes]``: how many pixels of true class i (from 0) were taken for class j."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(truth, estimate, labels=np.arange(classes)), dtype=np.int64)


def scores(matrix: NDArray[np.integer]) -> Scores:
    """The scores of a confusion matrix.

    >>> found = scores(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    >>> round(found.oa, 1), round(found.aa, 1), found.untested
    (85.0, 85.0, (2,))

    Raises:
        ValueError: no pixel was tested.
    """
    exact = np.asarray(matrix, dtype=np.float64)
    total, tested = exact.sum(), exact.sum(1)
    if total == 0:
        raise ValueError("the confusion matrix is empty: no pixel was tested")
    with np.errstate(invalid="ignore"):
        of_class = 100 * np.diag(exact) / tested
    right, chance = np.trace(exact) / total, float(tested @ exact.sum(0)) / total**2
    kappa = (right - chance) / (1 - chance) if chance < 1 else 1.0
    untested = tuple(int(number) for number in np.flatnonzero(tested == 0))
    return Scores(100 * float(right), float(np.nanmean(of_class)), 100 * float(kappa), of_class, untested)
