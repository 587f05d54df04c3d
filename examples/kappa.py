"""Quadratic weighted kappa (Cohen 1968) of all categories' answers together: how far off an answer is counts."""

import numpy as np


def kappa(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """probabilities [N, C], labels [N] of one category -> 1 for perfect agreement, 0 for that of chance.

    None where only one class occurs: nothing could be confused.
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
