"""The observers of a session, notified one after the other; a failure in one does not affect the others."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sweeper.trial import Closing, Job, Observer, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position


class Observers:
    """Several observers as one. One that fails is reported through `say` and skipped from then on, until closing."""

    def __init__(self, observers: Sequence[Observer], say: Callable[[str], None]) -> None:
        self._all, self._sound, self._say = tuple(observers), list(observers), say

    def started(self, job: Job, slot: str) -> None:
        self._notify(lambda one: one.started(job, slot))

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self._notify(lambda one: one.epoch(job, epoch, best))

    def moved(self, positions: Mapping[str, Position]) -> None:
        self._notify(lambda one: one.moved(positions))

    def ended(self, job: Job, result: TrialResult) -> None:
        self._notify(lambda one: one.ended(job, result))

    def note(self, text: str) -> None:
        self._notify(lambda one: one.note(text))

    def closed(self, closing: Closing) -> None:
        """Close one after the other; if the user interrupts one, hurry the rest."""
        for number, one in enumerate(self._all):
            try:
                self._try(one, lambda one: one.closed(closing))
            except KeyboardInterrupt:
                Observers(self._all[number + 1 :], self._say).closed(replace(closing, timeout=1.0))
                raise

    def _notify(self, event: Callable[[Observer], None]) -> None:
        self._sound = [one for one in self._sound if self._try(one, event)]

    def _try(self, one: Observer, event: Callable[[Observer], None]) -> bool:
        try:
            event(one)
        except Exception as error:  # noqa: BLE001  (the boundary: no observer's trouble reaches the training)
            told = "".join(traceback.format_exception(error))
            self._say(f"{told}{type(one).__name__} failed and is switched off; training continues")
            return False
        return True
