"""Studies side by side: their search spaces, their best values after equal numbers of trials, and their winners."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.results import winner
from sweeper.results.columns import value
from sweeper.space.compare import identity_difference
from sweeper.store import records, study_file
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking, tied
from sweeper.store.studies import StudyStatus
from sweeper.text import format_value
from sweeper.trial import TrialResult


@dataclass(frozen=True)
class Side:
    """One of the studies that are compared."""

    study: StudyFolder
    identity: dict[str, Any]
    results: Sequence[TrialResult]
    fingerprint: str = ""  # of its images, labels and splits

    @classmethod
    def of(cls, study: StudyFolder) -> "Side":
        document = study_file.read(study) or {}
        identity, fingerprint = document.get("identity", {}), document.get("fingerprint") or ""
        return cls(study, identity, records.results(study), fingerprint)

    @property
    def best_so_far(self) -> list[float | None]:
        """The best value of the completed trials after 1, 2, 3... trials, by number."""
        best: TrialResult | None = None
        found = []
        for one in self.results:
            best = records.best(filter(None, (best, one)))
            found.append(best.value if best else None)
        return found

    def fixed(self, name: str) -> Any:
        """The value of a parameter that its search space fixes, of a part such as the loss its name; or None."""
        found = self.identity.get("train")
        for key in name.split("."):
            if not isinstance(found, dict):
                return None
            if key in found:
                found = found[key]
            elif found.get("name") != key:  # else the key names the branch, as in loss.focal.gamma
                return None
        found = found.get("name") if isinstance(found, dict) else found
        return None if isinstance(found, list) else found

    @property
    def winner(self) -> dict[str, Any] | None:
        """The row of the winner (as chosen by `sweep best`) in the ranking, or None."""
        try:
            number = winner.winner(self.study).result.number
        except NoResult:
            return None
        return next(row for row in Ranking.of(self.results, self.study).rows if row["trial"] == number)


@dataclass(frozen=True)
class Comparison:
    """Studies side by side, ranked by the same metric."""

    sides: tuple[Side, ...]

    @property
    def metric(self) -> str:
        return str(self.sides[0].identity["metric"])

    @property
    def caution(self) -> str | None:
        """A sentence if the values stand on different images or labels, or None."""
        first, *others = (side.fingerprint for side in self.sides)
        if all(study_file.same_fingerprint(first, other) for other in others):
            return None
        return "The images, labels or splits differ, so the values cannot be compared."

    def differences(self, other: Side) -> list[str]:
        """Return one line, `A -> B`, for each value in which another study differs from the first."""
        return identity_difference(self.sides[0].identity, other.identity)

    @property
    def best_so_far(self) -> dict[str, list[float | None]]:
        """The best value after 1, 2, 3... trials, by study."""
        return {side.study.name: side.best_so_far for side in self.sides}

    @property
    def counts(self) -> list[int]:
        """The numbers of trials to show values for: 1, 2, 5, 10, 20, 50..., and the length of each study."""
        lengths = [len(side.results) for side in self.sides]
        steps = [step * 10**power for power in range(6) for step in (1, 2, 5)]
        return sorted({*(step for step in steps if step < max(lengths)), *lengths} - {0})

    def tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield title, headers and rows of two tables: the best values so far, and the winners."""
        so_far = self.best_so_far
        rows = [[str(count), *(_after(count, values) for values in so_far.values())] for count in self.counts]
        yield f"best {self.metric} so far", ["trials", *so_far], rows
        yield "winners", ["", *so_far], self._winners()

    def _winners(self) -> list[list[str]]:
        winners = [side.winner for side in self.sides]
        shown = [
            [label, *(_shown(won, name) for won in winners)]
            for label, name in (("trial", "trial"), (self.metric, "value"), ("backbone", "backbone"))
        ]
        params = [
            next((one.params for one in side.results if won and one.number == won["trial"]), {})
            for side, won in zip(self.sides, winners, strict=True)
        ]
        names = [name for name in dict.fromkeys(name for each in params for name in each) if name != "backbone"]
        return shown + [
            [name, *(_cell(each.get(name, side.fixed(name))) for side, each in zip(self.sides, params, strict=True))]
            for name in names
        ]

    def document(self) -> dict[str, Any]:
        """Return the first two studies as plain values for --json."""
        sides = {
            name: {"study": side.study.name, "best_so_far": side.best_so_far, "winner": side.winner}
            for name, side in zip("ab", self.sides, strict=True)
        }
        return {
            "schema_version": 1,
            "metric": self.metric,
            "differences": self.differences(self.sides[1]),
            "caution": self.caution,
            **sides,
        }


def comparison(*studies: StudyFolder) -> Comparison:
    """Compare studies. Raises UserError if their metrics differ or a study is named twice."""
    if len({study.name for study in studies}) < len(studies):
        raise UserError(
            "a study cannot be compared with itself", where="sweep compare", help="name two different studies"
        )
    made = Comparison(tuple(map(Side.of, studies)))
    first = made.metric
    for side in made.sides:
        if (other := str(side.identity.get("metric"))) != first:
            raise UserError(
                f"{studies[0].name} is ranked by {first} and {side.study.name} by {other}: their values cannot be"
                " compared",
                where="sweep compare",
                help=f"sweep leaderboard {side.study.name} --by {first} ranks it by the other's metric",
            )
    return made


def headline(standings: Sequence[StudyStatus]) -> str:
    """Return a sentence on which study is ahead, with the best values."""
    known = sorted((one for one in standings if one.best), key=lambda one: -one.best.oriented if one.best else 0.0)
    if not known:
        return "No trial of these studies has completed yet."
    tops = [(one.study, one.best) for one in known if one.best]
    parts = ", ".join(f"{study.name} {format_value(top.value, top.standard_error)}" for study, top in tops)
    if len(known) == 1:
        return f"Only {known[0].study.name} has a completed trial: {known[0].metric} {parts} on val."
    even = tops[0][1].value == tops[1][1].value or tied(tops[0], tops[1])
    return f"{'No study' if even else tops[0][0].name} is ahead by {known[0].metric} on val: {parts}."


def _after(count: int, values: Sequence[float | None]) -> str:
    return format_value(values[count - 1]) if count <= len(values) else ""


def _shown(won: dict[str, Any] | None, name: str) -> str:
    if won is None:
        return "-"
    return value(won["value"], won["standard_error"]) if name == "value" else str(won[name])


def _cell(found: Any) -> str:
    if found is None:
        return "-"
    return f"{found:.3g}" if isinstance(found, float) else str(found)
