"""The leaderboard of a study as a table or a JSON document: the only place that uses pandas."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles, stdev
from typing import TYPE_CHECKING, Any

from sweeper.errors import UserError
from sweeper.results import columns
from sweeper.results.columns import Board, counting_scores, full_name
from sweeper.space.tree import flow
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import COLUMNS, LAST, Ranking, order
from sweeper.store.records import best
from sweeper.trial import TrialResult

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


def frame(results: Sequence[TrialResult], study: StudyFolder) -> "pd.DataFrame":
    """Return the rows of `Ranking` as a data frame; unknown values are missing."""
    import pandas as pd

    ranking = Ranking.of(results, study)
    table = pd.DataFrame(ranking.rows, columns=ranking.columns)
    return table.astype({"rank": "Int64", "tied": "boolean", "epoch": "Int64", "repeat_of": "Int64"})


# --------------------------------------------------------------------------------------- output
def document(results: Sequence[TrialResult], study: StudyFolder) -> dict[str, Any]:
    """Return the leaderboard as plain values for --json; params and category accuracies are nested objects."""
    rows = Ranking.of(results, study).rows
    params = {result.number: result.params for result in results}
    scores = counting_scores(study, results)
    accuracy = {number: one.category_accuracy for number, one in scores.items()}
    fixed = [{name: _plain(row[name]) for name in (*COLUMNS, *LAST)} for row in rows]
    trials = [
        row | {"params": params[row["trial"]], "category_accuracy": accuracy.get(row["trial"], {})} for row in fixed
    ]
    best = next((row["trial"] for row in fixed if row["rank"] == 1), None)
    metric = results[0].metric if results else None
    return {"schema_version": SCHEMA_VERSION, "study": study.name, "metric": metric, "best": best, "trials": trials}


def _plain(value: Any) -> Any:
    """Return a value for JSON: floats with six decimals, NaN and infinity as null."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


# --------------------------------------------------------------------------------------- two parameters crossed
ABSENT = "-"  # label for a trial without the parameter: its branch was not chosen
MOST_LABELS = 8  # up to this many distinct numbers are never binned


@dataclass(frozen=True)
class Cell:
    """The trials with one pair of values: `value` is their best, or the mean over a third parameter.

    `state` is COMPLETE if one of them is; otherwise that of the best one, whose value then means less.
    """

    value: float | None
    standard_error: float | None  # of that mean
    completed: int
    trials: int
    state: str

    def __str__(self) -> str:
        shown = columns.value(self.value, self.standard_error)
        if self.state != "COMPLETE":
            return f"{shown} ({self.state.lower()})".lstrip()
        return shown if self.completed == self.trials else f"{shown} ({self.completed} of {self.trials})"


