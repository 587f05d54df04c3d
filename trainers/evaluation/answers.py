"""The answers of a model: corrected logits, calibrated probabilities and the classes they select. Uses numpy and
scipy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trainers.data.table import Category, spans
from trainers.optim import frequency


@dataclass(frozen=True)
class CategoryPrediction:
    """One category of one image: its answers, and the probability of every class, the likeliest first."""

    category: str
    multi: bool  # the category allows several answers, or none
    answers: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def answer(self) -> str:
        """The answer; several are joined with |."""
        return "|".join(self.answers)

    @property
    def probability(self) -> float:
        """The probability of the answer, or of the likeliest of several; 0 if there is none."""
        return max((self.probabilities[one] for one in self.answers), default=0.0)

    def document(self, top: int | None = None, *, answers_alone: bool = False) -> dict[str, Any]:
        """Return the prediction for JSON, with the `top` likeliest classes, or with the answers only."""
        shown = [pair for pair in self.probabilities.items() if not answers_alone or pair[0] in self.answers][:top]
        classes = [{"class": name, "probability": value} for name, value in shown]
        return {"category": self.category, "multi": self.multi, "answers": list(self.answers), "classes": classes}


@dataclass(frozen=True)
class ImagePrediction:
    """The predictions for one image, by category."""

    path: Path
    categories: dict[str, CategoryPrediction]

    def __getitem__(self, category: str) -> CategoryPrediction:
        """Return the prediction of a category. Raises KeyError, with the names of all, if there is none."""
        if category not in self.categories:
            raise KeyError(f"the model has no category {category!r}: it has {', '.join(self.categories)}")
        return self.categories[category]


def logit_offset(
    categories: Sequence[Category],
    counts: Sequence[Sequence[int]],
    tau: float,
    thresholds: Mapping[str, Sequence[float]] | None = None,
) -> np.ndarray:
    """Return what correction and thresholds subtract from the logits of a model, [sum C] float32.

    counts [K][C]: the images of each class that the model was fitted on.
    """
    found: np.ndarray = tau * frequency.log_prior(counts, [category.multi for category in categories])
    for span in spans(categories):
        if given := (thresholds or {}).get(span.category.name):
            shares = np.asarray(given, dtype=np.float64)
            found[span.classes] = np.log(shares / (1 - shares))
    return found


def divisors(categories: Sequence[Category], temperature: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the temperature of each class's category, [sum C]; 1 if it has none."""
    return np.concatenate([[temperature.get(one.name, 1.0)] * len(one.classes) for one in categories])


def probabilities(
    logits: NDArray[np.float32], categories: Sequence[Category], temperature: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the probabilities of logits [N, sum C] with the correction subtracted, but no thresholds: a softmax over
    each category with one answer, a sigmoid for each class of the others.
    """
    found = np.empty(logits.shape, np.float64)
    cooled = logits.astype(np.float64) / divisors(categories, temperature)
    for span in spans(categories):
        part = cooled[:, span.classes]
        found[:, span.classes] = expit(part) if span.category.multi else softmax(part, axis=1)
    return found


def predictions(
    judged: NDArray[np.float32], shares: NDArray[np.float64], categories: Sequence[Category]
) -> list[CategoryPrediction]:
    """Return the predictions for one image, from logits [sum C] less the thresholds and probabilities [sum C]."""
    found = []
    for span in spans(categories):
        category, logits, values = span.category, judged[span.classes], shares[span.classes]
        chosen = np.flatnonzero(logits > 0) if category.multi else [int(logits.argmax())]
        order = np.argsort(-values, kind="stable").tolist()
        by_name = {category.classes[k]: float(values[k]) for k in order}
        answers = tuple(category.classes[k] for k in chosen)
        found.append(CategoryPrediction(category.name, category.multi, answers, by_name))
    return found
