"""Posterior correction: a finished model's logits moved by its classes' frequencies, and how far (Menon et al. 2021).

A model trained on unequal classes leans towards the frequent ones. logits - tau log(prior) takes that back: tau = 1
answers as if all classes were equally frequent, which is best for the mean over classes, tau = 0 as they are, which
is best for the share of right answers. The trade costs no training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.epoch import Corrected, Metric, Scores
from trainers.evaluation import metrics

TAUS = np.arange(-10, 21) / 10 + 0.0  # tried; below 0 for models that were weighted too much
FOLDS = 5
BOTH: tuple[Metric, ...] = ("overall_accuracy", "mean_class_accuracy")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """The strength that is best on all of val, and what val looks like when no image had a say in its own."""

    tau: float
    scores: Scores  # cross-fitted
    logits: Floats  # [N, sum C], corrected, each fold with the strength of the others


class Fitting:
    """The counts of one set of predictions at every strength, by fold (see metrics.Tally); they serve every metric.

    logits [N, sum C], labels [N, K], prior [sum C] of `frequency.log_prior`, names [K] and sizes [K] of categories.
    """

    def __init__(
        self, logits: Floats, labels: NDArray[np.int64], prior: Floats, names: Sequence[str], sizes: Sequence[int]
    ) -> None:
        self.logits, self.prior, self.names, self.sizes = logits, prior, list(names), list(sizes)
        self.folds = np.random.default_rng(0).permutation(len(logits)) % min(FOLDS, len(logits))  # [N]
        self.true = metrics.truths(labels, sizes)  # [N, K]
        self.counts = np.stack([self._counts(float(tau)) for tau in TAUS])  # [taus, folds, 3, sum C]

    def _counts(self, tau: float) -> NDArray[np.int64]:
        """The counts of each fold with this strength, [folds, 3, sum C]."""
        said = metrics.answers(self.logits - np.float32(tau) * self.prior, self.sizes)  # [N, K]
        folds = [self.folds == fold for fold in range(self.folds.max() + 1)]
        return np.stack([metrics.counts_of(said[fold], self.true[fold], sum(self.sizes)) for fold in folds])

    def at(self, tau: float, loss: float) -> Scores:
        """Every metric with this strength; `loss` is passed through."""
        return metrics.scores_of(self._counts(tau).sum(0), self.names, self.sizes, loss)

    def fit(self, metric: Metric, loss: float) -> Fit:
        """The best strength by `metric`, the one nearest 0 of equals; `loss` is passed through to the scores."""
        whole = self.counts.sum(1)  # [taus, 3, sum C]
        chosen = [self._best(whole - self.counts[:, fold], metric) for fold in range(self.counts.shape[1])]
        crossed = sum(self.counts[best, fold] for fold, best in enumerate(chosen))
        strength = TAUS[np.array(chosen)][self.folds].astype(np.float32)  # [N]
        scores = metrics.scores_of(np.asarray(crossed), self.names, self.sizes, loss)
        tau = float(TAUS[self._best(whole, metric)])
        return Fit(tau, scores, self.logits - strength[:, None] * self.prior)

    def _best(self, counts: NDArray[np.int64], metric: Metric) -> int:
        values = [getattr(metrics.scores_of(one, self.names, self.sizes, 0.0), metric) for one in counts]
        return max(range(len(TAUS)), key=lambda i: (values[i], -abs(TAUS[i])))

    def corrected(self, metric: Metric) -> dict[str, Corrected]:
        """What a fitted correction gives for both accuracies and the metric, by metric."""
        fits = {name: self.fit(name, 0.0) for name in dict.fromkeys((*BOTH, metric))}
        return {name: Corrected(tau=fit.tau, value=getattr(fit.scores, name)) for name, fit in fits.items()}