@dataclass(frozen=True)
class Cross:
    """A metric by the parameters `rows` and `columns`; cells are means over a third one, `over`, if it is set."""

    metric: str
    rows: str
    columns: str
    over: str | None
    labels: tuple[tuple[str, ...], tuple[str, ...]]
    cells: tuple[tuple[Cell | None, ...], ...]

    @property
    def title(self) -> str:
        count = f"mean ± standard error over {self.over}" if self.over else "the best of each cell"
        return f"{self.metric}, {self.rows} down, {self.columns} across: {count}"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return headers and rows for people: untried cells are empty, and a column of means follows the seeds."""
        pairs = zip(self.labels[0], self.cells, strict=True)
        rows = [[name, *(str(cell or "") for cell in cells)] for name, cells in pairs]
        if self.columns != "seed":
            return [self.rows, *self.labels[1]], rows
        means = [str(_pooled(cells) or "") for cells in self.cells]
        return [self.rows, *self.labels[1], "mean"], [[*row, one] for row, one in zip(rows, means, strict=True)]

    def board(self) -> Board:
        """Return the table as a board, for other formats."""
        return Board(*self.table())

    def document(self) -> dict[str, Any]:
        """Return the table as plain values for --json; untried cells are null."""
        cells = [[vars(cell) if cell else None for cell in row] for row in self.cells]
        axes = zip(("rows", "columns"), (self.rows, self.columns), self.labels, strict=True)
        named = {axis: {"name": name, "values": list(labels)} for axis, name, labels in axes}
        return {"metric": self.metric, **named, "mean_over": self.over, "cells": cells}


def cross(results: Sequence[TrialResult], down: str, across: str) -> Cross:
    """Return the metric by two parameters, values in the order of the trials, numbers ascending.

    Numbers that few trials share are put into four bins at the quartiles. If there is exactly one further
    parameter, such as the seed, and no bins, each cell is the mean over it. Raises UserError for a name that is not
    a parameter.
    """
    names = _names(results)
    down, across = (_known(name, names) for name in (down, across))
    if down == across:
        raise UserError(f"{down} cannot be crossed with itself", help=f"the parameters are {', '.join(names)}")
    others = [name for name in names if name not in (down, across)]
    axes = _axis(results, down), _axis(results, across)
    over = others[0] if len(others) == 1 and not any(axis.binned for axis in axes) else None
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for result in results:
        groups.setdefault((axes[0].label(result), axes[1].label(result)), []).append(result)
    labels = axes[0].labels, axes[1].labels
    cells = tuple(tuple(_crossed(groups.get((row, column)), over) for column in labels[1]) for row in labels[0])
    return Cross(results[0].metric, down, across, over, labels, cells)


def grid(results: Sequence[TrialResult], study: StudyFolder) -> Cross | None:
    """Return the table for a study that is a grid over two parameters; None for any other study."""
    names, asked = _names(results), study_file.read(study)
    if len(names) != 2 or not asked or asked["search"]["sampler"]["name"] != "grid":
        return None
    return cross(results, *names)


def _names(results: Sequence[TrialResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.params))


def _known(name: str, names: Sequence[str]) -> str:
    if not names:
        raise UserError(f"there is no parameter '{name}' in this study", help="all its values were fixed")
    return full_name(name, names, "parameter")


@dataclass(frozen=True)
class Axis:
    """A parameter as rows or columns: the label of each value, in display order."""

    name: str
    by_value: Mapping[str, str]  # by the value as one line of YAML
    binned: bool

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.by_value.values()))

    def label(self, result: TrialResult) -> str:
        return self.by_value[_written(result, self.name)]


def _axis(results: Sequence[TrialResult], name: str) -> Axis:
    found = {_written(result, name): result.params.get(name) for result in sorted(results, key=lambda r: r.number)}
    numbers = {text: float(text) for text, value in found.items() if _is_number(value)}
    if len(numbers) > MOST_LABELS and len(numbers) > len(results) / 2:
        bins = _bins(sorted(numbers.values()))
        binned = {text: bins[number] for text, number in sorted(numbers.items(), key=lambda pair: pair[1])}
        return Axis(name, binned | {text: text for text in found if text not in numbers}, binned=True)
    ordered = sorted(found, key=float) if len(numbers) == len(found) else list(found)
    return Axis(name, _short({text: found[text] for text in ordered}), binned=False)


def _short(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the label of each value: fractions with three digits, unless two labels would be equal."""
    short = {text: f"{value:.3g}" if isinstance(value, float) else text for text, value in values.items()}
    return short if len(set(short.values())) == len(short) else {text: text for text in values}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bins(numbers: Sequence[float]) -> dict[float, str]:
    """Return the label of the quartile of each ascending number, such as `0.001 to 0.0042`."""
    edges = quantiles(numbers, n=4, method="inclusive")
    groups: dict[int, list[float]] = {}
    for number in numbers:
        groups.setdefault(bisect_left(edges, number), []).append(number)
    return {number: f"{group[0]:.3g} to {group[-1]:.3g}" for group in groups.values() for number in group}


def _written(result: TrialResult, name: str) -> str:
    return flow(result.params[name]) if name in result.params else ABSENT


def _pooled(cells: Sequence[Cell | None]) -> Cell | None:
    """Return the mean over the completed cells of a row."""
    started = [cell for cell in cells if cell]
    values = [cell.value for cell in started if cell.state == "COMPLETE" and cell.value is not None]
    return Cell(mean(values), _error(values), len(values), len(started), "COMPLETE") if values else None


def _error(values: Sequence[float]) -> float | None:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _crossed(found: Sequence[TrialResult] | None, over: str | None) -> Cell | None:
    if not found:
        return None
    values = [one.value for one in found if one.state == "COMPLETE" and one.value is not None]
    top = best(found) or min(found, key=order)
    if not values:
        return Cell(top.value, None, 0, len(found), top.state)
    error = _error(values) if over else None
    return Cell(mean(values) if over else top.value, error, len(values), len(found), "COMPLETE")
