"""The importance of parameters as stored in importance.json; `results.importance` computes it."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, ValidationError

from sweeper.store.paths import StudyFolder
from sweeper.trial import Message

MIN_TRIALS = 40
"""Trials that PED-ANOVA needs, measured in docs/explanation/search-measured.md."""
MIN_COMPLETED = 5  # of them
SHOWN = 3  # parameters in one line


class Share(Message):
    """A parameter with its share, 0 to 1, in what separates the best trials from all, and its standard error."""

    name: str
    share: float
    error: float
    short: str = Field("", description="its name in the leaderboard, if different")

    @property
    def label(self) -> str:
        """The name shown to users."""
        return self.short or self.name

    def __str__(self) -> str:
        return f"{self.label} {self.share:.0%}".replace("%", " %") + f" ±{100 * self.error:.0f}"


class Importance(Message):
    """importance.json: the shares, largest first; none for too few trials, or for equally good ones.

    A pruned trial counts as tried, and as worse than the completed ones.
    """

    schema_version: int = 1
    record: str = Field(description="checksum of the record it was computed from")
    completed: int
    pruned: int
    shares: tuple[Share, ...] = ()

    @property
    def is_enough(self) -> bool:
        """True if there are enough trials."""
        return self.completed >= MIN_COMPLETED and self.completed + self.pruned >= MIN_TRIALS

    @property
    def named(self) -> list[Share]:
        """The first share, and those of the next ones that exceed their error."""
        return [one for at, one in enumerate(self.shares[:SHOWN]) if at == 0 or one.share > one.error]

    @property
    def in_full(self) -> "Importance":
        """The same with full names, as parameters have them in MLflow."""
        shares = tuple(one.model_copy(update={"short": ""}) for one in self.shares)
        return self.model_copy(update={"shares": shares})

    @property
    def line(self) -> str:
        """The line for users, such as `what mattered: lr 62 % ±9, gamma 21 % ±8`."""
        if self.shares:
            return f"what mattered: {', '.join(map(str, self.named))}"
        if self.is_enough:
            return "what mattered: nothing separates the best trials from the others"
        least = "" if self.completed >= MIN_COMPLETED else f", and at least {MIN_COMPLETED} must complete"
        found = self.completed + self.pruned
        return f"what mattered: too few trials to say ({found} of the {MIN_TRIALS} needed{least})"

    @property
    def rows(self) -> list[list[str]]:
        """One row per parameter: name, share in percent, standard error of the share."""
        return [[one.label, f"{one.share:.0%}", f"{100 * one.error:.0f}"] for one in self.shares]

    def document(self) -> dict[str, Any]:
        """Return the same as plain values for --json."""
        return self.model_dump(mode="json", exclude={"schema_version", "record"}) | {"enough": self.is_enough}


def ordered(names: Iterable[str], found: Importance | None) -> list[str]:
    """Return `names` with the most important first."""
    order = [share.name for share in found.shares] if found else []
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def read(study: StudyFolder) -> Importance | None:
    """Return the stored importance; None if there is none or it is unreadable."""
    try:
        return Importance.model_validate_json(study.importance.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
