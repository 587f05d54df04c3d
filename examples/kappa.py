"""Quadratic weighted kappa (Cohen 1968): agreement beyond chance, in which distant answers count as worse."""

import numpy as np


def kappa(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Return 1 for perfect agreement and 0 for chance, from probabilities [N, C] and labels [N] of one category.

    Return None if only one class occurs, because nothing can be confused.
    """
    classes = probabilities.shape[1]
    table = np.zeros((classes, classes))
    np.add.at(table, (labels, probabilities.argmax(1)), 1)
    if np.count_nonzero(table.sum(1)) < 2:
        return None
    distance = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    chance = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return float(1 - (distance * table).sum() / (distance * chance).sum())


metrics = {"kappa": kappa}
