"""Where the hours of a study went."""

from typing import NamedTuple

from sweeper.store import records
from sweeper.store.studies import StudyStatus
from sweeper.text import format_duration


class Spent(NamedTuple):
    """Seconds: while a trial was in an epoch, of all retrainings, between trials, and of the budget that are left."""

    trials: float
    retraining: float
    between_trials: float
    unused: float  # less than none where it ended late

    @property
    def words(self) -> str:
        end = (
            f"unused {format_duration(self.unused)}" if self.unused >= 0 else f"{format_duration(-self.unused)} late"
        )
        parts = {"trials": self.trials, "retraining": self.retraining, "between trials": self.between_trials}
        return ", ".join([*(f"{name} {format_duration(seconds)}" for name, seconds in parts.items()), end])


def spent(one: StudyStatus) -> Spent | None:
    """How a study used its budget of hours; None where it has none, or still runs."""
    if one.hours is None or one.holder:
        return None
    swept, trials = records.elapsed_seconds(one.study), records.seconds(one.study)
    retraining = sum(records.final_seconds(final.folder) for final in one.finals)
    return Spent(trials, retraining, max(0.0, swept - trials), one.hours * 3600 - swept - retraining)
