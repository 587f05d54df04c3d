"""Metrics of predictions over a whole split, in numpy only; `tally` counts on a device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.data.table import Category, class_counts, known_images, spans
from trainers.epoch import Scores

TRUE, PREDICTED, HITS = range(3)  # rows of the counts of each class


@dataclass(frozen=True)
class Columns:
    """The columns of logits and labels that belong to categories with one answer, and to those with several."""

    categories: tuple[Category, ...]
    sizes: list[int]  # [K], classes of each category
    starts: np.ndarray  # [K], the first class of each category
    single: np.ndarray  # [S], the categories with one answer
    labels: np.ndarray  # [S], the label column of each of these
    competing: np.ndarray  # [sum C] bool, true for their classes
    classes: np.ndarray  # [M], the classes of the categories with several answers
    flags: np.ndarray  # [M], their label columns

    @classmethod
    def of(cls, categories: Sequence[Category]) -> "Columns":
        places = spans(categories)
        several = [span for span in places if span.category.multi]
        classes = _columns([span.classes for span in several])
        return cls(
            categories=tuple(categories),
            sizes=[len(category.classes) for category in categories],
            starts=np.array([span.classes.start for span in places], dtype=np.int64),
            single=np.array([k for k, category in enumerate(categories) if not category.multi], dtype=np.int64),
            labels=np.array([span.labels.start for span in places if not span.category.multi], dtype=np.int64),
            competing=np.isin(np.arange(places[-1].classes.stop if places else 0), classes, invert=True),
            classes=classes,
            flags=_columns([span.labels for span in several]),
        )


def _columns(slices: Sequence[slice]) -> np.ndarray:
    return np.array([k for one in slices for k in range(one.start, one.stop)], dtype=np.int64)


def answers(logits: np.ndarray, columns: Columns) -> np.ndarray:
    """Return the likeliest class of each category with one answer, [N, S] int64, numbered from 0 to sum C - 1."""
    parts = np.split(logits, columns.starts[1:], axis=1)
    best = [columns.starts[k] + parts[k].argmax(1) for k in columns.single]
    return np.stack(best, axis=1) if best else np.zeros((len(logits), 0), dtype=np.int64)


def truths(labels: np.ndarray, columns: Columns) -> np.ndarray:
    """Return the true classes from labels [N, D], numbered in the same way; -1 for a missing answer."""
    chosen = labels[:, columns.labels]
    found: np.ndarray = np.where(chosen < 0, -1, columns.starts[columns.single] + chosen)
    return found


def counts_of(predicted: np.ndarray, true: np.ndarray, width: int) -> np.ndarray:
    """Return the counts [3, width] from `answers` and `truths`, each [N, S]."""
    known = true >= 0
    true, predicted = true[known], predicted[known]
    return np.stack([np.bincount(one, minlength=width) for one in (true, predicted, true[true == predicted])])


def flag_counts(predicted: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Return the counts [3, M] from the answers [N, M] bool and flags [N, M] of categories with several answers."""
    true, predicted = flags > 0, predicted & (flags >= 0)
    return np.stack([true.sum(0), predicted.sum(0), (true & predicted).sum(0)])


