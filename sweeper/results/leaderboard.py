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
    """The rows of `Ranking` as a table; what is not known is missing in it."""
    import pandas as pd

    ranking = Ranking.of(results, study)
    table = pd.DataFrame(ranking.rows, columns=ranking.columns)
    return table.astype({"rank": "Int64", "tied": "boolean", "epoch": "Int64", "repeat_of": "Int64"})


# --------------------------------------------------------------------------------------- ways out
def document(results: Sequence[TrialResult], study: StudyFolder) -> dict[str, Any]:
    """The same as plain values for --json; params, and the accuracy by category, stand in objects of their own."""
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
    """As JSON has it: six decimals, and null for what is no number."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


# --------------------------------------------------------------------------------------- two values crossed
ABSENT = "-"  # label of an open value that a trial does not have: its branch was not chosen
MOST_LABELS = 8  # numbers that stand by themselves, however few trials share them


@dataclass(frozen=True)
class Cell:
    """What the trials with one pair of values came to: `value` is their best, or the mean over a third open value.

    `state` is COMPLETE if one of them is; else that of the best one, whose value then counts for less.
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
    """A metric by the open values `rows` and `columns`; `over` is the third one that its cells are means over."""

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
        """Headers and rows as people read them, what no trial tried empty; beside seeds stands their mean."""
        pairs = zip(self.labels[0], self.cells, strict=True)
        rows = [[name, *(str(cell or "") for cell in cells)] for name, cells in pairs]
        if self.columns != "seed":
            return [self.rows, *self.labels[1]], rows
        means = [str(_pooled(cells) or "") for cells in self.cells]
        return [self.rows, *self.labels[1], "mean"], [[*row, one] for row, one in zip(rows, means, strict=True)]

    def board(self) -> Board:
        """The same for whoever writes it elsewhere."""
        return Board(*self.table())

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json; null is what no trial tried."""
        cells = [[vars(cell) if cell else None for cell in row] for row in self.cells]
        axes = zip(("rows", "columns"), (self.rows, self.columns), self.labels, strict=True)
        named = {axis: {"name": name, "values": list(labels)} for axis, name, labels in axes}
        return {"metric": self.metric, **named, "mean_over": self.over, "cells": cells}


def cross(results: Sequence[TrialResult], down: str, across: str) -> Cross:
    """The metric by two open values, in the order of the trials, numbers ascending.

    Numbers that hardly any two trials share are put into four bins of as many trials each. Where there is a third
    open value and no fourth, such as the seed, and no bins, a cell is the mean over it. UserError where a value was
    not open.
    """
    names = _names(results)
    down, across = (_known(name, names) for name in (down, across))
    if down == across:
        raise UserError(f"{down} cannot be crossed with itself", help=f"the open values are {', '.join(names)}")
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
    """The table of a study that is a grid over two open values, which asks for one; None for any other study."""
    names, asked = _names(results), study_file.read(study)
    if len(names) != 2 or not asked or asked["search"]["sampler"]["name"] != "grid":
        return None
    return cross(results, *names)


def _names(results: Sequence[TrialResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.params))


def _known(name: str, names: Sequence[str]) -> str:
    if not names:
        raise UserError(f"there is no open value '{name}' in this study", help="it was a closed recipe")
    return full_name(name, names, "open value")


@dataclass(frozen=True)
class Axis:
    """An open value as rows or columns: the label of each value, in the order in which they stand."""

    name: str
    by_value: Mapping[str, str]  # from a value on one line of YAML
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
    return Axis(name, {text: text for text in ordered}, binned=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bins(numbers: Sequence[float]) -> dict[float, str]:
    """Which quartile each of the ascending numbers lies in, as `0.001 to 0.0042`."""
    edges = quantiles(numbers, n=4, method="inclusive")
    groups: dict[int, list[float]] = {}
    for number in numbers:
        groups.setdefault(bisect_left(edges, number), []).append(number)
    return {number: f"{group[0]:.3g} to {group[-1]:.3g}" for group in groups.values() for number in group}


def _written(result: TrialResult, name: str) -> str:
    return flow(result.params[name]) if name in result.params else ABSENT


def _pooled(cells: Sequence[Cell | None]) -> Cell | None:
    """The mean over the cells of a row whose trials completed."""
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
