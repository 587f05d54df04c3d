"""The leaderboard of a study as a table, a JSON document or CSV: the only place that uses pandas."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper import record
from sweeper.paths import StudyFolder
from sweeper.trial import TrialResult

SCHEMA_VERSION = 1
COLUMNS = (
    "rank",
    "trial",
    "state",
    "value",
    "standard_error",
    "tied",
    "best_epoch",
    "epochs",
    "planned",
    "seconds",
    "backbone",
)
LAST = ("repeat_of", "trouble", "error")


def frame(results: Sequence[TrialResult], study: StudyFolder) -> pd.DataFrame:
    """A row a trial, best value first and the earlier of equals, those without a value after them, FAILED last.

    Only COMPLETE trials can win, so only they have a `rank`; `tied` says which of them are within one standard error
    of the best. `best_epoch` is 1 for the first epoch. A column for every open value stands after `backbone`.
    """
    labels = _labels(study)
    ordered = sorted(results, key=_order)
    names = list(dict.fromkeys(name for result in results for name in result.params if name != "backbone"))
    rows = [_row(result, names, labels) for result in ordered]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *map(_column, names), *LAST])
    complete = table["state"].eq("COMPLETE")
    table["rank"] = complete.cumsum().where(complete).astype("Int64")
    table["tied"] = _tied(table, complete)
    return table.astype({"best_epoch": "Int64", "repeat_of": "Int64"})


def _order(result: TrialResult) -> tuple[bool, float, int]:
    value = -math.inf if result.value is None or math.isnan(result.value) else result.value
    return result.state == "FAILED", -value, result.number


def _row(result: TrialResult, names: Sequence[str], labels: int | None) -> dict[str, Any]:
    fixed = {
        "trial": result.number,
        "state": result.state,
        "value": result.value,
        "standard_error": _standard_error(result, labels),
        "best_epoch": None if result.best_epoch is None else result.best_epoch + 1,
        "epochs": result.epochs,
        "planned": result.planned,
        "seconds": round(result.seconds, 1),
        "backbone": result.backbone,
        "repeat_of": result.repeat_of,
        "trouble": result.trouble,
        "error": result.error,
    }
    return fixed | {_column(name): result.params.get(name) for name in names}


def _column(name: str) -> str:
    """An open value's column; `train.` tells one from a column of ours that is called the same."""
    return f"train.{name}" if name in COLUMNS or name in LAST else name


def _labels(study: StudyFolder) -> int | None:
    """Number of labels in val (images x categories), if a trial has left its predictions."""
    for _, folder in record.folders(study):
        if folder.val_logits.exists() and (epochs := record.history(folder)) and (val := epochs[-1].val):
            return _length(folder.val_logits) * len(val.category_accuracy)
    return None


def _length(path: Any) -> int:
    import numpy as np

    return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])


def _standard_error(result: TrialResult, labels: int | None) -> float | None:
    """Of a share: sqrt(p (1 - p) / n). Known for the overall accuracy alone, the only goal that is one share."""
    if result.goal != "overall_accuracy" or result.value is None or not labels:
        return None
    return math.sqrt(max(0.0, result.value * (1 - result.value)) / labels)


def _tied(table: pd.DataFrame, complete: "pd.Series[bool]") -> "pd.Series[Any]":
    ranked = table[complete]
    if ranked.empty or pd.isna(ranked["standard_error"].iloc[0]):
        return pd.Series([None] * len(table), index=table.index, dtype="boolean")
    near: pd.Series[Any] = table["value"] >= ranked["value"].iloc[0] - ranked["standard_error"].iloc[0]
    return near.where(complete).astype("boolean")


# --------------------------------------------------------------------------------------- ways out
def document(results: Sequence[TrialResult], study: StudyFolder) -> dict[str, Any]:
    """The same as plain values for --json; params stand in an object of their own."""
    table = frame(results, study)
    params = {result.number: result.params for result in results}
    fixed = json.loads(table[[*COLUMNS, *LAST]].to_json(orient="records", double_precision=6))
    trials = [row | {"params": params[row["trial"]]} for row in fixed]
    best = next((row["trial"] for row in fixed if row["rank"] == 1), None)
    goal = results[0].goal if results else None
    return {"schema_version": SCHEMA_VERSION, "study": study.name, "goal": goal, "best": best, "trials": trials}


def csv(results: Sequence[TrialResult], study: StudyFolder) -> str:
    """The same as text for trials.csv."""
    return frame(results, study).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headers and rows as people read them; `~` marks what is tied with the best, failures tell their reason."""
    shown = table.assign(
        rank=[_rank(*pair) for pair in zip(table["rank"], table["tied"], strict=True)],
        value=[_value(*pair) for pair in zip(table["value"], table["standard_error"], strict=True)],
        epochs=[f"{done}/{planned}" for done, planned in zip(table["epochs"], table["planned"], strict=True)],
        minutes=[f"{seconds / 60:.1f}" for seconds in table["seconds"]],
    )
    params = list(table.columns[len(COLUMNS) : -len(LAST)])
    wanted = ["rank", "trial", "state", "value", "best_epoch", "epochs", "minutes", "backbone", *params]
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
