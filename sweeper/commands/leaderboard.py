"""`sweep leaderboard`: a study's trials as a table, CSV, Markdown or JSON, and the importance of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sweeper.errors import UserError
from sweeper.results import columns, importance, leaderboard, status
from sweeper.results.columns import Board
from sweeper.results.importance import Edge, edges
from sweeper.results.leaderboard import Cross
from sweeper.store import studies
from sweeper.store.importance import Importance
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.store.studies import StudyStatus
from sweeper.trial import TrialResult

MORE = "--columns NAME,... shows them, --csv has all"
"""Hint for columns that do not fit the terminal."""


@dataclass(frozen=True)
class Wanted:
    """The options of the leaderboard."""

    top: int | None = None
    cross: tuple[str, str] | None = None
    columns: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Standing:
    """The trials of a study, ranked by its metric or by the requested one."""

    status: StudyStatus
    wanted: Wanted
    results: Sequence[TrialResult]  # those of `status`, by the requested metric

    @property
    def nothing(self) -> str:
        """The reason that there are no trials."""
        name = self.status.study.name
        if any(final.done for final in self.status.finals):
            return f"{name} has a final model, but no trials: there was no time for a search"
        return f"no trial of {name} has started"

    @cached_property
    def importance(self) -> Importance | None:
        """The importance of parameters, by the study's own metric."""
        return importance.importance(self.status.study, self.status.results)

    @cached_property
    def edges(self) -> list[Edge]:
        """The parameters whose best trials crowd at one end of their range."""
        return edges(self.status.study, self.status.results)

    @property
    def remarks(self) -> list[str]:
        """The winner by new seeds, the importance and the edges, one line each."""
        won = status.confirmation(self.status)
        first = [f"winner: {won}"] if won else []
        return [*first, *([self.importance.line] if self.importance else []), *map(str, self.edges)]

    @cached_property
    def ledger(self) -> Board:
        """The final models and their board scores."""
        return columns.ledger(self.status)

    @cached_property
    def cross(self) -> Cross | None:
        """The table of two parameters that was requested, or that a grid study has."""
        if self.wanted.cross and self.results:
            return leaderboard.cross(self.results, *self.wanted.cross)
        return leaderboard.grid(self.results, self.status.study)

    def board(self) -> Board:
        """Return the table for people."""
        whole = self._chosen_board() if self.wanted.columns else self._usual_board()
        return replace(whole, rows=whole.rows[: self.wanted.top])

    def _chosen_board(self) -> Board:
        ranking, names = self._chosen(self._ranking)
        return columns.shown(ranking, names if "trial" in names else ["trial", *names])

    def _usual_board(self) -> Board:
        """Return every column in which trials differ, the most important parameters first."""
        board = columns.board(self._ranking, self.importance)
        metric = self.results[0].metric if self.wanted.by and self.results else "value"
        renamed = [metric if name == "value" else name for name in board.headers]
        return replace(board, headers=renamed)

    def csv(self) -> str:
        """Return every column, as in trials.csv, or the requested ones."""
        whole = self._ranking
        ranking = replace(whole, rows=whole.rows[: self.wanted.top])
        return columns.as_csv(*self._chosen(ranking)) if self.wanted.columns else ranking.csv()

    def document(self) -> dict[str, Any]:
        """Return the leaderboard as plain values for --json."""
        whole = leaderboard.document(self.results, self.status.study)
        more = {
            "cross": self.cross.document() if self.cross else None,
            "importance": self.importance.document() if self.importance else None,
            "winner": self.status.winner.number if self.status.winner else None,
            "edges": [edge.document() for edge in self.edges],
            "finals": status.document(self.status)["finals"],
        }
        return whole | {"trials": whole["trials"][: self.wanted.top]} | more

    @cached_property
    def _ranking(self) -> Ranking:
        return Ranking.of(self.results, self.status.study)

    def _chosen(self, ranking: Ranking) -> tuple[Ranking, list[str]]:
        return columns.chosen(ranking, self.wanted.columns or "", columns.metrics(self.status.study, self.results))


def standing(study: StudyFolder, wanted: Wanted) -> Standing:
    """Return the standing of the trials of `study`. Raises UserError if a requested value is not recorded."""
    if wanted.cross and wanted.columns:
        raise UserError("--columns and --cross are two tables", where="sweep leaderboard", help="use one of them")
    one = studies.status_of(study)
    return Standing(one, wanted, columns.by(wanted.by, study, one.results) if wanted.by else one.results)
