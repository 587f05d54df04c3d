"""Posterior correction: a finished model's logits moved by its classes' frequencies, and how far (Menon et al. 2021).

A model trained on unequal classes leans towards the frequent ones. logits - tau log(prior) takes that back: tau = 1
answers as if all classes were equally frequent, which is best for the mean over classes, tau = 0 as they are, which
is best for the share of right answers. The trade costs no training. Classes of a category with several answers do not
compete: their logits are moved by thresholds instead, where these are fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.table import Category, known_images
from trainers.epoch import SINGLE, Corrected, Metric, Scores
from trainers.evaluation import metrics, thresholds

TAUS = np.arange(-10, 21) / 10 + 0.0  # tried; below 0 for models that were weighted too much
FOLDS = 5
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """The strength that is best on all of val, and what val looks like when no image had a say in its own."""

    tau: float
    scores: Scores  # cross-fitted
    logits: Floats  # [N, sum C], corrected, each fold with the strength of the others


class Fitting:
    """The counts of one set of predictions at every strength, by fold (see metrics.Tally); they serve every metric.

    logits [N, sum C], labels [N, D], prior [sum C] of `frequency.log_prior`. `least`: thresholds are fitted, too, for
    classes that so many images have and lack; each fold is judged by those of the others.
    """

    def __init__(
        self,
        logits: Floats,
        labels: NDArray[np.int64],
        prior: Floats,
        categories: Sequence[Category],
        *,
        least: int | None = None,
    ) -> None:
        self.logits, self.prior = logits, prior
        self.width, self.columns = logits.shape[1], metrics.Columns.of(categories)
        self.folds = np.random.default_rng(0).permutation(len(logits)) % min(FOLDS, len(logits))  # [N]
        self.true = metrics.truths(labels, self.columns)  # [N, S]
        self.known = known_images(labels, categories) if (labels < 0).any() else None
        ranked, flags = logits[:, self.columns.classes], labels[:, self.columns.flags]
        self.precision = metrics.average_precision(ranked, flags)  # [M]
        self.thresholds = np.zeros(self.width, dtype=np.float32)  # [sum C], in logits
        self.moved = np.zeros_like(logits, shape=(1, self.width))  # [1 or N, sum C], what thresholds take off
        if least is not None:
            self._fit_thresholds(ranked, flags, least)
        said = ranked > self.moved[:, self.columns.classes]
        self.flag_counts = np.stack([metrics.flag_counts(said[fold], flags[fold]) for fold in self._folds()])
        self.counts = np.stack([self._counts(float(tau)) for tau in TAUS])  # [taus, folds, 3, sum C]

    def _fit_thresholds(self, ranked: np.ndarray, flags: np.ndarray, least: int) -> None:
        whole, others = thresholds.fit(ranked, flags, self.folds, least)
        self.thresholds[self.columns.classes] = whole
        self.moved = np.zeros_like(self.logits)
        self.moved[:, self.columns.classes] = others[self.folds]

    def _folds(self) -> list[NDArray[np.bool_]]:
        return [self.folds == fold for fold in range(self.folds.max() + 1)]

    def _counts(self, tau: float) -> NDArray[np.int64]:
        """The counts of each fold with this strength, [folds, 3, sum C]."""
        said = metrics.answers(self.logits - np.float32(tau) * self.prior, self.columns)  # [N, S]
        found = np.stack([metrics.counts_of(said[fold], self.true[fold], self.width) for fold in self._folds()])
        found[:, :, self.columns.classes] = self.flag_counts
        return found

    def _scores(self, counts: NDArray[np.int64], loss: float) -> Scores:
        return metrics.scores_of(counts, self.columns, loss, precision=self.precision, known=self.known)

    def at(self, tau: float, loss: float) -> Scores:
        """Every metric with this strength; `loss` is passed through."""
        return self._scores(self._counts(tau).sum(0), loss)

    def logits_at(self, tau: float) -> Floats:
        """The logits that answer so, [N, sum C]."""
        found: Floats = self.logits - np.float32(tau) * self.prior - self.moved
        return found

    def fit(self, metric: Metric, loss: float) -> Fit:
        """The best strength by `metric`, the one nearest 0 of equals; `loss` is passed through to the scores."""
        whole = self.counts.sum(1)  # [taus, 3, sum C]
        chosen = [self._best(whole - self.counts[:, fold], metric) for fold in range(self.counts.shape[1])]
        crossed = sum(self.counts[best, fold] for fold, best in enumerate(chosen))
        strength = TAUS[np.array(chosen)][self.folds].astype(np.float32)  # [N]
        scores = self._scores(np.asarray(crossed), loss)
        tau = float(TAUS[self._best(whole, metric)])
        return Fit(tau, scores, self.logits - strength[:, None] * self.prior - self.moved)

    def _best(self, counts: NDArray[np.int64], metric: Metric) -> int:
        values = [self._scores(one, 0.0).value(metric) for one in counts]
        return max(range(len(TAUS)), key=lambda i: (values[i], -abs(TAUS[i])))

    def corrected(self, metric: Metric) -> dict[str, Corrected]:
        """What a fitted correction gives for both accuracies and the metric, by metric; nothing without a category
        that it applies to.
        """
        if not len(self.columns.single):
            return {}
        fits = {name: self.fit(name, 0.0) for name in dict.fromkeys((*SINGLE, metric))}
        return {name: Corrected(tau=fit.tau, value=fit.scores.value(name)) for name, fit in fits.items()}
