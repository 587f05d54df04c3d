"""What mattered: how much each open value of a study had to do with its best trials."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import Field, ValidationError

from sweeper.space.compare import opened
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.trial import Message, TrialResult
from trainers.support import files

MIN_TRIALS = 40
"""Trials that PED-ANOVA needs; docs/measurements.md has how often it is right by their number."""
MIN_COMPLETED = 5  # of them
SHOWN = 3  # open values in one line
METHOD = 2
"""Another number whenever shares come to be computed in another way, so that kept ones are computed again."""


class Share(Message):
    """An open value: its share in what tells the best trials from all, 0 to 1, and its standard error."""

    name: str
    share: float
    error: float

    def __str__(self) -> str:
        return f"{self.name} {self.share:.0%}".replace("%", " %") + f" ±{100 * self.error:.0f}"


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
    def line(self) -> str:
        """`what mattered: optimizer.lr 62 % ±9, loss.gamma 21 % ±8`."""
        if self.shares:
            certain = [one for one in self.shares[1:SHOWN] if one.share > one.error]
            return f"what mattered: {', '.join(map(str, [self.shares[0], *certain]))}"
        if self.is_enough:
            return "what mattered: nothing that tells the best trials from the others"
        least = "" if self.completed >= MIN_COMPLETED else f", {MIN_COMPLETED} of them completed"
        return f"what mattered: too few trials to say ({self.completed + self.pruned}; it takes {MIN_TRIALS}{least})"

    @property
    def rows(self) -> list[list[str]]:
        """Each open value, its share in per cent and the standard error of that."""
        return [[one.name, f"{one.share:.0%}", f"{100 * one.error:.0f}"] for one in self.shares]

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json."""
        return self.model_dump(mode="json", exclude={"schema_version", "record"}) | {"enough": self.is_enough}


def importance(study: StudyFolder, results: Sequence[TrialResult]) -> Importance | None:
    """That of `results`, from importance.json where it is of the same; None where fewer than two values were open."""
    asked = opened(((study_file.read(study) or {}).get("identity") or {}).get("train"))
    if len(asked) < 2:
        return None
    counted = [one for one in results if one.state in ("COMPLETE", "PRUNED")]
    record = _checksum(counted, asked)
    return _kept(study, record) or _computed(study, counted, asked, record)


def _checksum(results: Sequence[TrialResult], asked: dict[str, Any]) -> str:
    lines = [json.dumps([asked, MIN_TRIALS, METHOD], sort_keys=True), *(one.model_dump_json() for one in results)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _kept(study: StudyFolder, record: str) -> Importance | None:
    try:
        kept = Importance.model_validate_json(study.importance.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return kept if kept.record == record else None


def _computed(study: StudyFolder, counted: Sequence[TrialResult], asked: dict[str, Any], record: str) -> Importance:
    pruned = sum(one.state == "PRUNED" for one in counted)
    made = Importance(record=record, completed=len(counted) - pruned, pruned=pruned)
    if made.is_enough:
        from sweeper.search import importance

        found = importance.shares(counted, asked)
        shares = tuple(Share(name=name, share=one.share, error=one.error) for name, one in found.items())
        made = made.model_copy(update={"shares": shares})
    with suppress(OSError):  # on a full disk, or where one may only read, it is computed again the next time
        files.write_text(study.importance, made.model_dump_json(indent=1) + "\n")
    return made
