"""The clock of a study: the time swept so far, over all sessions, and what still fits in its hours."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median

from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.store.records import BUDGET_TOLERANCE, elapsed_seconds, overheads
from sweeper.store.trial_index import Entry
from trainers.config import TrainConfig
from trainers.epoch import Epoch
from trainers.support import files

MEMORY = 0.8  # weight of an epoch's duration in the pace, relative to that of the epoch after it
SAVE_INTERVAL_S = 1.0  # seconds between two writes of the time
KEPT = 20  # overheads of trials that the next session knows


class TimeBudget:
    """Counts the wall-clock seconds of sweeping and learns the cost of trials from their epochs.

    The time of a trial is its epochs at the recent pace of its backbone and image size, plus a measured overhead:
    start, end and the time between epochs. A backbone that was never trained is assumed to have the mean of the
    known paces.
    """

    def __init__(
        self, folder: StudyFolder, hours: float | None, ended: Mapping[int, Entry], *, folds: int = 1
    ) -> None:
        """Continue the clock of the last session in `folder`. The paces come from the trials that have `ended` and
        from the histories of the others. A trial is `folds` trainings.
        """
        self._folder, self._limit, self._folds = folder, math.inf if hours is None else hours * 3600, folds
        self._paces: dict[tuple[str, str], tuple[float, float]] = {}  # seconds and epochs, earlier ones weigh less
        self._planned: set[float] = set()  # epochs of trials
        self._rests = overheads(folder)
        self._growth = self._aside = 0.0  # (train + val) / train if a retraining follows, else 0; its overhead
        self._models = 1  # retrained one after another
        self._past = 0.0  # seconds of earlier retrainings and confirmations in the same hours
        self._repeats, self._share = 0, 0.0  # confirmation trainings in a row; the most they take of the hours
        self._winner: tuple[TrainConfig, int] | None = None
        self.learnt = 0  # counts updates, so that others notice new information
        if hours is not None:
            self._read(ended)
        self._before = elapsed_seconds(folder)
        self._opened = self._saved = time.monotonic()

    def _read(self, ended: Mapping[int, Entry]) -> None:
        for entry in ended.values():
            one = entry.result
            self._learn((one.backbone, entry.image_size), one.seconds, one.epochs, one.planned)
        for number, folder in records.folders(self._folder):
            if number not in ended and (job := records.read_config(folder)):
                for epoch in records.history(folder):
                    self.epoch(job.recipe.train, epoch)

    # ------------------------------------------------------------------------------------- time
    @property
    def spent(self) -> float:
        """The seconds of sweeping so far."""
        return self._before + time.monotonic() - self._opened

    def save(self, *, now: bool = False) -> None:
        """Write the time and the latest overheads to disk so that a kill does not lose them; at most once per second,
        unless `now`.
        """
        if now or time.monotonic() - self._saved >= SAVE_INTERVAL_S:
            numbers = (self.spent, *self._rests[-KEPT:])
            files.write_text(self._folder.elapsed, " ".join(f"{one:.3f}" for one in numbers) + "\n")
            self._saved = time.monotonic()

    # ---------------------------------------------------------------------------------- learning
    def epoch(self, train: TrainConfig, epoch: Epoch) -> None:
        """Learn from the duration of an epoch."""
        self._learn(_place(train), epoch.seconds, 1, self._epochs(train))

    def _learn(self, place: tuple[str, str], seconds: float, epochs: int, planned: int) -> None:
        if epochs:
            self.learnt += 1
            before, count = self._paces.get(place, (0.0, 0.0))
            kept = MEMORY**epochs
            self._paces[place] = before * kept + seconds, count * kept + epochs
            self._planned.add(planned)

    def learn_overhead(self, seconds: float) -> None:
        """Learn from the seconds that a trial took besides its epochs."""
        self.learnt += 1
        self._rests.append(max(0.0, seconds))

    def expect_final(self, growth: float, seconds: float = 0.0, models: int = 1) -> None:
        """Reserve time for retraining the winner on `growth` times as many images, as several `models` one after
        another, plus `seconds` of overhead. Earlier retrainings count as part of the hours from now on.
        """
        self._growth, self._aside, self._models = growth, seconds, models
        self._past += records.retraining_seconds(self._folder.finals)

    def expect_confirmation(self, trainings: int, share: float) -> None:
        """Reserve time for that many trainings of the leader in sequence, at most a `share` of the hours. Earlier
        confirmations count as part of the hours from now on.
        """
        self._repeats, self._share = trainings, share
        self._past += records.retraining_seconds(self._folder.confirmations)

    def leads(self, train: TrainConfig, epochs: int) -> None:
        """Learn which configuration would be retrained now, and for how many epochs."""
        self.learnt += 1
        self._winner = train, epochs

    @property
    def wants_leader(self) -> bool:
        return self._growth > 0 or self._repeats > 0

    # ----------------------------------------------------------------------------------- judging
    @property
    def _left(self) -> float:
        """The seconds left of the hours."""
        return self._limit - self.spent - self._past

    @property
    def limited(self) -> bool:
        return self._limit < math.inf

    def _epochs(self, train: TrainConfig) -> int:
        """Return the number of epochs of a whole trial."""
        return train.epochs * self._folds

    def cost(self, train: TrainConfig, epochs: int) -> float:
        """Return the expected seconds of `epochs` of a trial, with its start and end; 0 if nothing is known."""
        return epochs * self._pace(train) + (median(self._rests) if self._rests else 0.0)

    def fits(self, train: TrainConfig, epochs: int) -> bool:
        """True if `epochs` more of a trial, and what follows the search, are expected to fit in the hours."""
        left = self._left
        return left > 0 and self.cost(train, epochs) <= left - self._after(train)

    def fits_whole(self, train: TrainConfig) -> bool:
        """True if a whole trial is expected to fit."""
        return self.fits(train, self._epochs(train))

    def overruns(self, train: TrainConfig, done: int) -> bool:
        """True if a running trial must stop after `done` epochs, because it would finish too late and even its next
        epoch would end after the hours.
        """
        if not self.limited:
            return False
        ahead = (self._epochs(train) - done) * self._pace(train)
        if ahead + self._after(train) <= self._left + self._limit * BUDGET_TOLERANCE:
            return False
        return self._pace(train) + self._after() > self._left

    def surely_fits_any(self) -> bool:
        """True if even the most expensive trial fits, going by what is known."""
        if not self.limited or not self._paces:
            return self._left > 0
        most = self._whole(max)
        return (
            most * (1 + self._models * self._growth / self._folds) + self._confirmation(most)
            <= self._left - self._after()
        )

    def fits_none(self) -> bool:
        """True if not even the cheapest trial fits."""
        left = self._left - self._after()
        return left <= 0 or bool(self._paces and self._whole(min) > left)

    def _pace(self, train: TrainConfig) -> float:
        """Return the seconds per epoch."""
        if _place(train) in self._paces:
            seconds, count = self._paces[_place(train)]
            return seconds / count
        return mean(self._known()) if self._paces else 0.0

    def _known(self) -> list[float]:
        return [seconds / count for seconds, count in self._paces.values()]

    def _whole(self, which: Callable[[Iterable[float]], float]) -> float:
        """Return the seconds of the cheapest trial (min) or of the most expensive one (max)."""
        return which(self._known()) * which(self._planned) + (median(self._rests) if self._rests else 0.0)

    def _after(self, train: TrainConfig | None = None) -> float:
        """Return the seconds of what follows the search, for the leader or for this trial, whichever takes longer."""
        able = [self._winner] if self._winner else []
        able += [(train, train.epochs)] if train else []
        dearest = max((self.cost(one, self._epochs(one)) for one, _ in able), default=0.0)
        return self._confirmation(dearest) + self._final(able)

    def _confirmation(self, cost: float) -> float:
        return min(self._repeats * cost, self._share * self._limit) if self._repeats else 0.0

    def _final(self, able: Sequence[tuple[TrainConfig, int]]) -> float:
        """Return the seconds of what is retrained, in a cold worker."""
        if not self._growth:
            return 0.0
        paces = [self._pace(train) * epochs for train, epochs in able]
        one = max(paces, default=0.0) * self._growth + max(self._rests, default=0.0)
        return self._models * one + self._aside

    def repeats(self, trains: Sequence[TrainConfig], slots: int, share: float = 1.0) -> float:
        """Return how often these can be trained in a `share` of the hours, with time left for retraining the leader;
        `slots` of them run side by side.
        """
        left = min(self._left - self._final([self._winner] if self._winner else []), share * self._limit)
        seconds = sum(self.cost(train, self._epochs(train)) for train in trains) / min(slots, len(trains))
        return left / seconds if seconds else math.inf


def _place(train: TrainConfig) -> tuple[str, str]:
    return train.backbone, str(train.image_size)
