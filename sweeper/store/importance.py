"""What mattered, as importance.json keeps it. Who computes it is results.importance."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, ValidationError

from sweeper.store.paths import StudyFolder
from sweeper.trial import Message

MIN_TRIALS = 40
"""Trials that PED-ANOVA needs; docs/explanation/measurements.md has how often it is right by their number."""
MIN_COMPLETED = 5  # of them
SHOWN = 3  # open values in one line


class Share(Message):
    """An open value: its share in what tells the best trials from all, 0 to 1, and its standard error."""

    name: str
    share: float
    error: float
    short: str = Field("", description="its name in the leaderboard, where that is another")

    @property
    def label(self) -> str:
        """What people read."""
        return self.short or self.name

    def __str__(self) -> str:
        return f"{self.label} {self.share:.0%}".replace("%", " %") + f" ±{100 * self.error:.0f}"


class Importance(Message):
    """importance.json: the shares, the largest first; none of too few trials, or of equally good ones.

    A pruned trial counts as tried and as worse than those that completed.
    """

    schema_version: int = 1
    record: str = Field(description="checksum of what it was computed of")
    completed: int
    pruned: int
    shares: tuple[Share, ...] = ()

    @property
    def is_enough(self) -> bool:
        """Whether there are trials enough to say."""
        return self.completed >= MIN_COMPLETED and self.completed + self.pruned >= MIN_TRIALS

    @property
    def named(self) -> list[Share]:
        """The first, and those of the next whose share is larger than its error."""
        return [one for at, one in enumerate(self.shares[:SHOWN]) if at == 0 or one.share > one.error]

    @property
    def in_full(self) -> "Importance":
        """The same under whole names, for where the open values have those: in MLflow."""
        shares = tuple(one.model_copy(update={"short": ""}) for one in self.shares)
        return self.model_copy(update={"shares": shares})

    @property
    def line(self) -> str:
        """`what mattered: lr 62 % ±9, gamma 21 % ±8`."""
        if self.shares:
            return f"what mattered: {', '.join(map(str, self.named))}"
        if self.is_enough:
            return "what mattered: nothing that tells the best trials from the others"
        least = "" if self.completed >= MIN_COMPLETED else f", {MIN_COMPLETED} of them completed"
        return f"what mattered: too few trials to say ({self.completed + self.pruned}; it takes {MIN_TRIALS}{least})"

    @property
    def rows(self) -> list[list[str]]:
        """Each open value, its share in per cent and the standard error of that."""
        return [[one.label, f"{one.share:.0%}", f"{100 * one.error:.0f}"] for one in self.shares]

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json."""
        return self.model_dump(mode="json", exclude={"schema_version", "record"}) | {"enough": self.is_enough}


def ordered(names: Iterable[str], found: Importance | None) -> list[str]:
    """`names`, those that mattered most before the others."""
    order = [share.name for share in found.shares] if found else []
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def read(study: StudyFolder) -> Importance | None:
    """What was last computed; None where nothing was, or it cannot be read."""
    try:
        return Importance.model_validate_json(study.importance.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
