"""From which score on a class is among an image's answers, chosen class by class by F1."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FURTHEST = 30.0


def best(scores: np.ndarray, flags: np.ndarray, least: int) -> float:
    """The threshold that gives one class its highest F1 (the "F1 optimal" of Lipton et al. 2014), in logits.

    scores and flags [N]: those above it are answers. It lies in the middle between two scores, and of equals it is
    the highest; at most 30 from 0, where probabilities are still told from 0 and 1. 0, a probability of one half,
    where fewer than `least` images have the class, or lack it.
    """
    known = flags >= 0
    true = flags[known] > 0
    if min(true.sum(), (~true).sum()) < least:
        return 0.0
    order = np.argsort(-scores[known], kind="stable")
    ranked, hits = scores[known][order].astype(np.float64), np.cumsum(true[order])
    cuts = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last above each threshold
    f1 = 2 * hits[cuts] / (cuts + 1 + hits[-1])
    at = cuts[f1.argmax()]
    below = ranked[at + 1] if at + 1 < len(ranked) else ranked[at] - 1
    return float(np.clip((ranked[at] + below) / 2, -FURTHEST, FURTHEST))


def fit(logits: np.ndarray, flags: np.ndarray, folds: np.ndarray, least: int) -> tuple[Floats, Floats]:
    """The thresholds [M] that are best on all images, and for each of F folds [F, M] those of the others.

    logits and flags [N, M], folds [N] int.
    """
    whole = _best(logits, flags, least)
    others = [_best(logits[folds != fold], flags[folds != fold], least) for fold in range(folds.max() + 1)]
    return whole, np.stack(others)


def _best(logits: np.ndarray, flags: np.ndarray, least: int) -> Floats:
    columns = zip(logits.T, flags.T, strict=True)
    return np.array([best(scores, flag, least) for scores, flag in columns], dtype=np.float64)
