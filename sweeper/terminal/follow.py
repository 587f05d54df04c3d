"""Shows a sweep that runs in another process: what its files say, told to a view as if it ran here."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from sweeper.terminal.views import View
from sweeper.trial import OPEN, Closing, Job, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

INTERVAL_S = 1.0  # seconds between two looks, and
SHARE = 0.1  # of the time for looking, at most: there may be ten thousand trials


class Standing(Protocol):
    """How a study stands."""

    @property
    def planned(self) -> int | None: ...
    @property
    def results(self) -> Sequence[TrialResult]: ...
    @property
    def best(self) -> TrialResult | None: ...
    @property
    def holder(self) -> object | None:
        """Who sweeps it; None when nobody does any more."""
        ...


class Source(Protocol):
    """Reads a study."""

    def look(self) -> Standing: ...
    def job(self, trial: int) -> Job | None: ...
    def epochs(self, job: Job) -> Sequence[Epoch]: ...
    def positions(self) -> Mapping[int, tuple[str, Position | None]]:
        """The slot of each running trial, and how far its epoch is."""
        ...


def follow(source: Source, view: View) -> None:
    """Tell `view` what happens to the study until nobody sweeps it any more."""
    now = source.look()
    view.plan(now.planned, [one for one in now.results if one.state != "RUNNING"])
    shown = _Shown(source, view, {one.number for one in now.results if one.state not in OPEN})
    try:
        while True:
            began = time.monotonic()
            shown.bring_up_to_date(now)
            if not now.holder:
                return
            time.sleep(max(INTERVAL_S, (time.monotonic() - began) / SHARE))
            now = source.look()
    finally:
        view.closed(Closing("RUNNING"))


class _Shown:
    """What a view was told: the trials that have ended, and those that run, with the number of their epochs."""

    def __init__(self, source: Source, view: View, ended: set[int]) -> None:
        self.source, self.view, self.ended = source, view, ended
        self.running: dict[int, int] = {}

    def bring_up_to_date(self, now: Standing) -> None:
        positions = self.source.positions()
        for result in now.results:
            runs = result.state == "RUNNING"
            if (runs or result.number in self.running or self._is_new(result)) and (
                job := self.source.job(result.number)
            ):
                if runs and job.trial not in self.running:
                    self._start(job, positions.get(job.trial, ("", None))[0])
                self._epochs(job, now.best)
                if not runs:
                    self._end(job, result)
        self.view.moved({trial: at for trial, (_, at) in positions.items() if at})

    def _is_new(self, result: TrialResult) -> bool:
        return result.state not in OPEN and result.number not in self.ended

    def _start(self, job: Job, slot: str) -> None:
        self.running[job.trial] = len(self.source.epochs(job))
        self.view.started(job, slot)

    def _epochs(self, job: Job, best: TrialResult | None) -> None:
        told = self.running.get(job.trial)
        if told is None:
            return
        for epoch in self.source.epochs(job)[told:]:
            self.view.epoch(job, epoch, best)
            self.running[job.trial] = epoch.number

    def _end(self, job: Job, result: TrialResult) -> None:
        self.running.pop(job.trial, None)
        self.view.ended(job, result)
        if result.state not in OPEN:
            self.ended.add(job.trial)
