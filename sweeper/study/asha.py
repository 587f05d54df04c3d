"""Asynchronous successive halving: which trials end or wait at a rung, and which of those that wait climb on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sweeper.space.spec import Asha, Pruner
from sweeper.study.active_trial import ActiveTrial
from sweeper.trial import FIRST, State


@dataclass
class Rungs:
    """What trials had shown at each rung (Li et al. 2020); a rung is `min_epochs` x `factor`^k epochs of a trial.

    It holds nothing that the histories do not, so it is the same after any interruption.
    """

    min_epochs: int
    factor: int
    _rungs: dict[int, dict[int, float]] = field(default_factory=dict)  # best value so far, by epochs and trial
    _ended: dict[int, set[int]] = field(default_factory=dict)  # trials that ended at a rung and cannot climb from it

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

    def close(self, trial: int, epochs: int) -> None:
        """Note that a trial ended for good after so many epochs: if that is a rung, its place there is another's."""
        if self._is_rung(epochs):
            self._ended.setdefault(epochs, set()).add(trial)

    def promotable(self, epochs: int, *, last: bool) -> set[int]:
        """The trials that may climb on from this rung, or have: the best 1/factor of all that reached it.

        Of equals the earlier one. Those that ended there count among all, and leave their places to the next. With
        `last`, when no new trial will come, the best rises however few there are, and so does the study's first: some
        trial of its own gets to the end, whatever it has learnt from another study.
        """
        reached = self._rungs.get(epochs, {})
        able = sorted(reached.keys() - self._ended.get(epochs, set()), key=lambda number: (-reached[number], number))
        best = able[: max(len(reached) // self.factor, 1 if last else 0)]
        return {*best, *(number for number in able if last and number == FIRST)}

    def is_promotable(self, trial: int, epochs: int, *, last: bool) -> bool:
        """Whether `trial` is one of those."""
        return trial in self.promotable(epochs, last=last)

    def _is_rung(self, epochs: int) -> bool:
        rung = self.min_epochs
        while rung < epochs:
            rung *= self.factor
        return rung == epochs


class AshaPruner:
    """Judges trials at their rungs, and holds those that are paused there. With another pruner nobody waits.

    Where those that are not among the best end (`stopping`), they keep their places: so a trial has to be among the
    best 1/factor of all that came there before it, and the best so far always goes on.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.rungs: Rungs | None = None
        if isinstance(pruner, Asha):
            self.rungs = Rungs(pruner.min_epochs, pruner.reduction_factor)
        self._stopping = isinstance(pruner, Asha) and pruner.type == "stopping"
        self._paused: dict[int, ActiveTrial] = {}

    def pauses(self, one: ActiveTrial, *, last: bool) -> bool:
        """Whether a trial that runs stands at a rung from which it may not go on, yet."""
        return not self._stopping and self._fails(one, last=last)

    def stops(self, one: ActiveTrial) -> bool:
        """Whether a trial that runs ends for good at the rung where it stands: it is not among the best there."""
        return self._stopping and self._fails(one, last=True)

    def _fails(self, one: ActiveTrial, *, last: bool) -> bool:
        if self.rungs is None:
            return False
        self.rungs.learn(one.job.trial, one.values)
        judged = self.rungs.stops(len(one.epochs), one.job.planned)
        return judged and not self.rungs.is_promotable(one.job.trial, len(one.epochs), last=last)

    def ended(self, trial: int, state: State, epochs: int) -> None:
        """Note how a trial of so many epochs ended."""
        if self.rungs and state == "FAILED":
            self.rungs.forget(trial)
        elif self.rungs and state == "PRUNED" and not self._stopping:
            self.rungs.close(trial, epochs)

    def add(self, one: ActiveTrial) -> None:
        self._paused[one.job.trial] = one

    def next(self, fits: Callable[[ActiveTrial], bool], *, last: bool) -> ActiveTrial | None:
        """Take out the one to go on with: of the highest rung, the best; None while none may, or `fits`."""
        able = [one for one in self._promotable(last) if fits(one)]
        best = max(able, key=lambda one: (len(one.epochs), max(one.values), -one.job.trial), default=None)
        return self._paused.pop(best.job.trial) if best else None

    def stuck(self) -> list[ActiveTrial]:
        """Take out all, if none may go on now that no new trial comes."""
        if self._promotable(last=True):
            return []
        return [self._paused.pop(number) for number in sorted(self._paused)]

    def _promotable(self, last: bool) -> list[ActiveTrial]:
        """Those that may climb on, by number; each rung is looked at once."""
        if self.rungs is None:
            return list(self._paused.values())
        rungs = {len(one.epochs) for one in self._paused.values()}
        able = {epochs: self.rungs.promotable(epochs, last=last) for epochs in rungs}
        return [one for number, one in sorted(self._paused.items()) if number in able[len(one.epochs)]]
