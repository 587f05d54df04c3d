"""Models that answer better together: greedy selection with replacement (Caruana et al. 2004), in numpy alone."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.data.table import Category
from trainers.epoch import Scores
from trainers.evaluation import bootstrap, field_metrics, metrics, temperature
from trainers.evaluation.answers import divisors
from trainers.metrics.definitions import oriented

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
ROUNDS = 4  # choices per member that is allowed
Score = Callable[[Logits], float]
"""Scores logits [N, sum C] on val; higher is better."""


def select(candidates: Mapping[int, Logits], first: int, score: Score, most: int) -> dict[int, float]:
    """Return the share of each member in the mean, by its key.

    Start with the `first` candidate, then repeatedly add the one with which the mean scores best: ROUNDS x `most`
    choices of at most `most` different members. A member that is chosen again gets a larger share. The last choices
    are dropped if they gain nothing, so that `first` remains alone if no other helps. The first of equals wins.
    """
    chosen, total, scores = [first], candidates[first], [score(candidates[first])]
    for count in range(2, ROUNDS * most + 1):
        open = candidates if len(set(chosen)) < most else dict.fromkeys(chosen)
        found = {key: score((total + candidates[key]) / np.float32(count)) for key in open}
        best = max(found, key=lambda key: found[key])
        total = total + candidates[best]
        chosen.append(best)
        scores.append(found[best])
    kept = chosen[: int(np.argmax(scores)) + 1]
    return {key: times / len(kept) for key, times in Counter(kept).items()}


def divided(logits: Logits, categories: Sequence[Category], temperature: Mapping[str, float]) -> Logits:
    """Calibrate logits [N, sum C]: divide them by the temperature of each category, 1 if it has none."""
    found: Logits = (logits / divisors(categories, temperature)).astype(np.float32)
    return found


def mean(members: Mapping[int, Logits], shares: Mapping[int, float]) -> Logits:
    """Return the mean of the members' logits, weighted by their shares, [N, sum C]."""
    found: Logits = sum(np.float32(share) * members[key] for key, share in shares.items())  # type: ignore[assignment]
    return found


@dataclass(frozen=True)
class Judge:
    """The labels of val, [N, D], and the metric by which models are compared on it."""

    labels: Labels
    categories: tuple[Category, ...]
    metric: str
    further: tuple[str, ...]  # metrics besides the standard ones
    minimize: bool

    def score(self, logits: Logits) -> float:
        """Return the metric of logits [N, sum C], oriented so that higher is better."""
        return oriented(self.scores(logits).value(self.metric), minimize=self.minimize)

    def scores(self, logits: Logits) -> Scores:
        """Return every metric; the loss is NaN, because there is no objective."""
        found = metrics.scores(logits, self.labels, self.categories, loss=float("nan"))
        return field_metrics.added(found, self.further, logits, self.labels, self.categories)

    def with_errors(self, logits: Logits) -> Scores:
        """Return the same with standard errors by bootstrap over the images."""
        errors = bootstrap.standard_errors(bootstrap.resample(logits, self.labels, self.categories))
        return self.scores(logits).model_copy(update={"standard_errors": errors})

    def gain(self, logits: Logits, other: Logits) -> tuple[float, float] | None:
        """Return the 95 % interval of the gain over `other` on the same resamples; None if it is unknown."""
        ours, theirs = (bootstrap.resample(one, self.labels, self.categories) for one in (logits, other))
        if self.metric not in (ours.dtype.names or ()):
            return None
        low, high = np.percentile(ours[self.metric].astype("f8") - theirs[self.metric].astype("f8"), (2.5, 97.5))
        return float(low), float(high)

    def temperature(self, logits: Logits, multi: bool) -> dict[str, float]:
        """Return the divisors that calibrate logits, by category; include those with several answers if `multi`."""
        asked = {one.name for one in self.categories if multi or not one.multi}
        found = temperature.fit(logits, logits, self.labels, self.categories)
        return {name: heat for name, heat in found.items() if name in asked}
