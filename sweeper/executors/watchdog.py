"""The watchdog: how long a worker may be silent, or train without finishing an epoch, before it counts as hung."""

import os
import time
from dataclasses import dataclass

from sweeper.errors import UserError
from sweeper.text import format_duration
from trainers.config import TrainConfig
from trainers.epoch import Epoch

MAX_POLL_INTERVAL_S = 2.0  # most seconds that count between two readings of the clock


class AwakeClock:
    """A clock of the time that this process was awake: of a gap between two readings only the first seconds count.

    Otherwise a coordinator that was stopped, or asleep with its machine, could not tell its own absence from that of
    its workers. It reads only the monotonic clock, so setting the time of day changes nothing.
    """

    def __init__(self) -> None:
        self._seconds, self._seen = 0.0, time.monotonic()

    def now(self) -> float:
        """Return the seconds so far; call it often."""
        seen = time.monotonic()
        self._seconds += min(seen - self._seen, MAX_POLL_INTERVAL_S)
        self._seen = seen
        return self._seconds


@dataclass(frozen=True)
class HangLimits:
    """Time limits in seconds. An epoch may take `factor` times the longest so far, since the first ones may have
    small images, frozen layers and a GPU of their own, and at least `floor`, since it may include compilation, a slow
    disk and validation.
    """

    silence: float = 120.0  # without any message: the process is stopped, or loads a library for as long
    unknown: float = 6 * 3600.0  # for an epoch, before one of that backbone and image size was measured
    floor: float = 900.0
    factor: float = 20.0

    @classmethod
    def read(cls) -> "HangLimits":
        """Return the limits multiplied by SWEEP_PATIENCE, for epochs that take days."""
        given = os.environ.get("SWEEP_PATIENCE") or "1"
        try:
            times = float(given)
        except ValueError:
            times = 0.0
        if not times > 0:
            raise UserError(
                f"{given!r} is not a number above 0", where="SWEEP_PATIENCE", help="2 waits twice as long"
            )
        usual = cls()
        return cls(usual.silence * times, usual.unknown * times, usual.floor * times, usual.factor * times)


class Watch:
    """The longest epoch of this sweep here, by backbone and image size, and the limit that follows for the next."""

    def __init__(self, patience: HangLimits) -> None:
        self._patience = patience
        self._longest: dict[tuple[str, str], float] = {}

    def epoch(self, train: TrainConfig, epoch: Epoch, took: float) -> None:
        """Learn that `epoch` arrived `took` seconds after it could start; ignored if that is less than it lasted."""
        if took >= epoch.seconds:
            self._longest[_place(train)] = max(took, self._longest.get(_place(train), 0.0))

    def trouble(self, train: TrainConfig, silent: float, training: float) -> str | None:
        """Return why a worker counts as hung after `silent` seconds without a message and `training` seconds in an
        epoch; None if it does not.
        """
        if silent > self._patience.silence:
            return f"the worker sent nothing for {format_duration(self._patience.silence)}"
        longest = self._longest.get(_place(train))
        if longest is None:
            known, limit = f"no epoch of {train.backbone} measured yet", self._patience.unknown
        else:
            known = f"the longest of {train.backbone} took {format_duration(longest)}"
            limit = max(self._patience.floor, self._patience.factor * longest)
        return (
            f"training hangs: no epoch finished in {format_duration(limit)} ({known})" if training > limit else None
        )


def _place(train: TrainConfig) -> tuple[str, str]:
    return train.backbone, str(train.image_size)
