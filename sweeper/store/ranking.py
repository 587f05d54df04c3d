"""The trials of a study in order, as rows of plain values and as CSV; pandas takes half a second to load."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import EnvironmentFault
from sweeper.store import jsonfile, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import TrialResult
from trainers.epoch import Scores
from trainers.support import files

if TYPE_CHECKING:
    import numpy as np

COLUMNS = (
    "rank",
    "trial",
    "state",
    "value",
    "standard_error",
    "tied",
    "epoch",
    "epochs",
    "planned",
    "seconds",
    "backbone",
)
LAST = ("repeat_of", "failure", "error")
INTERVAL = 1.96  # standard errors of a difference to both sides of it: a 95 % interval
OWN = dict.fromkeys((*COLUMNS, "minutes", *LAST))


@dataclass(frozen=True)
class Ranking:
    """A row a trial, best value first and the earlier of equals, those without a value after them, FAILED last.

    Only COMPLETE trials can win, so only they have a `rank`; `tied` says which of them val cannot tell from the best,
    None where nobody knows. `epoch` is the one that counts, from 1. A column for every open value stands after
    `backbone`.
    """

    columns: list[str]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, results: Sequence[TrialResult], study: StudyFolder) -> "Ranking":
        """That of `results`, with standard errors as far as they, or predictions of `study`, give them."""
        labels = None if all(result.standard_error is not None for result in results) else _labels(study)
        names = list(dict.fromkeys(name for result in results for name in result.params if name != "backbone"))
        rows = [_row(result, names, labels) for result in sorted(results, key=order)]
        complete = [row for row in rows if row["state"] == "COMPLETE"]
        for rank, row in enumerate(complete, 1):
            row["rank"] = rank
        known = [row for row in complete if row["value"] is not None]
        _compare(known, lambda row: _resamples(study.trial(row["trial"]), results[0].metric))
        return cls([*COLUMNS, *map(_column, names), *LAST], rows)

    def csv(self) -> str:
        """As text for trials.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row[name]) for name in self.columns] for row in self.rows)
        return text.getvalue()


def order(result: TrialResult) -> tuple[bool, float, int]:
    """What trials are sorted by."""
    return result.state == "FAILED", -result.oriented, result.number


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(result: TrialResult, names: Sequence[str], labels: int | None) -> dict[str, Any]:
    fixed = {
        "rank": None,
        "tied": None,
        "trial": result.number,
        "state": result.state,
        "value": result.value,
        "standard_error": _standard_error(result, labels),
        "epoch": result.epoch,
        "epochs": result.epochs,
        "planned": result.planned,
        "seconds": round(result.seconds, 1),
        "backbone": result.backbone,
        "repeat_of": result.repeat_of,
        "failure": result.failure,
        "error": result.error,
    }
    return fixed | {_column(name): result.params.get(name) for name in names}


def _column(name: str) -> str:
    """An open value's column; `train.` tells one from a column of ours that is called the same."""
    return f"train.{name}" if name in COLUMNS or name in LAST else name


def parameter_names(names: Iterable[str]) -> dict[str, str]:
    """How a leaderboard calls each open value: by its short name; the backbone has a column of ours."""
    columns = {name: name if name == "backbone" else _column(name) for name in names}
    short = short_names(column for column in columns.values() if column not in OWN)
    return {name: short.get(column, column) for name, column in columns.items()}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The shortest end of each dotted name that no other name has, and that is no column of ours."""
    known = list(names)
    return {name: next(end for end in ends(name) if _is_unique(end, name, known)) for name in known}


def ends(name: str) -> list[str]:
    """The ends of a dotted name, the shortest first."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1)] + [name]


def _is_unique(end: str, name: str, known: Sequence[str]) -> bool:
    others = (other for other in known if other != name)
    return end == name or (end not in OWN and not end.isdigit() and all(end not in ends(other) for other in others))


def _labels(study: StudyFolder) -> int | None:
    """Answers of val that the overall accuracy is a share of, if a trial has left its predictions.

    They are those of the categories with one answer: images x categories, but for the answers that are missing.
    """
    for _, folder in records.folders(study):
        images = _length(folder.val_logits)
        if images and (epochs := records.history(folder)) and (val := epochs[-1].val):
            names = _single(study, val)
            return None if names is None else sum(val.category_answers.get(name, images) for name in names)
    return None


def _single(study: StudyFolder, val: Scores) -> list[str] | None:
    """The categories with one answer; None where nobody knows which they are."""
    if val.mean_average_precision is None:
        return list(val.category_accuracy)
    from trainers.data.summary import Summary

    summary = jsonfile.read(study.data, Summary)
    return [one.name for one in summary.categories if not one.multi] if summary else None


def _length(path: Path) -> int | None:
    """Images in a file of predictions; None where there is none, or one that is damaged: another trial's will do."""
    import numpy as np

    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except (OSError, ValueError, EOFError):
        return None


def _standard_error(result: TrialResult, labels: int | None) -> float | None:
    """The one on record; else, of the overall accuracy, which is one share, sqrt(p (1 - p) / n)."""
    if result.standard_error is not None:
        return result.standard_error
    if result.metric != "overall_accuracy" or result.value is None or not labels:
        return None
    return math.sqrt(max(0.0, result.value * (1 - result.value)) / labels)


def _compare(complete: Sequence[dict[str, Any]], resamples: "Callable[[dict[str, Any]], np.ndarray | None]") -> None:
    """Mark the rows that are tied with the first: the 95 % interval of the difference includes 0.

    It stands on the differences of both in the same resamples of val. Without these: whether the trial is within one
    standard error of the best. Nothing is marked where that is not known either.
    """
    if not complete or (error := complete[0]["standard_error"]) is None:
        return
    best = resamples(complete[0])
    for row in complete:
        behind, other = abs(complete[0]["value"] - row["value"]), row["standard_error"]
        if other is not None and behind > INTERVAL * (error + other):  # the error of a difference is no larger
            row["tied"] = False
        elif best is None or (same := resamples(row)) is None or same.shape != best.shape:
            row["tied"] = bool(behind <= error)
        else:
            row["tied"] = bool(behind <= INTERVAL * (best - same).std(ddof=1))


def _resamples(folder: RunFolder, metric: str) -> "np.ndarray | None":
    """A metric in resamples of val; None where a trial has left none, or a file that is damaged."""
    from trainers.support.checksummed import load_array

    try:
        found = load_array(folder.val_bootstrap)
    except (FileNotFoundError, EnvironmentFault):
        return None
    return found[metric].astype("f8") if metric in (found.dtype.names or ()) else None


def tables(folder: StudyFolder) -> list[Path]:
    """Write trials.csv anew; returns what is shown with the study."""
    results = records.results(folder)
    try:
        if results:
            files.write_text(folder.table, Ranking.of(results, folder).csv())
    except OSError as error:  # on a full disk the table of before stays
        if not files.full(error):
            raise
    return [folder.table] if results and folder.table.exists() else []
