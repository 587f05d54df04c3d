"""Temperature scaling: dividing a finished model's logits calibrates its probabilities (Guo et al. 2017).

A network that has memorised its training images answers with a probability of 0.99 when it is right nine times in
ten. A temperature is one number per category, fitted on val after every correction; it changes no answer.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from trainers.data.table import MISSING, Category, spans

MIN_ANSWERS = 100  # known answers of a category (flags, with several) below which its temperature stays 1
COLDEST, HOTTEST = 0.1, 10.0  # if val has no mistakes at all, the likeliest temperature would be 0
BLOCK = 2**16  # logits weighed together, so that they stay in a CPU's cache
Floats = NDArray[np.floating]
Slope = Callable[[float], float]


def fit(
    corrected: Floats, raw: Floats, labels: NDArray[np.int64], categories: Sequence[Category]
) -> dict[str, float]:
    """Return the temperature of each category with enough answers in val, by name; the others stay at 1.

    Logits [N, sum C] are given both corrected and raw. Categories with several answers are fitted on the raw ones,
    because thresholds change their answers but not their probabilities. labels [N, D].
    """
    found = {}
    for span in spans(categories):
        answers, multi = labels[:, span.labels], span.category.multi
        logits = (raw if multi else corrected)[:, span.classes].astype(np.float64)
        if (answers != MISSING).sum() >= MIN_ANSWERS and np.isfinite(logits).all():
            found[span.category.name] = _of_flags(logits, answers) if multi else _of_classes(logits, answers[:, 0])
    return found


def _of_classes(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Fit logits [N, C] to labels [N]."""
    known = labels != MISSING
    given, answers = logits[known], labels[known]
    below = given - given.max(axis=1, keepdims=True)  # so that no exponential overflows
    right = float(below[np.arange(len(below)), answers].sum())
    parts = np.array_split(below, math.ceil(below.size / BLOCK))
    return _root(lambda sharpness: sum(_expected(part, sharpness) for part in parts) - right)


def _expected(logits: Floats, sharpness: float) -> float:
    """Return the sum over the images of the mean of their logits [N, C], weighted by their probabilities."""
    weights = np.exp(sharpness * logits)
    return float((np.einsum("nc,nc->n", weights, logits) / weights.sum(axis=1)).sum())


def _of_flags(logits: Floats, flags: NDArray[np.int64]) -> float:
    """Fit logits [N, C] to flags [N, C]."""
    known = flags != MISSING
    given = logits[known]
    right = float(given[flags[known] > 0].sum())
    parts = np.array_split(given, math.ceil(given.size / BLOCK))
    return _root(lambda sharpness: sum(float((expit(sharpness * part) * part).sum()) for part in parts) - right)


def _root(slope: Slope) -> float:
    """Return the temperature at which the loss has slope 0; it is convex in 1 / temperature, so the slope rises."""
    at = cache(lambda log: slope(math.exp(log)))  # the root finder asks for both ends once more
    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    if at(low) >= 0:
        return HOTTEST if at(low) > 0 else 1.0  # identical logits carry no information
    if at(high) <= 0:
        return COLDEST
    return math.exp(-brentq(at, low, high, xtol=1e-4))
