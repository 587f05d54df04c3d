"""How good predictions are, over a whole split. Counts stay on the device until they are asked for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainers.data.table import Category
from trainers.epoch import Scores
from trainers.support.device import send

TRUE, PREDICTED, HITS = range(3)  # rows of the counts of each class


class Tally:
    """How often each class was true, predicted, and both, [3, sum C], gathered batch by batch.

    Every metric here is a function of these; they grow with the classes, not with their square.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.sizes = list(sizes)
        self.starts = send(torch.from_numpy(_starts(sizes)), torch.device(device))  # [K]
        self.counts = torch.zeros(3 * sum(sizes), dtype=torch.int64, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, sum C] float, labels [B, K] int64. Does not wait for the device."""
        parts = torch.split(logits, self.sizes, dim=1)
        predicted = (self.starts + torch.stack([part.argmax(1) for part in parts], dim=1)).flatten()
        true, width = (self.starts + labels).flatten(), sum(self.sizes)
        ones = torch.ones_like(true)
        self.counts.index_add_(0, true + TRUE * width, ones)
        self.counts.index_add_(0, predicted + PREDICTED * width, ones)
        self.counts.index_add_(0, true + HITS * width, (true == predicted).to(ones.dtype))

    def scores(self, names: Sequence[str], loss: float) -> Scores:
        """Every metric of the split; names [K] are the categories', loss is the mean over its images."""
        return scores_of(self.counts.cpu().numpy().reshape(3, -1), names, self.sizes, loss)


def answers(logits: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The likeliest class of each category, [N, K] int64, counted through all categories: 0 to sum C - 1."""
    parts = np.split(logits, np.cumsum(sizes)[:-1], axis=1)
    found: np.ndarray = _starts(sizes) + np.stack([part.argmax(1) for part in parts], axis=1)
    return found


def truths(labels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Labels [N, K] counted in the same way."""
    found: np.ndarray = _starts(sizes) + labels
    return found


def counts_of(said: np.ndarray, true: np.ndarray, width: int) -> np.ndarray:
    """The counts [3, width] of what `answers` and `truths` gave, each [N, K]."""
    return np.stack([np.bincount(one.ravel(), minlength=width) for one in (true, said, true[true == said])])


def scores(logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category], *, loss: float) -> Scores:
    """Every metric of predictions that lie in memory: logits [N, sum C] float, labels [N, K] int.

    The loss is passed through: it belongs to an objective, which predictions do not know.
    """
    sizes = [len(category.classes) for category in categories]
    counts = counts_of(answers(logits, sizes), truths(labels, sizes), sum(sizes))
    return scores_of(counts, [category.name for category in categories], sizes, loss)


def scores_of(counts: np.ndarray, names: Sequence[str], sizes: Sequence[int], loss: float) -> Scores:
    """Every metric of counts [3, sum C], as in `Tally`; names [K] and sizes [K] are the categories'.

    Classes of different categories are different ones. Each metric is scikit-learn's of the same name, and the mean
    class accuracy its balanced accuracy: macro ones count a class that is only predicted, as 0.
    """
    true, predicted, hits = counts
    seen = true + predicted
    recall, precision, f1 = (hits / np.maximum(whole, 1) for whole in (true, predicted, seen / 2))
    right, images = (np.add.reduceat(row, _starts(sizes)) for row in (hits, true))
    return Scores(
        loss=loss,
        overall_accuracy=_ratio(hits.sum(), true.sum()),
        mean_class_accuracy=_mean(recall, true),
        macro_precision=_mean(precision, seen),
        macro_recall=_mean(recall, seen),
        macro_f1=_mean(f1, seen),
        category_accuracy={name: _ratio(*pair) for name, *pair in zip(names, right, images, strict=True)},
    )


def _starts(sizes: Sequence[int]) -> np.ndarray:
    """Where each category begins among all classes, [K]."""
    return np.cumsum([0, *sizes])[:-1]


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
    """Mean over the classes whose count is not 0, [sum C] both."""
    return float(values[counted > 0].mean()) if counted.any() else 0.0


def _ratio(part: int, whole: int) -> float:
    return int(part) / int(whole) if whole else 0.0