def average_precision(logits: np.ndarray, flags: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the average precision of each class, [M]: the precision at each step of recall, weighted by the step.

    Equal scores are one step, as in scikit-learn's average_precision_score. logits and flags are [N, M]; flags below
    0 are ignored; NaN for a class that no image has. With positive weights of the images, [N, R], it is [R, M].
    """
    seen = np.ones((len(logits), 1)) if weights is None else weights
    found = np.zeros((seen.shape[1], logits.shape[1]))
    for number, pair in enumerate(zip(logits.T, flags.T, strict=True)):
        found[:, number] = _average_precision(*pair, seen)
    return found[0] if weights is None else found


def _average_precision(scores: np.ndarray, flags: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one class, [R]."""
    known = np.flatnonzero(flags >= 0)
    order = known[np.argsort(-scores[known], kind="stable")]
    ranked, true = scores[order], flags[order] > 0
    if not true.any():
        return np.full(weights.shape[1], np.nan)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each group of equal scores
    seen = weights[order]
    hits, whole = (np.cumsum(each, axis=0)[last] for each in (seen * true[:, None], seen))
    found: np.ndarray = (np.diff(hits, axis=0, prepend=0) * hits / whole).sum(0) / hits[-1]
    return found


def scores(logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category], *, loss: float) -> Scores:
    """Return every metric of predictions in memory: logits [N, sum C] float, labels [N, D] int.

    The loss is passed through: it depends on the objective, which is not known here.
    """
    columns = Columns.of(categories)
    counts = counts_of(answers(logits, columns), truths(labels, columns), sum(columns.sizes))
    ranked, flags = logits[:, columns.classes], labels[:, columns.flags]
    counts[:, columns.classes] = flag_counts(ranked > 0, flags)
    known = known_images(labels, categories) if (labels < 0).any() else None
    return scores_of(counts, columns, loss, precision=average_precision(ranked, flags), known=known)


def majority(train: np.ndarray, val: np.ndarray, categories: Sequence[Category]) -> Scores:
    """Return every metric for the same scores on all images: the class counts of train. Labels are [N, D] each."""
    counts = np.concatenate(class_counts(train, categories))
    return scores(np.tile(counts, (len(val), 1)), val, categories, loss=0.0)


def scores_of(
    counts: np.ndarray,
    columns: Columns,
    loss: float,
    *,
    precision: np.ndarray | None = None,
    known: Sequence[int] | None = None,
) -> Scores:
    """Return every metric of counts [3, sum C], which are sums of weights if the images are weighted.

    precision [M] from `average_precision`; known [K] from `known_images` if any answer is missing. Classes of
    different categories are distinct. Each metric is scikit-learn's of the same name, and the mean class accuracy is
    its balanced accuracy; in macro metrics, a class that is only predicted counts as 0.
    """
    true, predicted, hits = counts
    seen = true + predicted
    recall, precise, f1 = (_shares(hits, whole) for whole in (true, predicted, seen / 2))
    found = {
        "macro_precision": _mean(precise, seen),
        "macro_recall": _mean(recall, seen),
        "macro_f1": _mean(f1, seen),
    }
    by_category = _by_category(counts, columns, precision)
    if len(columns.single):
        one = columns.competing
        found["overall_accuracy"] = _ratio(hits[one].sum(), true[one].sum())
        found["mean_class_accuracy"] = _mean(recall[one], true[one])
    if len(columns.classes) and precision is not None:
        several = columns.classes
        found["micro_f1"] = _ratio(2 * hits[several].sum(), seen[several].sum())
        found["mean_average_precision"] = _nanmean(precision)
        found["mean_category_score"] = _nanmean(np.array(list(by_category.values())))
    named = zip(columns.categories, known or (), strict=False)
    return Scores(
        loss=loss,
        category_accuracy=by_category,
        category_answers={category.name: images for category, images in named},
        **found,
    )


def _by_category(counts: np.ndarray, columns: Columns, precision: np.ndarray | None) -> dict[str, float]:
    """Return accuracy or, with several answers, mean average precision, by category; NaN if no answer is known."""
    right, images = (np.add.reduceat(row, columns.starts).tolist() for row in (counts[HITS], counts[TRUE]))
    parts = iter(() if precision is None else np.split(precision, _ends(columns)))
    found = {}
    for k, category in enumerate(columns.categories):
        if category.multi:
            found[category.name] = _nanmean(next(parts, np.empty(0)))
        else:
            found[category.name] = right[k] / images[k] if images[k] else float("nan")
    return found


def _ends(columns: Columns) -> list[int]:
    """Return the positions in [M] where a category with several answers ends and the next starts."""
    sizes = [len(category.classes) for category in columns.categories if category.multi]
    return [sum(sizes[:k]) for k in range(1, len(sizes))]


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
    """Return the mean over the classes whose count is not 0, [sum C] both."""
    return float(values[counted > 0].mean()) if counted.any() else 0.0


def _nanmean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide class by class; 0 where the whole is 0."""
    found: np.ndarray = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return found


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
