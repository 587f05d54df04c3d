"""How good predictions are, over a whole split. Counts stay on the device until they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.data.table import Category, spans
from trainers.epoch import Scores
from trainers.evaluation.precision import average_precision
from trainers.support.device import send

TRUE, PREDICTED, HITS = range(3)  # rows of the counts of each class


@dataclass(frozen=True)
class Columns:
    """Which columns of logits and labels are of categories with one answer, and which of those with several."""

    single: np.ndarray  # [S], the categories with one answer
    first: np.ndarray  # [S], the first class of each
    label: np.ndarray  # [S], the label of each
    classes: np.ndarray  # [M], the classes of the categories with several answers
    flags: np.ndarray  # [M], their labels

    @classmethod
    def of(cls, categories: Sequence[Category]) -> "Columns":
        places = spans(categories)
        one = [k for k, category in enumerate(categories) if not category.multi]
        several = [span for span in places if span.category.multi]
        return cls(
            np.array(one, dtype=np.int64),
            np.array([places[k].classes.start for k in one], dtype=np.int64),
            np.array([places[k].labels.start for k in one], dtype=np.int64),
            _columns([span.classes for span in several]),
            _columns([span.labels for span in several]),
        )


def _columns(slices: Sequence[slice]) -> np.ndarray:
    return np.array([k for one in slices for k in range(one.start, one.stop)], dtype=np.int64)


class Tally:
    """How often each class was true, predicted, and both, [3, sum C], gathered batch by batch.

    Every metric but the average precision is a function of these; they grow with the classes, not with their square.
    For the average precision, the logits of categories with several answers are kept. `missing`: some answers are,
    and count nowhere.
    """

    def __init__(
        self, categories: Sequence[Category], device: torch.device | str = "cpu", *, missing: bool = False
    ) -> None:
        self.categories, self.missing = tuple(categories), missing
        self.sizes, self.columns = [len(category.classes) for category in categories], Columns.of(categories)
        here = torch.device(device)
        self.first, self.label, self.classes, self.flags = (
            send(torch.from_numpy(column), here)
            for column in (self.columns.first, self.columns.label, self.columns.classes, self.columns.flags)
        )
        self.counts = torch.zeros(3 * sum(self.sizes), dtype=torch.int64, device=here)
        self.known = torch.zeros(len(self.sizes), dtype=torch.int64, device=here)  # images with an answer
        self.ranked: list[tuple[Tensor, Tensor]] = []  # logits and flags, [B, M] each
        self.images = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, sum C] float, labels [B, D] int64. Does not wait for the device."""
        self.images += len(labels)
        several = len(self.columns.single) < len(self.sizes)
        if len(self.columns.single):
            parts = torch.split(logits, self.sizes, dim=1)
            said = self.first + torch.stack([parts[k].argmax(1) for k in self.columns.single], dim=1)
            self._count(said, labels.index_select(1, self.label) if several else labels)
        if several:
            ranked = logits.index_select(1, self.classes).float(), labels.index_select(1, self.flags)
            self._count_flags(*ranked)
            self.ranked.append(ranked)
        if self.missing:
            self.known += torch.stack([(labels[:, s.labels] >= 0).any(1).sum() for s in spans(self.categories)])

    def _count(self, said: Tensor, labels: Tensor) -> None:
        """Answers, counted through all classes, and labels, [B, S] each."""
        ones = (labels >= 0).long() if self.missing else torch.ones_like(labels)
        true, width = self.first + (labels.clamp_min(0) if self.missing else labels), sum(self.sizes)
        hits = (true == said).to(ones.dtype) * ones
        for row, where, what in ((TRUE, true, ones), (PREDICTED, said, ones), (HITS, true, hits)):
            self.counts.index_add_(0, where.flatten() + row * width, what.flatten())

    def _count_flags(self, logits: Tensor, flags: Tensor) -> None:
        said, true = (logits > 0) & (flags >= 0), flags > 0
        found = torch.stack([true.sum(0), said.sum(0), (true & said).sum(0)])
        self.counts.view(3, -1).index_add_(1, self.classes, found)

    def scores(self, loss: float) -> Scores:
        """Every metric of the split; loss is the mean over its images."""
        known = self.known.tolist() if self.missing and self.known.min() < self.images else None
        precision = None
        if self.ranked:
            logits, flags = (torch.cat(parts).cpu().numpy() for parts in zip(*self.ranked, strict=True))
            precision = average_precision(logits, flags)
        counts = self.counts.cpu().numpy().reshape(3, -1)
        return scores_of(counts, self.categories, loss, precision=precision, known=known)


