"""Parameter importance: how much each parameter explains the best trials, and which crowd at an edge."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.space.compare import opened
from sweeper.store import importance as store
from sweeper.store import study_file
from sweeper.store.importance import MIN_TRIALS, Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import parameter_names
from sweeper.trial import TrialResult
from trainers.support import files

METHOD = 3
"""Version of the computation: raise it whenever shares are computed differently, to replace stored ones."""


def importance(study: StudyFolder, results: Sequence[TrialResult]) -> Importance | None:
    """Return the importance for `results`, from importance.json if current; None with fewer than two parameters."""
    asked = opened(study_file.identity(study).get("train"))
    if len(asked) < 2:
        return None
    counted = [one for one in results if one.state in ("COMPLETE", "PRUNED")]
    record = _checksum(counted, asked)
    kept = store.read(study)
    return kept if kept and kept.record == record else _computed(study, counted, asked, record)


def _checksum(results: Sequence[TrialResult], asked: dict[str, Any]) -> str:
    lines = [json.dumps([asked, MIN_TRIALS, METHOD], sort_keys=True), *(one.model_dump_json() for one in results)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _computed(study: StudyFolder, counted: Sequence[TrialResult], asked: dict[str, Any], record: str) -> Importance:
    pruned = sum(one.state == "PRUNED" for one in counted)
    made = Importance(record=record, completed=len(counted) - pruned, pruned=pruned)
    if made.is_enough:
        from sweeper.search import importance

        found, labels = importance.shares(counted, asked), parameter_names(asked)
        shares = tuple(
            Share(name=name, share=one.share, error=one.error, short=labels[name]) for name, one in found.items()
        )
        made = made.model_copy(update={"shares": shares})
    with suppress(OSError):  # on a full or read-only disk, it is computed again next time
        files.write_text(study.importance, made.model_dump_json(indent=1) + "\n")
    return made


# ------------------------------------------------------------------------------------------ edges
BEST, CROWD, LEAST = 5, 4, 10  # best trials; how many of them at the edge; completed trials needed
END, WIDER = 0.1, 1 / 3  # shares of a range: the width of its edge, and the proposed extension
LIMITS = (0.0, 1.0)  # natural bounds of most quantities
RANGES = ("uniform", "loguniform", "int", "logint")


@dataclass(frozen=True)
class Edge:
    """A range with `count` of the BEST best trials, but at most half of the others, near one end."""

    name: str
    label: str  # the name shown to people
    end: str  # lowest or highest
    count: int
    range: tuple[float, float]
    wider: tuple[float, float]

    def __str__(self) -> str:
        return f"at an edge: {self.advice}"

    @property
    def advice(self) -> str:
        """The finding, and what to do about it."""
        (low, high), (less, more) = ([f"{end:.3g}" for end in ends] for ends in (self.range, self.wider))
        where = f"{self.count} of the {BEST} best trials lie in the {self.end} tenth of {low} to {high}"
        return f"{self.label}, {where}; try {less} to {more} with --new-study NAME"

    def document(self) -> dict[str, Any]:
        """Return the edge as plain values for --json."""
        return {name: value for name, value in asdict(self).items() if name != "label"}


def edges(study: StudyFolder, results: Sequence[TrialResult]) -> list[Edge]:
    """Return the edges where trials crowd, in the order of the study's file; none before LEAST completed trials."""
    done = [one for one in results if one.state == "COMPLETE" and math.isfinite(one.oriented)]
    if len(done) < LEAST:
        return []
    ranked = sorted(done, key=lambda one: one.oriented, reverse=True)
    asked = opened(study_file.identity(study).get("train"))
    labels = parameter_names(asked)
    return [edge for name, each in asked.items() for edge in _edges(name, labels[name], each, ranked)]


def _edges(name: str, label: str, asked: Mapping[str, Any], ranked: Sequence[TrialResult]) -> Iterator[Edge]:
    kind = next((kind for kind in RANGES if kind in asked), None)
    if kind is None or any(name not in one.params for one in ranked[:BEST]):
        return
    low, high = asked[kind]
    log = kind.startswith("log")
    places = [_place(one.params[name], low, high, log=log) for one in ranked if name in one.params]
    for end, near in (("lowest", [at <= END for at in places]), ("highest", [at >= 1 - END for at in places])):
        wider = _wider(asked, kind, end)
        best, others = near[:BEST], near[BEST:]
        if sum(best) >= CROWD and sum(others) <= len(others) / 2 and wider != (low, high):
            yield Edge(name, label, end, sum(best), (low, high), wider)


def _place(value: float, low: float, high: float, *, log: bool) -> float:
    """Return the position of a value in its range, from 0 to 1."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _wider(asked: Mapping[str, Any], kind: str, end: str) -> tuple[float, float]:
    """Return the range extended by a third at one end, on its own scale, but not across 0 or 1."""
    low, high = asked[kind]
    if kind.startswith("log"):
        more = (high / low) ** WIDER
        less, most = low / more, high * more
    else:
        more = WIDER * (high - low)
        less, most = low - more, high + more
    for limit in LIMITS:
        less = limit if less < limit <= low else less
        most = limit if high <= limit < most else most
    if step := asked.get("step", 1 if kind in ("int", "logint") else None):
        less, most = low - math.ceil((low - less) / step) * step, high + math.ceil((most - high) / step) * step
    less, most = (bound if step else float(f"{bound:.2g}") for bound in (less, most))
    return (less, high) if end == "lowest" else (low, most)
