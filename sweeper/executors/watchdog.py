"""The watchdog: how long a worker may say nothing, or train without ending an epoch, before it is taken for hung."""

import os
import time
from dataclasses import dataclass

from sweeper.errors import UserError
from sweeper.text import format_duration
from trainers.config import TrainConfig
from trainers.epoch import Epoch

MAX_POLL_INTERVAL_S = 2.0  # seconds between two looks that count, at most


class AwakeClock:
    """The time this process was there to see: of a gap between two looks only the first seconds count.

    A coordinator that was stopped, or asleep with its machine, could otherwise not tell its own absence from that of
    its workers. Only the monotonic clock is asked, so setting the time of day changes nothing.
    """

    def __init__(self) -> None:
        self._seconds, self._seen = 0.0, time.monotonic()

    def now(self) -> float:
        """Seconds so far; to be asked often."""
        seen = time.monotonic()
        self._seconds += min(seen - self._seen, MAX_POLL_INTERVAL_S)
        self._seen = seen
        return self._seconds


@dataclass(frozen=True)
class HangLimits:
    """Seconds. An epoch may take `factor` times the longest before, for the first ones may have small images, frozen
    layers and a GPU of their own; and never less than `floor`, for a compiler, a slow disk and val may be in it.
    """

    silence: float = 120.0  # without any word: the process stands still, or loads a library for as long
    unknown: float = 6 * 3600.0  # for an epoch, before one of that backbone and image size was measured
    floor: float = 900.0
    factor: float = 20.0

    @classmethod
    def read(cls) -> "HangLimits":
        """All of these times SWEEP_PATIENCE, for epochs that take days."""
        given = os.environ.get("SWEEP_PATIENCE") or "1"
        try:
            times = float(given)
        except ValueError:
            times = 0.0
        if not times > 0:
            raise UserError(f"{given!r} is no number above 0", where="SWEEP_PATIENCE", help="2 waits twice as long")
        usual = cls()
        return cls(usual.silence * times, usual.unknown * times, usual.floor * times, usual.factor * times)


class Watch:
    """What the epochs of a sweep took here, by backbone and image size, and how long the next one may take."""

    def __init__(self, patience: HangLimits) -> None:
        self._patience = patience
        self._longest: dict[tuple[str, str], float] = {}

    def epoch(self, train: TrainConfig, epoch: Epoch, took: float) -> None:
        """Learn that `epoch` came `took` seconds after it could begin; sooner than it lasted, it says nothing."""
        if took >= epoch.seconds:
            self._longest[_place(train)] = max(took, self._longest.get(_place(train), 0.0))

    def trouble(self, train: TrainConfig, silent: float, training: float) -> str | None:
        """Why a worker that was `silent` for so long, and has been `training` since its last epoch, is hung."""
        if silent > self._patience.silence:
            return f"the worker said nothing for {format_duration(self._patience.silence)}"
        longest = self._longest.get(_place(train))
        if longest is None:
            known, limit = f"none of {train.backbone} was measured yet", self._patience.unknown
        else:
            known = f"the longest of {train.backbone} took {format_duration(longest)}"
            limit = max(self._patience.floor, self._patience.factor * longest)
        return f"training hangs: no epoch ended in {format_duration(limit)} ({known})" if training > limit else None


def _place(train: TrainConfig) -> tuple[str, str]:
    return train.backbone, str(train.image_size)
