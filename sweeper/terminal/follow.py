"""Follow a sweep that runs in another process: read its files and update a view as if it ran here."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sweeper.terminal.views import View
from sweeper.trial import OPEN, Closing, Job, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

INTERVAL_S = 1.0  # seconds between two looks at the files, at least
SHARE = 0.1  # share of the time spent looking, at most: there may be ten thousand trials


class Standing(Protocol):
    """The status of a study."""

    @property
    def planned(self) -> int | None: ...
    @property
    def results(self) -> Sequence[TrialResult]: ...
    @property
    def best(self) -> TrialResult | None: ...
    @property
    def holder(self) -> object | None:
        """The process that runs the study; None if no process does."""
        ...


class Source(Protocol):
    """A reader of a study's files."""

    def look(self) -> Standing: ...
    def job(self, trial: int) -> Job | None: ...
    def epochs(self, job: Job) -> Sequence[Epoch]: ...
    def retrained(self) -> Iterable[tuple[Job, TrialResult]]:
        """Return confirmations and retrainings, each with its result so far; the state is RUNNING while it runs."""
        ...

    def positions(self) -> Mapping[str, tuple[str, Position | None]]:
        """Return the slot of each run by key, and its position in the current epoch."""
        ...


def follow(source: Source, view: View) -> None:
    """Update `view` until no process runs the study any more, or the view's reader is gone."""
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
    """The state that a view has shown: finished runs, and running ones with their number of epochs.

    Trials are keyed by number, confirmations and retrainings by folder.
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
        self.view.moved({key: at for key, (_, at) in positions.items() if at})

    def _concerns(self, key: int | Path, result: TrialResult) -> bool:
        """True if the run is running, was running at the last look, or has finished since."""
        has_ended = result.state not in OPEN and key not in self.ended
        return result.state == "RUNNING" or key in self.running or has_ended

    def _show(
        self,
        key: int | Path,
        job: Job,
        result: TrialResult,
        positions: Mapping[str, tuple[str, Position | None]],
        best: TrialResult | None,
    ) -> None:
        runs = result.state == "RUNNING"
        if runs and key not in self.running:
            self.running[key] = len(self.source.epochs(job))
            self.view.started(job, positions.get(job.key, ("", None))[0])
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
