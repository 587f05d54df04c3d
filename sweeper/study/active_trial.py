"""A trial between its job and its end, as the study holds it."""

import time
from dataclasses import dataclass, field

from sweeper.trial import Job
from trainers.config import TrainConfig
from trainers.epoch import Epoch


@dataclass
class ActiveTrial:
    """One that trains, or is paused."""

    job: Job
    epochs: list[Epoch]
    pruned: bool = False
    pausing: bool = False  # at the rung that it stands on
    since: float = field(default_factory=time.monotonic)
    before: int = 0  # epochs that were on record when it began

    @property
    def train(self) -> TrainConfig:
        return self.job.recipe.train

    @property
    def values(self) -> list[float]:
        """The metric after each epoch, the more the better."""
        recipe = self.job.recipe
        return [recipe.oriented(epoch.value(recipe.metric)) for epoch in self.epochs]

    @property
    def left(self) -> int:
        """Epochs to go."""
        return self.job.planned - len(self.epochs)

    @property
    def rest(self) -> float | None:
        """Seconds since it began that were not of epochs; None where it trained none."""
        trained = self.epochs[self.before :]
        return time.monotonic() - self.since - sum(epoch.seconds for epoch in trained) if trained else None
