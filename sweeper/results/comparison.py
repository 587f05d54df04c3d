"""Two studies side by side: what they ask, how good they were after as many trials, and their winners."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.results import winner
from sweeper.results.columns import value
from sweeper.space.compare import difference
from sweeper.store import records, study_file
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.text import format_value
from sweeper.trial import TrialResult


@dataclass(frozen=True)
class Side:
    """One of the two studies."""

    study: StudyFolder
    identity: dict[str, Any]
    results: Sequence[TrialResult]

    @classmethod
    def of(cls, study: StudyFolder) -> "Side":
        return cls(study, (study_file.read(study) or {}).get("identity", {}), records.results(study))

    @property
    def best_so_far(self) -> list[float | None]:
        """The best value of the completed trials after 1, 2, 3... trials, by number."""
        best: TrialResult | None = None
        found = []
        for one in self.results:
            best = records.best(filter(None, (best, one)))
            found.append(best.value if best else None)
        return found

    @property
    def winner(self) -> dict[str, Any] | None:
        """The row of the winner, as `sweep best` has it, in the ranking."""
        try:
            number = winner.winner(self.study).result.number
        except NoResult:
            return None
        return next(row for row in Ranking.of(self.results, self.study).rows if row["trial"] == number)


@dataclass(frozen=True)
class Comparison:
    """Study A beside study B."""

    a: Side
    b: Side

    @property
    def metric(self) -> str:
        return str(self.a.identity["metric"])

    @property
    def differences(self) -> list[str]:
        """One line for each value in which they differ, `A -> B`."""
        return difference(self.a.identity, self.b.identity)

    @property
    def counts(self) -> list[int]:
        """After how many trials the two are shown: 1, 2, 5, 10, 20, 50... and at the end of each."""
        lengths = [len(self.a.results), len(self.b.results)]
        steps = [step * 10**power for power in range(6) for step in (1, 2, 5)]
        return sorted({*(step for step in steps if step < max(lengths)), *lengths} - {0})

    def tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, headers and rows: best so far, and the winners."""
        names = [self.a.study.name, self.b.study.name]
        so_far = self.a.best_so_far, self.b.best_so_far
        rows = [[str(count), *(_after(count, values) for values in so_far)] for count in self.counts]
        yield f"best {self.metric} so far", ["trials", *names], rows
        winners = self.a.winner, self.b.winner
        shown = [
            [label, *(_shown(won, name) for won in winners)]
            for label, name in (("trial", "trial"), (self.metric, "value"), ("backbone", "backbone"))
        ]
        params = [
            next((one.params for one in side.results if won and one.number == won["trial"]), {})
            for side, won in zip((self.a, self.b), winners, strict=True)
        ]
        names_of_params = [name for name in dict.fromkeys([*params[0], *params[1]]) if name != "backbone"]
        shown += [[name, *(_cell(each.get(name)) for each in params)] for name in names_of_params]
        yield "winners", ["", *names], shown

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json."""
        sides = {
            name: {"study": side.study.name, "best_so_far": side.best_so_far, "winner": side.winner}
            for name, side in (("a", self.a), ("b", self.b))
        }
        return {"schema_version": 1, "metric": self.metric, "differences": self.differences, **sides}


def comparison(a: StudyFolder, b: StudyFolder) -> Comparison:
    """A beside B. Raises UserError where they have different metrics."""
    made = Comparison(Side.of(a), Side.of(b))
    first, second = (str(side.identity.get("metric")) for side in (made.a, made.b))
    if first != second:
        raise UserError(
            f"{a.name} is ranked by {first} and {b.name} by {second}: their values cannot be compared",
            where="sweep compare",
            help=f"sweep leaderboard {b.name} --by {first} ranks one by the metric of the other",
        )
    return made


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
