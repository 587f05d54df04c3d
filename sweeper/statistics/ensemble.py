"""Which models answer better together: greedy selection with replacement (Caruana et al. 2004), in numpy alone."""

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
ROUNDS = 4  # choices for each member that there may be
Score = Callable[[Logits], float]
"""How good logits [N, sum C] are on val; the more the better."""


def select(candidates: Mapping[int, Logits], first: int, score: Score, most: int) -> dict[int, float]:
    """The share of each member in the mean, by its key.

    Begin with the `first` candidate; again and again add the one with which the mean scores best, `most` in all. One
    may be chosen again, which gives it a larger share: in ROUNDS x `most` choices. What is chosen last without a gain
    is left out, so that the first alone remains where no other helps. Of equals the first counts.
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
    """Logits [N, sum C] divided by the temperature of each category, 1 where it has none: sure of as much as true."""
    found: Logits = (logits / divisors(categories, temperature)).astype(np.float32)
    return found


def mean(members: Mapping[int, Logits], shares: Mapping[int, float]) -> Logits:
    """The mean of the members' logits, [N, sum C]."""
    found: Logits = sum(np.float32(share) * members[key] for key, share in shares.items())  # type: ignore[assignment]
    return found


@dataclass(frozen=True)
class Judge:
    """Val, and the metric by which models on it are compared; labels [N, D]."""

    labels: Labels
    categories: tuple[Category, ...]
    metric: str
    further: tuple[str, ...]  # metrics beside the standard ones
    minimize: bool

    def score(self, logits: Logits) -> float:
        """The metric of logits [N, sum C], the more the better."""
        return oriented(self.scores(logits).value(self.metric), minimize=self.minimize)

    def scores(self, logits: Logits) -> Scores:
        """Every metric; the loss is that of no objective, and is NaN."""
        found = metrics.scores(logits, self.labels, self.categories, loss=float("nan"))
        return field_metrics.added(found, self.further, logits, self.labels, self.categories)

    def with_errors(self, logits: Logits) -> Scores:
        """The same with standard errors by bootstrap over the images."""
        errors = bootstrap.standard_errors(bootstrap.resample(logits, self.labels, self.categories))
        return self.scores(logits).model_copy(update={"standard_errors": errors})

    def gain(self, logits: Logits, other: Logits) -> tuple[float, float] | None:
        """The 95 % interval of how much better than `other` it is, on the same resamples; None where nobody knows."""
        ours, theirs = (bootstrap.resample(one, self.labels, self.categories) for one in (logits, other))
        if self.metric not in (ours.dtype.names or ()):
            return None
        low, high = np.percentile(ours[self.metric].astype("f8") - theirs[self.metric].astype("f8"), (2.5, 97.5))
        return float(low), float(high)

    def temperature(self, logits: Logits, multi: bool) -> dict[str, float]:
        """By what logits are divided so that probabilities are true, by category; with several answers if `multi`."""
        asked = {one.name for one in self.categories if multi or not one.multi}
        found = temperature.fit(logits, logits, self.labels, self.categories)
        return {name: heat for name, heat in found.items() if name in asked}
