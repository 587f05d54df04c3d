"""The clock of a study: how long it has swept, over all resumes, and what its hours still have room for."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median

from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.store.records import BUDGET_TOLERANCE, elapsed_seconds
from sweeper.store.trial_index import Entry
from trainers.config import TrainConfig
from trainers.epoch import Epoch
from trainers.support import files

SAVE_INTERVAL_S = 1.0  # seconds between two writes of the time


class TimeBudget:
    """Counts wall-clock seconds of sweeping and learns what trials cost from their epochs.

    A trial's time is its epochs at the pace of its backbone and image size, and the measured rest: start, end and
    what lies between epochs. The pace of a backbone that was never trained is the mean of the known.
    """

    def __init__(
        self, folder: StudyFolder, hours: float | None, ended: Mapping[int, Entry], *, folds: int = 1
    ) -> None:
        """Go on where the last call in `folder` was; the trials that have `ended`, and the histories of the others,
        tell the paces. A trial is `folds` trainings.
        """
        self._folder, self._limit, self._folds = folder, math.inf if hours is None else hours * 3600, folds
        self._paces: dict[tuple[str, str], tuple[float, int]] = {}  # seconds and epochs
        self._planned: set[float] = set()  # epochs of trials
        self._rests: list[float] = []
        self._growth = self._aside = 0.0  # (train + val) / train where a final follows, else 0; its seconds aside
        self._repeats, self._share = 0, 0.0  # trainings of the leader's cost that follow; of the hours, at most
        self._winner: tuple[TrainConfig, int] | None = None
        self.learnt = 0  # how often something was
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
        """Seconds of sweeping so far."""
        return self._before + time.monotonic() - self._opened

    def save(self, *, now: bool = False) -> None:
        """Keep the time through a kill; not more often than every second, unless `now`."""
        if now or time.monotonic() - self._saved >= SAVE_INTERVAL_S:
            files.write_text(self._folder.elapsed, f"{self.spent:.3f}\n")
            self._saved = time.monotonic()

    # ---------------------------------------------------------------------------------- learning
    def epoch(self, train: TrainConfig, epoch: Epoch) -> None:
        """Learn what an epoch took."""
        self._learn(_place(train), epoch.seconds, 1, self._epochs(train))

    def _learn(self, place: tuple[str, str], seconds: float, epochs: int, planned: int) -> None:
        if epochs:
            self.learnt += 1
            before, count = self._paces.get(place, (0.0, 0))
            self._paces[place] = before + seconds, count + epochs
            self._planned.add(planned)

    def learn_overhead(self, seconds: float) -> None:
        """Learn what a trial took beside its epochs."""
        self.learnt += 1
        self._rests.append(max(0.0, seconds))

    def expect_final(self, growth: float, seconds: float = 0.0) -> None:
        """Keep time for retraining the winner on `growth` times as many images, and `seconds` beside that."""
        self._growth, self._aside = growth, seconds

    def expect_confirmation(self, trainings: int, share: float) -> None:
        """Keep time for so many trainings of the leader, one after the other, at most a `share` of the hours."""
        self._repeats, self._share = trainings, share

    def leads(self, train: TrainConfig, epochs: int) -> None:
        """Learn which trial would be retrained now, for how many epochs."""
        self.learnt += 1
        self._winner = train, epochs

    @property
    def wants_leader(self) -> bool:
        return self._growth > 0 or self._repeats > 0

    # ----------------------------------------------------------------------------------- judging
    @property
    def limited(self) -> bool:
        return self._limit < math.inf

    def _epochs(self, train: TrainConfig) -> int:
        """Those of a whole trial."""
        return train.epochs * self._folds

    def cost(self, train: TrainConfig, epochs: int) -> float:
        """Seconds that `epochs` of a trial are expected to take with its start and end; 0 when nothing is known."""
        return epochs * self._pace(train) + (median(self._rests) if self._rests else 0.0)

    def fits(self, train: TrainConfig, epochs: int) -> bool:
        """Whether `epochs` more of a trial are expected to end within the hours, its final included."""
        left = self._limit - self.spent
        return left > 0 and self.cost(train, epochs) <= left - self._after(train)

    def fits_whole(self, train: TrainConfig) -> bool:
        """The same of a whole trial."""
        return self.fits(train, self._epochs(train))

    def overruns(self, train: TrainConfig, done: int) -> bool:
        """Whether a running trial is to stop after `done` epochs: it would end too late, and the next one after the
        hours.
        """
        if not self.limited:
            return False
        ahead = (self._epochs(train) - done) * self._pace(train)
        if self.spent + ahead + self._after(train) <= self._limit * (1 + BUDGET_TOLERANCE):
            return False
        return self.spent + self._pace(train) + self._after() > self._limit

    def surely_fits_any(self) -> bool:
        """Whether any trial fits, as far as known."""
        if not self.limited or not self._paces:
            return self._limit > self.spent
        most = self._whole(max)
        return (
            most * (1 + self._growth / self._folds) + self._confirmation(most)
            <= self._limit - self.spent - self._after()
        )

    def fits_none(self) -> bool:
        """Whether no trial fits, not even the cheapest."""
        left = self._limit - self.spent - self._after()
        return left <= 0 or bool(self._paces and self._whole(min) > left)

    def _pace(self, train: TrainConfig) -> float:
        """Seconds an epoch."""
        if _place(train) in self._paces:
            seconds, count = self._paces[_place(train)]
            return seconds / count
        return mean(self._known()) if self._paces else 0.0

    def _known(self) -> list[float]:
        return [seconds / count for seconds, count in self._paces.values()]

    def _whole(self, which: Callable[[Iterable[float]], float]) -> float:
        """Seconds of the cheapest trial (min), or of the dearest (max)."""
        return which(self._known()) * which(self._planned) + (median(self._rests) if self._rests else 0.0)

    def _after(self, train: TrainConfig | None = None) -> float:
        """Seconds of what follows the search, be it of the leading trial or of this one: whichever takes longer."""
        able = [self._winner] if self._winner else []
        able += [(train, train.epochs)] if train else []
        dearest = max((self.cost(one, self._epochs(one)) for one, _ in able), default=0.0)
        return self._confirmation(dearest) + self._final(able)

    def _confirmation(self, cost: float) -> float:
        return min(self._repeats * cost, self._share * self._limit) if self._repeats else 0.0

    def _final(self, able: Sequence[tuple[TrainConfig, int]]) -> float:
        """Seconds of the retraining, in a cold worker."""
        if not self._growth:
            return 0.0
        paces = [self._pace(train) * epochs for train, epochs in able]
        return max(paces, default=0.0) * self._growth + max(self._rests, default=0.0) + self._aside

    def repeats(self, trains: Sequence[TrainConfig], slots: int) -> float:
        """How often these can be trained within the hours, so many side by side, and the leader retrained."""
        left = self._limit - self.spent - self._final([self._winner] if self._winner else [])
        seconds = sum(self.cost(train, self._epochs(train)) for train in trains) / min(slots, len(trains))
        return left / seconds if seconds else math.inf


def _place(train: TrainConfig) -> tuple[str, str]:
    return train.backbone, str(train.image_size)
