"""Posterior correction of a finished model's logits by class frequency, and its strength (Menon et al. 2021).

A model trained on imbalanced classes leans towards the frequent ones. logits - tau log(prior) undoes that: tau = 1
answers as if all classes were equally frequent, which is best for the mean over classes; tau = 0 answers with their
true frequencies, which is best for the share of right answers. The trade-off needs no training. Classes of a category
with several answers do not compete: their logits are shifted by thresholds instead, if these are fitted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.config import PosthocLogitAdjustment
from trainers.data.table import Category, known_images
from trainers.epoch import Corrected, Scores
from trainers.evaluation import field_metrics, metrics, thresholds
from trainers.metrics.definitions import SINGLE, STANDARD, definition, oriented

TAUS = np.arange(-10, 21) / 10 + 0.0  # the candidates; below 0 for models whose class weights were too strong
FOLDS = 5
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """A strength, fitted on all of val or given, with the scores of val. A fitted strength is cross-fitted for these:
    no image takes part in the choice of its own.
    """

    tau: float
    scores: Scores  # cross-fitted
    logits: Floats  # [N, sum C], corrected; if fitted, each fold with the strength of the others


class Fitting:
    """The counts of one set of predictions at every strength, by fold, from which every standard metric is computed.

    logits [N, sum C], labels [N, D], prior [sum C] from `frequency.log_prior`. With `least`, thresholds are also
    fitted, for classes that at least this many images have and lack; each fold is evaluated with those of the others.
    `further` names additional metrics for the scores; they use probabilities, which thresholds do not change.
    """

    def __init__(
        self,
        logits: Floats,
        labels: NDArray[np.int64],
        prior: Floats,
        categories: Sequence[Category],
        *,
        least: int | None = None,
        further: Sequence[str] = (),
    ) -> None:
        self.logits, self.labels, self.prior, self.further = logits, labels, prior, further
        self._places: dict[tuple[str, int | None], int] = {}
        self.width, self.columns = logits.shape[1], metrics.Columns.of(categories)
        self.folds = np.random.default_rng(0).permutation(len(logits)) % min(FOLDS, len(logits))  # [N]
        self.true = metrics.truths(labels, self.columns)  # [N, S]
        self.known = known_images(labels, categories) if (labels < 0).any() else None
        ranked, flags = logits[:, self.columns.classes], labels[:, self.columns.flags]
        self.precision = metrics.average_precision(ranked, flags)  # [M]
        self.thresholds = np.zeros(self.width, dtype=np.float32)  # [sum C], in logits
        self.moved = np.zeros_like(logits, shape=(1, self.width))  # [1 or N, sum C], subtracted by thresholds
        if least is not None:
            self._fit_thresholds(ranked, flags, least)
        predicted = ranked > self.moved[:, self.columns.classes]
        self.flag_counts = np.stack([metrics.flag_counts(predicted[fold], flags[fold]) for fold in self._folds()])
        self.counts = np.stack([self._counts(float(tau)) for tau in TAUS])  # [taus, folds, 3, sum C]

    def _fit_thresholds(self, ranked: np.ndarray, flags: np.ndarray, least: int) -> None:
        whole, others = thresholds.fit(ranked, flags, self.folds, least)
        self.thresholds[self.columns.classes] = whole
        self.moved = np.zeros_like(self.logits)
        self.moved[:, self.columns.classes] = others[self.folds]

    def _folds(self) -> list[NDArray[np.bool_]]:
        return [self.folds == fold for fold in range(self.folds.max() + 1)]

    def _counts(self, tau: float) -> NDArray[np.int64]:
        """Return the counts of each fold with this strength, [folds, 3, sum C]."""
        predicted = metrics.answers(self.logits - np.float32(tau) * self.prior, self.columns)  # [N, S]
        found = np.stack([metrics.counts_of(predicted[fold], self.true[fold], self.width) for fold in self._folds()])
        found[:, :, self.columns.classes] = self.flag_counts
        return found

    def _scores(self, counts: NDArray[np.int64], loss: float) -> Scores:
        return metrics.scores_of(counts, self.columns, loss, precision=self.precision, known=self.known)

    def _with_further(self, scores: Scores, tau: float | NDArray[np.float32]) -> Scores:
        """Return the scores with the further metrics added, at this strength, or at each image's own [N, 1]."""
        return field_metrics.added(scores, self.further, self._corrected(tau), self.labels, self.columns.categories)

    def _corrected(self, tau: float | NDArray[np.float32]) -> Floats:
        found: Floats = self.logits - np.float32(tau) * self.prior
        return found

    def at(self, tau: float, loss: float) -> Scores:
        """Return every metric with this strength; `loss` is passed through."""
        return self._with_further(self._scores(self._counts(tau).sum(0), loss), tau)

    def logits_at(self, tau: float) -> Floats:
        """Return the logits with this strength and the thresholds, [N, sum C]."""
        found: Floats = self._corrected(tau) - self.moved
        return found

    def as_asked(self, how: PosthocLogitAdjustment, metric: str, loss: float) -> Fit:
        """Return the fit with the recipe's strength, or with a fitted one; see `fit`."""
        return self.fit(metric, loss) if how.fit else Fit(how.tau, self.at(how.tau, loss), self.logits_at(how.tau))

    def fit(self, metric: str, loss: float) -> Fit:
        """Return the best strength by `metric`, nearest 0 among equals; `loss` is passed through to the scores."""
        crossed, chosen = self._crossed(metric)
        strength = TAUS[np.array(chosen)][self.folds].astype(np.float32)[:, None]  # [N, 1]
        scores = self._with_further(self._scores(crossed, loss), strength)
        return Fit(float(TAUS[self._best(metric)]), scores, self._corrected(strength) - self.moved)

    def _crossed(self, metric: str) -> tuple[NDArray[np.int64], list[int]]:
        """Return the counts with each fold's strength fitted on the others, and the positions of the strengths."""
        chosen = [self._best(metric, fold) for fold in range(self.counts.shape[1])]
        return np.asarray(sum(self.counts[best, fold] for fold, best in enumerate(chosen))), chosen

    def _best(self, metric: str, fold: int | None = None) -> int:
        """Return the position of the best strength on all of val, or on all but one fold; cached."""
        if (metric, fold) not in self._places:
            values = self._values(metric, fold)
            self._places[metric, fold] = max(range(len(TAUS)), key=lambda i: (values[i], -abs(TAUS[i])))
        return self._places[metric, fold]

    def _values(self, metric: str, fold: int | None) -> list[float]:
        """Return the metric with each strength, oriented so that larger is better."""
        if metric in STANDARD:
            counts = self.counts.sum(1) - (0 if fold is None else self.counts[:, fold])  # [taus, 3, sum C]
            return [self._scores(one, 0.0).value(metric) for one in counts]
        one, rows = definition(metric), self.folds >= 0 if fold is None else self.folds != fold
        parts = ((self._corrected(float(tau))[rows], self.labels[rows], self.columns.categories) for tau in TAUS)
        values = (oriented(field_metrics.figure(one, *part), minimize=one.minimize) for part in parts)
        return [-math.inf if math.isnan(value) else value for value in values]

    def corrected(self, *names: str) -> dict[str, Corrected]:
        """Return the result of a fitted correction for both accuracies and the metrics of these names; nothing
        without a category that it applies to.
        """
        if not len(self.columns.single):
            return {}
        return {name: self._as_corrected(name) for name in dict.fromkeys((*SINGLE, *names))}

    def _as_corrected(self, name: str) -> Corrected:
        scores = self._scores(self._crossed(name)[0], 0.0) if name in STANDARD else self.fit(name, 0.0).scores
        return Corrected(tau=float(TAUS[self._best(name)]), value=scores.value(name))
