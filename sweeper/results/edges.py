"""Open values whose best trials crowd at an end of their range, each with the range to try."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.space.compare import opened
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.trial import TrialResult

BEST, CROWD, LEAST = 5, 4, 10  # best trials; of them at the end; trials that completed
END, WIDER, LIMITS = (
    0.1,
    1 / 3,
    (0.0, 1.0),
)  # shares of a range: its end, and what is added; where most quantities end
RANGES = ("uniform", "loguniform", "int", "logint")


@dataclass(frozen=True)
class Edge:
    """A range near whose end `count` of the BEST best trials lie, and at most half of the others."""

    name: str
    end: str  # lowest or highest
    count: int
    range: tuple[float, float]
    wider: tuple[float, float]

    def __str__(self) -> str:
        return f"at an edge: {self.advice}"

    @property
    def advice(self) -> str:
        """What was found, and what to do."""
        (low, high), (less, more) = ([f"{end:.3g}" for end in ends] for ends in (self.range, self.wider))
        where = f"{self.count} of the {BEST} best trials lie in the {self.end} tenth of {low} to {high}"
        return f"{self.name}, {where}; try {less} to {more} with --new-study NAME"

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json."""
        return asdict(self)


def edges(study: StudyFolder, results: Sequence[TrialResult]) -> list[Edge]:
    """The open values of a study that crowd, in the order of its file; none before LEAST trials have completed."""
    done = [one for one in results if one.state == "COMPLETE" and math.isfinite(one.oriented)]
    if len(done) < LEAST:
        return []
    ranked = sorted(done, key=lambda one: one.oriented, reverse=True)
    asked = opened(study_file.identity(study).get("train"))
    return [edge for name, each in asked.items() for edge in _edges(name, each, ranked)]


def _edges(name: str, asked: Mapping[str, Any], ranked: Sequence[TrialResult]) -> Iterator[Edge]:
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
            yield Edge(name, end, sum(best), (low, high), wider)


def _place(value: float, low: float, high: float, *, log: bool) -> float:
    """Where a value lies in its range, from 0 to 1."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _wider(asked: Mapping[str, Any], kind: str, end: str) -> tuple[float, float]:
    """The range with a third of itself more at one end, on its own scale, but not beyond 0 or 1."""
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
