"""Metrics of the field by scikit-learn's own functions, which is imported when one is asked for.

Each takes the probabilities of one category, [N, C] float, and the labels, [N] int; or those of one class among
several answers, [N] float with 0 and 1. Each returns None where the metric is undefined.
"""

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def log_loss(probabilities: "Array", labels: "Array") -> float:
    """Mean of -log of the probability of what is true."""
    from sklearn import metrics

    classes = 2 if probabilities.ndim == 1 else probabilities.shape[1]
    return float(metrics.log_loss(labels, probabilities, labels=range(classes)))


def roc_auc(probabilities: "Array", labels: "Array") -> float | None:
    """Area under the ROC curve: of two classes the plain one, of more the mean over those that occur, each against
    the rest. None where a single class occurs.
    """
    from sklearn import metrics

    shown = _shown(labels)
    if len(shown) < 2:
        return None
    if probabilities.ndim == 1 or probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, probabilities if probabilities.ndim == 1 else probabilities[:, 1]))
    return fmean(metrics.roc_auc_score(labels == c, probabilities[:, c]) for c in shown)


def average_precision(probabilities: "Array", labels: "Array") -> float | None:
    """Mean average precision of the classes that occur; among several answers that of the class, None where no image
    has it.
    """
    from sklearn import metrics

    shown = _shown(labels)
    if probabilities.ndim == 1:
        return float(metrics.average_precision_score(labels, probabilities)) if 1 in shown else None
    return fmean(metrics.average_precision_score(labels == c, probabilities[:, c]) for c in shown)


def top_3_accuracy(probabilities: "Array", labels: "Array") -> float:
    """Share of images whose true class is among the three likeliest; 1 where there are no more."""
    from sklearn import metrics

    classes = range(probabilities.shape[1])
    if len(classes) <= 3:
        return 1.0
    return float(metrics.top_k_accuracy_score(labels, probabilities, k=3, labels=classes))


def quadratic_kappa(probabilities: "Array", labels: "Array") -> float | None:
    """Cohen's kappa of the likeliest classes with quadratic weights. None where a single class occurs."""
    from sklearn import metrics

    said, classes = probabilities.argmax(1), range(probabilities.shape[1])
    if len(_shown(labels)) < 2:
        return None
    return float(metrics.cohen_kappa_score(labels, said, labels=classes, weights="quadratic"))


def matthews(probabilities: "Array", labels: "Array") -> float | None:
    """Matthews correlation of the likeliest classes with the true ones. None where a single class occurs."""
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(labels, probabilities.argmax(1))) if len(_shown(labels)) > 1 else None


def _shown(labels: "Array") -> list[int]:
    """The classes that occur, ascending."""
    return sorted(set(labels.tolist()))
