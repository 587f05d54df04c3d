"""The numbers behind the figures, in numpy alone: counts and mistakes. Nothing is drawn here.

Logits [N, sum C] and labels [N, D] hold all categories side by side, see `trainers.data.table`. Missing answers are
not counted anywhere.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.data.table import Category, Span, spans
from trainers.evaluation.metrics import average_precision, flag_counts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the image's row in its split, the category, and the predicted and the true class.

    With several answers, each class is a mistake of its own: `predicted` without `true` is a class that the image
    does not have, `true` without `predicted` a class that was missed.
    """

    row: int
    category: int
    predicted: int | None
    true: int | None
    confidence: float  # probability of the predicted class, or of the class that was missed
    loss: float  # -log probability of the truth


@dataclass(frozen=True)
class Several:
    """Counts for each class of a category with several answers, [C] each."""

    true: Ints  # images that have the class
    predicted: Ints  # images predicted to have it
    hits: Ints  # images for which both hold
    average_precision: Floats  # NaN for a class that no image has

    @property
    def precision(self) -> Floats:
        """The share of predictions that are true; NaN for a class that was never predicted."""
        return _share(self.hits, self.predicted)

    @property
    def recall(self) -> Floats:
        """The share of the images of a class that were found; NaN for a class that no image has."""
        return _share(self.hits, self.true)

    @property
    def wrong(self) -> Ints:
        """The number of images for which the class was predicted wrongly or missed."""
        found: Ints = self.true + self.predicted - 2 * self.hits
        return found

    def of(self, kept: Ints) -> "Several":
        """Return the same for the classes `kept`."""
        return Several(self.true[kept], self.predicted[kept], self.hits[kept], self.average_precision[kept])


def _share(part: Ints, whole: Ints) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return found


def answers(logits: Array, labels: Ints, categories: Sequence[Category]) -> list[Ints | Several]:
    """Return one item per category, [K]: a confusion [C, C] or, with several answers, counts for each class.

    The rows of a confusion are true classes, the columns predicted ones.
    """
    return [
        (_several if span.category.multi else _confusion)(logits[:, span.classes], labels[:, span.labels])
        for span in spans(categories)
    ]


def _confusion(logits: Array, labels: Ints) -> Ints:
    size, true = logits.shape[1], labels[:, 0]
    there = true >= 0
    cells = true[there] * size + logits[there].argmax(1)
    return np.bincount(cells, minlength=size**2).reshape(size, size)


def _several(logits: Array, flags: Ints) -> Several:
    true, predicted, hits = flag_counts(logits > 0, flags)
    return Several(true, predicted, hits, average_precision(logits, flags))


def mistakes(logits: Array, labels: Ints, categories: Sequence[Category]) -> list[Mistake]:
    """Return every wrong answer, the largest cross entropy first, equal ones in order of image and category."""
    found: list[Mistake] = []
    for k, span in enumerate(spans(categories)):
        find = _wrong_classes if span.category.multi else _wrong
        found += find(logits, labels, k, span)
    return sorted(found, key=lambda one: (-one.loss, one.row, one.category))


def _wrong(logits: Array, labels: Ints, k: int, span: Span) -> Iterator[Mistake]:
    part, truths = logits[:, span.classes], labels[:, span.labels.start]
    logs = _log_softmax(part)
    predicted = part.argmax(1)
    for row in np.flatnonzero((predicted != truths) & (truths >= 0)).tolist():
        true, answer = int(truths[row]), int(predicted[row])
        yield Mistake(row, k, answer, true, math.exp(logs[row, answer]), -float(logs[row, true]))


def _wrong_classes(logits: Array, labels: Ints, k: int, span: Span) -> Iterator[Mistake]:
    part, flags = logits[:, span.classes].astype(np.float64), labels[:, span.labels]
    loss = np.logaddexp(0, np.where(flags > 0, -part, part))  # -log of the sigmoid's probability of the truth
    for row, c in np.argwhere(((part > 0) != (flags > 0)) & (flags >= 0)).tolist():
        predicted, true = (c, None) if part[row, c] > 0 else (None, c)
        cost = float(loss[row, c])
        yield Mistake(row, k, predicted, true, math.exp(-cost) if predicted is None else -math.expm1(-cost), cost)


def _log_softmax(logits: Array) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found
