"""A trial that has started and not finished, as the study holds it."""

import time
from dataclasses import dataclass, field

from sweeper.trial import Job
from trainers.config import TrainConfig
from trainers.epoch import Epoch


@dataclass
class ActiveTrial:
    """A trial that is running or paused."""

    job: Job
    epochs: list[Epoch]
    pruned: bool = False
    pausing: bool = False  # about to pause at its rung
    since: float = field(default_factory=time.monotonic)
    before: int = 0  # epochs on record when it started or resumed

    @property
    def train(self) -> TrainConfig:
        return self.job.recipe.train

    @property
    def values(self) -> list[float]:
        """The metric after each epoch, oriented so that more is better."""
        recipe = self.job.recipe
        return [recipe.oriented(epoch.value(recipe.metric)) for epoch in self.epochs]

    @property
    def left(self) -> int:
        """The number of remaining epochs."""
        return self.job.planned - len(self.epochs)

    @property
    def rest(self) -> float | None:
        """The seconds since its start that were not spent in epochs; None if it has trained none since."""
        trained = self.epochs[self.before :]
        return time.monotonic() - self.since - sum(epoch.seconds for epoch in trained) if trained else None
