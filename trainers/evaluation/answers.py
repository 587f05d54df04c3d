"""What a model says of an image: calibrated probabilities, and the answers that they come to. In numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trainers.data.table import Category, spans


@dataclass(frozen=True)
class CategoryPrediction:
    """One category of one image: its answers, and every class with its probability, the likeliest first."""

    category: str
    multi: bool  # it may have several answers, or none
    answers: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def answer(self) -> str:
        """The one answer; several with | between them."""
        return "|".join(self.answers)

    @property
    def probability(self) -> float:
        """Of the answer, or of the likeliest one; 0 where there is none."""
        return max((self.probabilities[one] for one in self.answers), default=0.0)

    def document(self, top: int | None = None, *, answers_alone: bool = False) -> dict[str, Any]:
        """The same for JSON, with the `top` likeliest classes; or with the probabilities of answers alone."""
        shown = [pair for pair in self.probabilities.items() if not answers_alone or pair[0] in self.answers][:top]
        classes = [{"class": name, "probability": value} for name, value in shown]
        return {"category": self.category, "multi": self.multi, "answers": list(self.answers), "classes": classes}


@dataclass(frozen=True)
class ImagePrediction:
    """What a model says of one image, by category."""

    path: Path
    categories: dict[str, CategoryPrediction]

    def __getitem__(self, category: str) -> CategoryPrediction:
        return self.categories[category]


def probabilities(
    logits: NDArray[np.float32], categories: Sequence[Category], temperature: dict[str, float]
) -> NDArray[np.float64]:
    """Logits [N, sum C] of which the correction is taken off, and no threshold, as probabilities: a softmax over each
    category with one answer, a sigmoid of each class of the others.
    """
    found = np.empty(logits.shape, np.float64)
    for span in spans(categories):
        part = logits[:, span.classes].astype(np.float64) / temperature.get(span.category.name, 1.0)
        found[:, span.classes] = expit(part) if span.category.multi else softmax(part, axis=1)
    return found


def predictions(
    judged: NDArray[np.float32], shares: NDArray[np.float64], categories: Sequence[Category]
) -> list[CategoryPrediction]:
    """The predictions of one image: from logits [sum C] less the thresholds, and probabilities [sum C]."""
    found = []
    for span in spans(categories):
        category, logits, values = span.category, judged[span.classes], shares[span.classes]
        chosen = np.flatnonzero(logits > 0) if category.multi else [int(logits.argmax())]
        order = np.argsort(-values, kind="stable").tolist()
        by_name = {category.classes[k]: float(values[k]) for k in order}
        answers = tuple(category.classes[k] for k in chosen)
        found.append(CategoryPrediction(category.name, category.multi, answers, by_name))
    return found
