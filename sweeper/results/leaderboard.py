"""The leaderboard of a study as a table or a JSON document: the only place that uses pandas."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import pandas as pd

from sweeper.errors import UserError
from sweeper.space.tree import flow
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import COLUMNS, LAST, Ranking, order
from sweeper.store.records import best
from sweeper.text import did_you_mean
from sweeper.trial import TrialResult

SCHEMA_VERSION = 1


def frame(results: Sequence[TrialResult], study: StudyFolder) -> pd.DataFrame:
    """The rows of `Ranking` as a table; what is not known is missing in it."""
    ranking = Ranking.of(results, study)
    table = pd.DataFrame(ranking.rows, columns=ranking.columns)
    return table.astype({"rank": "Int64", "tied": "boolean", "epoch": "Int64", "repeat_of": "Int64"})


# --------------------------------------------------------------------------------------- ways out
def document(results: Sequence[TrialResult], study: StudyFolder) -> dict[str, Any]:
    """The same as plain values for --json; params stand in an object of their own."""
    table = frame(results, study)
    params = {result.number: result.params for result in results}
    fixed = json.loads(table[[*COLUMNS, *LAST]].to_json(orient="records", double_precision=6))
    trials = [row | {"params": params[row["trial"]]} for row in fixed]
    best = next((row["trial"] for row in fixed if row["rank"] == 1), None)
    metric = results[0].metric if results else None
    return {"schema_version": SCHEMA_VERSION, "study": study.name, "metric": metric, "best": best, "trials": trials}


def cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headers and rows as people read them; `~` marks what is tied with the best, failures tell their reason."""
    shown = table.assign(
        rank=[_rank(*pair) for pair in zip(table["rank"], table["tied"], strict=True)],
        value=[_value(*pair) for pair in zip(table["value"], table["standard_error"], strict=True)],
        epochs=[f"{done}/{planned}" for done, planned in zip(table["epochs"], table["planned"], strict=True)],
        minutes=[f"{seconds / 60:.1f}" for seconds in table["seconds"]],
    )
    params = list(table.columns[len(COLUMNS) : -len(LAST)])
    chosen = ["epoch"] if (table["epoch"] < table["epochs"]).any() else []
    wanted = ["rank", "trial", "state", "value", *chosen, "epochs", "minutes", "backbone", *params]
    wanted += [name for name in ("repeat_of", "error") if table[name].notna().any()]
    rows = [[_cell(value) for value in row] for row in shown[wanted].itertuples(index=False)]
    return [name.replace("_", " ") for name in wanted], rows


def _rank(rank: Any, tied: Any) -> str:
    return "" if pd.isna(rank) else f"{rank}{'~' if pd.notna(tied) and tied else ''}"


def _value(value: float | None, error: float | None) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.4f}" + ("" if error is None or pd.isna(error) else f" ±{error:.4f}")


def _cell(value: Any) -> str:
    if value is None or (not isinstance(value, (list, dict)) and pd.isna(value)):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------------------- two values crossed
ABSENT = "-"  # label of an open value that a trial does not have: its branch was not chosen


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
        shown = _value(self.value, self.standard_error)
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

    def document(self) -> dict[str, Any]:
        """The same as plain values for --json; null is what no trial tried."""
        cells = [[vars(cell) if cell else None for cell in row] for row in self.cells]
        axes = zip(("rows", "columns"), (self.rows, self.columns), self.labels, strict=True)
        named = {axis: {"name": name, "values": list(labels)} for axis, name, labels in axes}
        return {"metric": self.metric, **named, "mean_over": self.over, "cells": cells}


def cross(results: Sequence[TrialResult], rows: str, columns: str) -> Cross:
    """The metric by two open values, in the order of the trials, numbers ascending.

    Where there is a third open value and no fourth, such as the seed, a cell is the mean over it. UserError where a
    value was not open.
    """
    names = _names(results)
    rows, columns = (_known(name, names) for name in (rows, columns))
    if rows == columns:
        raise UserError(f"{rows} cannot be crossed with itself", help=f"the open values are {', '.join(names)}")
    others = [name for name in names if name not in (rows, columns)]
    over = others[0] if len(others) == 1 else None
    labels = _labels_of(results, rows), _labels_of(results, columns)
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for result in results:
        groups.setdefault((_label(result, rows), _label(result, columns)), []).append(result)
    cells = tuple(tuple(_crossed(groups.get((row, column)), over) for column in labels[1]) for row in labels[0])
    return Cross(results[0].metric, rows, columns, over, labels, cells)


def grid(results: Sequence[TrialResult], study: StudyFolder) -> Cross | None:
    """The table of a study that is a grid over two open values, which asks for one; None for any other study."""
    names, asked = _names(results), study_file.read(study)
    if len(names) != 2 or not asked or asked["search"]["sampler"]["name"] != "grid":
        return None
    return cross(results, *names)


def _names(results: Sequence[TrialResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.params))


def _known(name: str, names: Sequence[str]) -> str:
    short = name.removeprefix("train.")
    if short not in names:
        known = f"the open values are {', '.join(names)}" if names else "it was a closed recipe"
        raise UserError(f"there is no open value '{name}' in this study", help=did_you_mean(short, names) or known)
    return short


def _label(result: TrialResult, name: str) -> str:
    return flow(result.params[name]) if name in result.params else ABSENT


def _labels_of(results: Sequence[TrialResult], name: str) -> tuple[str, ...]:
    found = {_label(result, name): result.params.get(name) for result in sorted(results, key=lambda r: r.number)}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found.values()):
        return tuple(sorted(found, key=float))
    return tuple(found)


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
