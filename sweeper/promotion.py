"""Asynchronous successive halving with pausing: which trials wait at a rung, and which of them climb on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sweeper.running import Running
from sweeper.search import Promotion, Pruner


@dataclass
class Ladder:
    """What trials had shown at each rung (Li et al. 2020); a rung is `min_epochs` x `factor`^k epochs of a trial.

    It holds nothing that the histories do not, so it is the same after any interruption.
    """

    min_epochs: int
    factor: int
    _rungs: dict[int, dict[int, float]] = field(default_factory=dict)  # best value so far, by epochs and trial

    def stops(self, epochs: int, planned: int) -> bool:
        """Whether a trial of `planned` epochs is judged after `epochs` of them."""
        return epochs < planned and self._is_rung(epochs)

    def learn(self, trial: int, values: Sequence[float]) -> None:
        """Note what `trial` showed: its values after each epoch so far; the more the better."""
        for epochs in range(1, len(values) + 1):
            if self._is_rung(epochs):
                self._rungs.setdefault(epochs, {})[trial] = max(values[:epochs])

    def forget(self, trial: int) -> None:
        """Take out a trial that failed: it will not climb, and must not keep another from it."""
        for reached in self._rungs.values():
            reached.pop(trial, None)

    def rises(self, trial: int, epochs: int, *, last: bool) -> bool:
        """Whether `trial` is among the best 1/factor of all that reached this rung, the earlier one of equals.

        With `last`, when no new trial will come, the best rises however few there are: some trial gets to the end.
        """
        reached = self._rungs.get(epochs, {})
        count = max(len(reached) // self.factor, 1 if last else 0)
        return trial in sorted(reached, key=lambda number: (-reached[number], number))[:count]

    def _is_rung(self, epochs: int) -> bool:
        rung = self.min_epochs
        while rung < epochs:
            rung *= self.factor
        return rung == epochs


class Waiting:
    """The paused trials of a study, and the ladder that they stand on. With another pruner nobody waits.

    The ids of Optuna's in `hidden` are theirs: a sampler sees these trials as pruned, so it learns from what they
    showed, though they are open.
    """

    def __init__(self, pruner: Pruner, hidden: set[int]) -> None:
        self.ladder: Ladder | None = None
        if isinstance(pruner, Promotion):
            self.ladder = Ladder(pruner.min_epochs, pruner.reduction_factor)
        self._paused: dict[int, Running] = {}
        self._hidden = hidden

    def stops(self, one: Running, *, last: bool) -> bool:
        """Whether a trial that runs stands at a rung from which it may not go on, yet."""
        if self.ladder is None or not self.ladder.stops(len(one.epochs), one.train.epochs):
            return False
        self.ladder.learn(one.job.trial, one.values)
        return not self._rises(one, last)

    def add(self, one: Running) -> None:
        self._paused[one.job.trial] = one
        self._hidden.add(one.trial._trial_id)

    def next(self, fits: Callable[[Running], bool], *, last: bool) -> Running | None:
        """Take out the one to go on with: of the highest rung, the best; None while none may, or `fits`."""
        able = [one for one in self._paused.values() if self._rises(one, last) and fits(one)]
        best = max(able, key=lambda one: (len(one.epochs), max(one.values), -one.job.trial), default=None)
        return self._take(best) if best else None

    def stuck(self) -> list[Running]:
        """Take out all, if none may go on now that no new trial comes."""
        if any(self._rises(one, last=True) for one in self._paused.values()):
            return []
        return [self._take(self._paused[number]) for number in sorted(self._paused)]

    def _take(self, one: Running) -> Running:
        self._hidden.discard(one.trial._trial_id)
        return self._paused.pop(one.job.trial)

    def _rises(self, one: Running, last: bool) -> bool:
        return self.ladder is None or self.ladder.rises(one.job.trial, len(one.epochs), last=last)
