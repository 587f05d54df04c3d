"""Shows a sweep that runs in another process: what its files say, told to a view as if it ran here."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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
    def retrained(self) -> Iterable[tuple[Job, TrialResult]]:
        """Runs that no search decides on, each with how it stands; RUNNING where it runs."""
        ...

    def positions(self) -> Mapping[int, tuple[str, Position | None]]:
        """The slot of each running trial, and how far its epoch is."""
        ...


def follow(source: Source, view: View) -> None:
    """Tell `view` what happens to the study until nobody sweeps it any more, or nobody listens."""
    now = source.look()
    view.plan(now.planned, [one for one in now.results if one.state != "RUNNING"])
    ended = {job.folder for job, one in source.retrained() if one.state not in OPEN}
    shown = _Shown(source, view, ended | {one.number for one in now.results if one.state not in OPEN})
    try:
        while True:
            began = time.monotonic()
            shown.bring_up_to_date(now)
            if not now.holder or view.gone:
                return
            time.sleep(max(INTERVAL_S, (time.monotonic() - began) / SHARE))
            now = source.look()
    finally:
        view.closed(Closing("RUNNING"))


class _Shown:
    """What a view was told: the runs that have ended, and those that run, with the number of their epochs.

    A trial goes by its number, a run that no search decides on by its folder.
    """

    def __init__(self, source: Source, view: View, ended: set[int | Path]) -> None:
        self.source, self.view, self.ended = source, view, ended
        self.running: dict[int | Path, int] = {}

    def bring_up_to_date(self, now: Standing) -> None:
        positions = self.source.positions()
        for result in now.results:
            if self._concerns(result.number, result) and (job := self.source.job(result.number)):
                self._show(result.number, job, result, positions, now.best)
        for job, result in self.source.retrained():
            if self._concerns(job.folder, result):
                self._show(job.folder, job, result, positions, None)
        self.view.moved({trial: at for trial, (_, at) in positions.items() if at})

    def _concerns(self, key: int | Path, result: TrialResult) -> bool:
        """Whether it runs, or did at the last look, or has ended since."""
        has_ended = result.state not in OPEN and key not in self.ended
        return result.state == "RUNNING" or key in self.running or has_ended

    def _show(
        self,
        key: int | Path,
        job: Job,
        result: TrialResult,
        positions: Mapping[int, tuple[str, Position | None]],
        best: TrialResult | None,
    ) -> None:
        runs = result.state == "RUNNING"
        if runs and key not in self.running:
            self.running[key] = len(self.source.epochs(job))
            self.view.started(job, positions.get(job.trial, ("", None))[0])
        if key in self.running:
            self._epochs(key, job, best)
        if not runs:
            self._end(key, job, result)

    def _epochs(self, key: int | Path, job: Job, best: TrialResult | None) -> None:
        for epoch in self.source.epochs(job)[self.running[key] :]:
            self.view.epoch(job, epoch, best)
            self.running[key] = epoch.number

    def _end(self, key: int | Path, job: Job, result: TrialResult) -> None:
        self.running.pop(key, None)
        self.view.ended(job, result)
        if result.state not in OPEN:
            self.ended.add(key)