def answers(logits: np.ndarray, categories: Sequence[Category]) -> np.ndarray:
    """The likeliest class of each category with one answer, [N, S] int64, counted through all: 0 to sum C - 1."""
    parts = np.split(logits, np.cumsum([len(category.classes) for category in categories])[:-1], axis=1)
    columns = Columns.of(categories)
    best = [parts[k].argmax(1) for k in columns.single]
    found: np.ndarray = columns.first + np.stack(best, axis=1) if best else np.zeros((len(logits), 0), dtype=np.int64)
    return found


def truths(labels: np.ndarray, categories: Sequence[Category]) -> np.ndarray:
    """Their labels, [N, D], counted in the same way; -1 where the answer is missing."""
    columns = Columns.of(categories)
    chosen = labels[:, columns.label]
    found: np.ndarray = np.where(chosen < 0, -1, columns.first + chosen)
    return found


def counts_of(said: np.ndarray, true: np.ndarray, width: int) -> np.ndarray:
    """The counts [3, width] of what `answers` and `truths` gave, each [N, S]."""
    known = true >= 0
    true, said = true[known], said[known]
    return np.stack([np.bincount(one, minlength=width) for one in (true, said, true[true == said])])


def flag_counts(said: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The counts [3, M] of answers and labels of categories with several answers, [N, M] bool and flags."""
    true, said = flags > 0, said & (flags >= 0)
    return np.stack([true.sum(0), said.sum(0), (true & said).sum(0)])


def known_images(labels: np.ndarray, categories: Sequence[Category]) -> list[int] | None:
    """Images whose answer is known in each category, [K]; None where all are."""
    if (labels >= 0).all():
        return None
    return [int((labels[:, span.labels] >= 0).any(1).sum()) for span in spans(categories)]


def scores(logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category], *, loss: float) -> Scores:
    """Every metric of predictions that lie in memory: logits [N, sum C] float, labels [N, D] int.

    The loss is passed through: it belongs to an objective, which predictions do not know.
    """
    columns = Columns.of(categories)
    width = sum(len(category.classes) for category in categories)
    counts = counts_of(answers(logits, categories), truths(labels, categories), width)
    ranked, flags = logits[:, columns.classes], labels[:, columns.flags]
    counts[:, columns.classes] = flag_counts(ranked > 0, flags)
    precision = average_precision(ranked, flags)
    return scores_of(counts, categories, loss, precision=precision, known=known_images(labels, categories))


def scores_of(
    counts: np.ndarray,
    categories: Sequence[Category],
    loss: float,
    *,
    precision: np.ndarray | None = None,
    known: Sequence[int] | None = None,
) -> Scores:
    """Every metric of counts [3, sum C], as in `Tally`.

    precision [M] of `average_precision`, known [K] of `known_images`. Classes of different categories are different
    ones. Each metric is scikit-learn's of the same name, and the mean class accuracy its balanced accuracy: macro
    ones count a class that is only predicted, as 0.
    """
    true, predicted, hits = counts
    seen = true + predicted
    recall, precise, f1 = (hits / np.maximum(whole, 1) for whole in (true, predicted, seen / 2))
    found = {
        "macro_precision": _mean(precise, seen),
        "macro_recall": _mean(recall, seen),
        "macro_f1": _mean(f1, seen),
    }
    by_category = _by_category(counts, categories, precision)
    columns = Columns.of(categories)
    if len(columns.single):
        one = np.setdiff1d(np.arange(len(true)), columns.classes)
        found["overall_accuracy"] = _ratio(hits[one].sum(), true[one].sum())
        found["mean_class_accuracy"] = _mean(recall[one], true[one])
    if len(columns.classes) and precision is not None:
        several = columns.classes
        found["micro_f1"] = _ratio(2 * hits[several].sum(), seen[several].sum())
        found["mean_average_precision"] = _nanmean(precision)
        found["mean_category_score"] = _nanmean(np.array(list(by_category.values())))
    named = zip(categories, known or (), strict=False)
    return Scores(
        loss=loss,
        category_accuracy=by_category,
        category_answers={category.name: images for category, images in named},
        **found,
    )


def _by_category(
    counts: np.ndarray, categories: Sequence[Category], precision: np.ndarray | None
) -> dict[str, float]:
    """Accuracy, or with several answers mean average precision, by category; NaN where no answer is known."""
    found, at = {}, 0
    for span in spans(categories):
        if span.category.multi:
            width = len(span.category.classes)
            found[span.category.name] = float("nan") if precision is None else _nanmean(precision[at : at + width])
            at += width
        else:
            found[span.category.name] = _accuracy(counts[:, span.classes])
    return found


def _accuracy(counts: np.ndarray) -> float:
    images = int(counts[TRUE].sum())
    return int(counts[HITS].sum()) / images if images else float("nan")


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
    """Mean over the classes whose count is not 0, [sum C] both."""
    return float(values[counted > 0].mean()) if counted.any() else 0.0


def _nanmean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _ratio(part: int, whole: int) -> float:
    return int(part) / int(whole) if whole else 0.0
