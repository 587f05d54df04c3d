"""Asynchronous successive halving (ASHA): which trials stop or pause at a rung, and which ones are promoted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sweeper.space.spec import Asha, Pruner
from sweeper.study.active_trial import ActiveTrial
from sweeper.trial import FIRST, State


@dataclass
class Rungs:
    """The best values of trials at each rung (Li et al. 2020); rungs are at `min_epochs` x `factor`^k epochs of a
    trial.

    Everything here follows from the histories, so it is the same after any interruption.
    """

    min_epochs: int
    factor: int
    _rungs: dict[int, dict[int, float]] = field(default_factory=dict)  # best value so far, by epochs and trial
    _ended: dict[int, set[int]] = field(default_factory=dict)  # trials that ended at a rung and cannot be promoted

    def stops(self, epochs: int, planned: int) -> bool:
        """True if a trial of `planned` epochs is judged after `epochs` of them."""
        return epochs < planned and self._is_rung(epochs)

    def learn(self, trial: int, values: Sequence[float]) -> None:
        """Record the values of `trial` after each epoch so far; more is better."""
        for epochs in range(1, len(values) + 1):
            if self._is_rung(epochs):
                self._rungs.setdefault(epochs, {})[trial] = max(values[:epochs])

    def forget(self, trial: int) -> None:
        """Remove a failed trial, which will not be promoted and must not block others."""
        for reached in self._rungs.values():
            reached.pop(trial, None)

    def close(self, trial: int, epochs: int) -> None:
        """Record that a trial ended after `epochs` epochs; if that is a rung, its place there passes to another."""
        if self._is_rung(epochs):
            self._ended.setdefault(epochs, set()).add(trial)

    def promotable(self, epochs: int, *, last: bool) -> set[int]:
        """Return the trials that are or were promoted from this rung: the best 1/factor of all that reached it.

        The earlier of equal values wins. Trials that ended at the rung count as having reached it, but leave their
        places to the next. With `last`, when no new trial will come, the best is promoted however few there are, and
        so is the study's first trial: at least one trial of its own completes, even after a warm start.
        """
        reached = self._rungs.get(epochs, {})
        able = sorted(reached.keys() - self._ended.get(epochs, set()), key=lambda number: (-reached[number], number))
        best = able[: max(len(reached) // self.factor, 1 if last else 0)]
        return {*best, *(number for number in able if last and number == FIRST)}

    def is_promotable(self, trial: int, epochs: int, *, last: bool) -> bool:
        """True if `trial` is one of the promotable trials of this rung."""
        return trial in self.promotable(epochs, last=last)

    def _is_rung(self, epochs: int) -> bool:
        rung = self.min_epochs
        while rung < epochs:
            rung *= self.factor
        return rung == epochs


class AshaPruner:
    """Judges trials at their rungs and holds those paused there. With another pruner no trial pauses.

    With `stopping`, trials that are not among the best are pruned and keep their places in the rung. A trial must
    then be among the best 1/factor of all that reached the rung so far, and the best so far always continues.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.rungs: Rungs | None = None
        if isinstance(pruner, Asha):
            self.rungs = Rungs(pruner.min_epochs, pruner.reduction_factor)
        self._stopping = isinstance(pruner, Asha) and pruner.type == "stopping"
        self._paused: dict[int, ActiveTrial] = {}

    def pauses(self, one: ActiveTrial, *, last: bool) -> bool:
        """True if a running trial has reached a rung and may not continue yet."""
        return not self._stopping and self._fails(one, last=last)

    def stops(self, one: ActiveTrial) -> bool:
        """True if a running trial is pruned at the rung it has reached, as it is not among the best there."""
        return self._stopping and self._fails(one, last=True)

    def _fails(self, one: ActiveTrial, *, last: bool) -> bool:
        if self.rungs is None:
            return False
        self.rungs.learn(one.job.trial, one.values)
        judged = self.rungs.stops(len(one.epochs), one.job.planned)
        return judged and not self.rungs.is_promotable(one.job.trial, len(one.epochs), last=last)

    def ended(self, trial: int, state: State, epochs: int) -> None:
        """Record how a trial ended after `epochs` epochs."""
        if self.rungs and state == "FAILED":
            self.rungs.forget(trial)
        elif self.rungs and state == "PRUNED" and not self._stopping:
            self.rungs.close(trial, epochs)

    def add(self, one: ActiveTrial) -> None:
        self._paused[one.job.trial] = one

    def next(self, fits: Callable[[ActiveTrial], bool], *, last: bool) -> ActiveTrial | None:
        """Remove and return the trial to resume, the best on the highest rung that `fits`; None if there is none."""
        able = [one for one in self._promotable(last) if fits(one)]
        best = max(able, key=lambda one: (len(one.epochs), max(one.values), -one.job.trial), default=None)
        return self._paused.pop(best.job.trial) if best else None

    def stuck(self) -> list[ActiveTrial]:
        """Remove and return all paused trials if none is promotable, given that no new trial will come."""
        if self._promotable(last=True):
            return []
        return [self._paused.pop(number) for number in sorted(self._paused)]

    def _promotable(self, last: bool) -> list[ActiveTrial]:
        """Return the promotable trials by number, evaluating each rung once."""
        if self.rungs is None:
            return list(self._paused.values())
        rungs = {len(one.epochs) for one in self._paused.values()}
        able = {epochs: self.rungs.promotable(epochs, last=last) for epochs in rungs}
        return [one for number, one in sorted(self._paused.items()) if number in able[len(one.epochs)]]
