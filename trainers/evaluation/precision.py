"""The average precision of classes of which an image may have several, in numpy alone."""

import numpy as np


def average_precision(logits: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Average precision of each class, [M]: the precision at each step of recall, weighed by the step.

    Equal scores are one step, as in scikit-learn's average_precision_score. logits and flags are [N, M]; flags below
    0 are left out; NaN for a class that no image has.
    """
    return np.array([_average_precision(*column) for column in zip(logits.T, flags.T, strict=True)], dtype=np.float64)


def _average_precision(scores: np.ndarray, flags: np.ndarray) -> float:
    known = flags >= 0
    order = np.argsort(-scores[known], kind="stable")
    ranked, true = scores[known][order], flags[known][order] > 0
    if not true.any():
        return float("nan")
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of those with one score
    hits = np.cumsum(true)[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
