"""Thresholds above which a class is among an image's answers, chosen class by class by F1."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FURTHEST = 30.0


def best(scores: np.ndarray, flags: np.ndarray, least: int) -> float:
    """Return the threshold that maximises the F1 of a class (the "F1 optimal" of Lipton et al. 2014), in logits.

    scores and flags [N]: scores above the threshold are answers. It is midway between two scores, and the highest of
    equals; at most 30 from 0, where probabilities still differ from 0 and 1. It is 0, a probability of one half,
    if fewer than `least` images have the class or lack it.
    """
    known = flags >= 0
    true = flags[known] > 0
    if min(true.sum(), (~true).sum()) < least:
        return 0.0
    order = np.argsort(-scores[known], kind="stable")
    ranked, hits = scores[known][order].astype(np.float64), np.cumsum(true[order])
    cuts = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last score above each threshold
    f1 = 2 * hits[cuts] / (cuts + 1 + hits[-1])
    at = cuts[f1.argmax()]
    below = ranked[at + 1] if at + 1 < len(ranked) else ranked[at] - 1
    return float(np.clip((ranked[at] + below) / 2, -FURTHEST, FURTHEST))


def fit(logits: np.ndarray, flags: np.ndarray, folds: np.ndarray, least: int) -> tuple[Floats, Floats]:
    """Return the thresholds that are best on all images, [M], and for each of F folds those that are best on the
    other folds, [F, M].

    logits and flags [N, M], folds [N] int.
    """
    whole = _best(logits, flags, least)
    others = [_best(logits[folds != fold], flags[folds != fold], least) for fold in range(folds.max() + 1)]
    return whole, np.stack(others)


def _best(logits: np.ndarray, flags: np.ndarray, least: int) -> Floats:
    columns = zip(logits.T, flags.T, strict=True)
    return np.array([best(scores, flag, least) for scores, flag in columns], dtype=np.float64)
