"""Common metrics, computed by scikit-learn, which is imported only when one of them is used.

Each takes the probabilities of one category, [N, C] float, and its labels, [N] int; or, with several answers, those
of one class, [N] float and labels 0 and 1. Each returns None if the metric is undefined.
"""

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def log_loss(probabilities: "Array", labels: "Array") -> float:
    """Return the mean of -log of the probability of the truth."""
    from sklearn import metrics

    classes = 2 if probabilities.ndim == 1 else probabilities.shape[1]
    return float(metrics.log_loss(labels, probabilities, labels=range(classes)))


def roc_auc(probabilities: "Array", labels: "Array") -> float | None:
    """Return the area under the ROC curve: with two classes the plain one, with more the mean over those that occur,
    each against the rest. None if only a single class occurs.
    """
    from sklearn import metrics

    shown = _shown(labels)
    if len(shown) < 2:
        return None
    if probabilities.ndim == 1 or probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, probabilities if probabilities.ndim == 1 else probabilities[:, 1]))
    return fmean(metrics.roc_auc_score(labels == c, probabilities[:, c]) for c in shown)


def average_precision(probabilities: "Array", labels: "Array") -> float | None:
    """Return the mean average precision of the classes that occur; with several answers, that of the class, or None
    if no image has it.
    """
    from sklearn import metrics

    shown = _shown(labels)
    if probabilities.ndim == 1:
        return float(metrics.average_precision_score(labels, probabilities)) if 1 in shown else None
    return fmean(metrics.average_precision_score(labels == c, probabilities[:, c]) for c in shown)


def top_3_accuracy(probabilities: "Array", labels: "Array") -> float:
    """Return the share of images whose true class is among the three likeliest; 1 if there are at most three."""
    from sklearn import metrics

    classes = range(probabilities.shape[1])
    if len(classes) <= 3:
        return 1.0
    return float(metrics.top_k_accuracy_score(labels, probabilities, k=3, labels=classes))


def quadratic_kappa(probabilities: "Array", labels: "Array") -> float | None:
    """Return Cohen's kappa of the likeliest classes, with quadratic weights. None if only a single class occurs."""
    from sklearn import metrics

    predicted, classes = probabilities.argmax(1), range(probabilities.shape[1])
    if len(_shown(labels)) < 2:
        return None
    return float(metrics.cohen_kappa_score(labels, predicted, labels=classes, weights="quadratic"))


def matthews(probabilities: "Array", labels: "Array") -> float | None:
    """Return the Matthews correlation of the likeliest and the true classes. None if only one class occurs."""
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(labels, probabilities.argmax(1))) if len(_shown(labels)) > 1 else None


def _shown(labels: "Array") -> list[int]:
    """Return the classes that occur, in ascending order."""
    return sorted(set(labels.tolist()))
