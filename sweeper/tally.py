"""The numbers behind the figures, in numpy alone: counts, weights, mistakes. Nothing is drawn here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.config import ClassWeights

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


def class_weights(count: Sequence[int], kind: ClassWeights, *, beta: float = 0.999) -> Floats:
    """Weight of each class of one category: the twin of trainers.losses.class_weights, which needs torch.

    count [C] images a class -> [C], mean 1 over the counted images. A class without images weighs as if it had one.
    """
    seen = np.asarray(count, dtype=np.float64)
    n = np.maximum(1.0, seen)
    if kind == "none" or not seen.sum():
        return np.ones(len(n))
    raw = 1 / n if kind == "inverse_frequency" else np.ones_like(n)
    if kind == "effective_number" and beta:
        raw = -(1 - beta) / np.expm1(n * math.log(beta))
    found: Floats = raw * seen.sum() / (raw * seen).sum()
    return found
