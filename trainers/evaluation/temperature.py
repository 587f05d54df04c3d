"""Temperature scaling: dividing a finished model's logits calibrates its probabilities (Guo et al. 2017).

A network that has memorised its training images answers with a probability of 0.99 when it is right nine times in
ten. A temperature is one number per category, fitted on val after every correction; it changes no answer.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, softmax

from trainers.data.table import MISSING, Category, spans

MIN_ANSWERS = 100  # known answers of a category (flags, with several) below which its temperature stays 1
COLDEST, HOTTEST = 0.1, 10.0  # if val has no mistakes at all, the likeliest temperature would be 0
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
    logits, right = logits[known], logits[known, labels[known]]
    return _root(lambda sharpness: float(((softmax(sharpness * logits, axis=1) * logits).sum(1) - right).sum()))


def _of_flags(logits: Floats, flags: NDArray[np.int64]) -> float:
    """Fit logits [N, C] to flags [N, C]."""
    known = flags != MISSING
    given, said = logits[known], flags[known]
    return _root(lambda sharpness: float(((expit(sharpness * given) - said) * given).sum()))


def _root(slope: Slope) -> float:
    """Return the temperature at which the loss has slope 0; it is convex in 1 / temperature, so the slope rises."""
    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST if slope(low) > 0 else 1.0  # identical logits carry no information
    if slope(high) <= 0:
        return COLDEST
    return math.exp(-brentq(lambda log: slope(math.exp(log)), math.log(low), math.log(high), xtol=1e-4))
