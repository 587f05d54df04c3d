"""Metrics of probabilities, which counts cannot express: scikit-learn's, and those that a user registered."""

from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from scipy.special import expit, softmax

from trainers.data.table import Category, Span, spans
from trainers.epoch import Scores
from trainers.metrics.definitions import BOTH, BUILT_IN, MetricDefinition, definition


def added(
    scores: Scores, names: Iterable[str], logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category]
) -> Scores:
    """Return the scores with the metrics of these names added, computed by `figure`."""
    found = {name: figure(definition(name), logits, labels, categories) for name in names}
    return scores.model_copy(update={"further": found})


def figure(one: MetricDefinition, logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category]) -> float:
    """Return a metric that has a function, for logits [N, sum C] and labels [N, D].

    Probabilities are a softmax over each category with one answer, and a sigmoid for each class of the others. NaN if
    the metric is undefined for `labels`, or the logits are no longer finite.
    """
    if one.function is None:
        raise ValueError(f"{one.name} is counted, not computed from probabilities")
    if not np.isfinite(logits).all():
        return float("nan")
    places = [span for span in spans(categories) if BOTH[span.category.multi] in one.kinds]
    if one.per_category:
        parts = ((span, logits[:, span.classes], labels[:, span.labels]) for span in places)
        found = _mean(_of_category(one, *part) for part in parts)
    else:
        found = _of_all(one, [span for span in places if not span.category.multi], logits, labels)
    return float("nan") if found is None else found


def _of_all(one: MetricDefinition, places: Sequence[Span], logits: np.ndarray, labels: np.ndarray) -> float | None:
    probabilities = [_as(one, _softmax(logits[:, span.classes])) for span in places]
    return _asked(one, probabilities, labels[:, [span.labels.start for span in places]])


def _of_category(one: MetricDefinition, span: Span, logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the metric for logits [N, C] and labels [N, 1], or flags [N, C]; None if it is undefined there."""
    if not span.category.multi:
        return _of_answers(one, _softmax(logits), labels[:, 0])
    return _mean(_of_answers(one, *column) for column in zip(_sigmoid(logits).T, labels.T, strict=True))


def _of_answers(one: MetricDefinition, probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    known = labels >= 0
    return _asked(one, _as(one, probabilities[known]), labels[known]) if known.any() else None


def _asked(one: MetricDefinition, probabilities: object, labels: np.ndarray) -> float | None:
    found = one.function(probabilities, labels.astype(np.int64)) if one.function else None
    return None if found is None else float(found)


def _as(one: MetricDefinition, probabilities: np.ndarray) -> np.ndarray:
    """Convert to 64 bits for scikit-learn, which bounds a loss by the precision; to 32 bits for user functions."""
    return probabilities.astype(np.float64 if one.name in BUILT_IN else np.float32)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the defined values; None if there are none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def _softmax(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = softmax(logits.astype(np.float64), axis=1)
    return found


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = expit(logits.astype(np.float64))
    return found
