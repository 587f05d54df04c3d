"""Class frequencies: weights in a loss, and the log of the shares. Uses numpy only."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.config import ClassWeights


def log_prior(counts: Sequence[Sequence[int]], multi: Sequence[bool] | None = None) -> NDArray[np.float32]:
    """Return the log of each class's share in its category, [sum C]; counts [K][C], where zero counts as one image.

    It is 0 for the classes of categories with several answers, `multi` [K]: they do not compete.
    """
    seen = [np.maximum(1.0, np.asarray(count, dtype=np.float64)) for count in counts]
    logs = [np.log(n / n.sum()) for n in seen]
    kinds = multi or [False] * len(logs)
    found = [np.zeros(len(log)) if several else log for log, several in zip(logs, kinds, strict=True)]
    return np.concatenate(found).astype(np.float32)


def class_weights(count: Sequence[int], kind: ClassWeights, *, beta: float = 0.999) -> NDArray[np.float64]:
    """Return the weight of each class of one category, scaled so that its mean over the counted images is 1.

    count [C] images per class -> [C]. inverse_frequency: N / (C n); effective_number: (1 - beta) / (1 - beta^n) up to
    scale (Cui et al. 2019). A class without images is weighted as if it had one.
    """
    seen = np.asarray(count, dtype=np.float64)
    n = np.maximum(1.0, seen)
    if kind == "none" or not seen.sum():
        return np.ones(len(n))
    raw = 1 / n if kind == "inverse_frequency" else np.ones_like(n)
    if kind == "effective_number" and beta:
        raw = -(1 - beta) / np.expm1(n * math.log(beta))
    weights: NDArray[np.float64] = raw * seen.sum() / (raw * seen).sum()
    return weights
