"""The numbers behind the figures, in numpy alone: counts, mistakes. Nothing is drawn here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Mistake:
    """One wrong answer: the image's place in its split, the category, and what was said instead of the truth."""

    row: int
    category: int
    said: int
    true: int
    confidence: float  # probability of what was said
    loss: float  # -log probability of the true class


def counts(labels: Ints, sizes: Sequence[int]) -> list[Ints]:
    """Images of each class, [K] of [C]; labels [N, K] are class indices."""
    return [np.bincount(labels[:, k], minlength=size) for k, size in enumerate(sizes)]


def confusion(logits: Array, labels: Ints, sizes: Sequence[int]) -> list[Ints]:
    """[K] of [C, C] counts: rows are true classes, columns said ones; logits [N, sum C], labels [N, K]."""
    found = []
    for k, part in enumerate(parts(logits, sizes)):
        cells = labels[:, k] * sizes[k] + part.argmax(1)
        found.append(np.bincount(cells, minlength=sizes[k] ** 2).reshape(sizes[k], sizes[k]))
    return found


def parts(logits: Array, sizes: Sequence[int]) -> list[Array]:
    """The columns of each category, [K] of [N, C]."""
    return np.split(logits, np.cumsum(sizes)[:-1], axis=1)


def mistakes(logits: Array, labels: Ints, sizes: Sequence[int]) -> list[Mistake]:
    """Every wrong answer, the one with the largest cross entropy first; equals in order of image and category."""
    found = []
    for k, part in enumerate(parts(logits, sizes)):
        logs = _log_softmax(part)
        said = part.argmax(1)
        for row in np.flatnonzero(said != labels[:, k]).tolist():
            true, answer = int(labels[row, k]), int(said[row])
            found.append(Mistake(row, k, answer, true, math.exp(logs[row, answer]), -float(logs[row, true])))
    return sorted(found, key=lambda one: (-one.loss, one.row, one.category))


def _log_softmax(logits: Array) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found
