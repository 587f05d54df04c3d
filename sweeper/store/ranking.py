"""The trials of a study in order, as rows of plain values and as CSV; without pandas, which takes half a second to
load.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
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
    "confirmed",
    "epoch",
    "epochs",
    "planned",
    "seconds",
    "backbone",
)
LAST = ("repeat_of", "failure", "error")
INTERVAL = 1.96  # standard errors to either side of a difference: a 95 % interval
OWN = dict.fromkeys((*COLUMNS, "minutes", *LAST))


@dataclass(frozen=True)
class Ranking:
    """One row per trial: the best value first, the earlier of equal values first, those without a value next, and
    FAILED last.

    Only COMPLETE trials can win, so only they have a `rank`. `tied` marks those that val cannot distinguish from the
    best, and is None if unknown. `confirmed` is the mean over new seeds. `epoch` is the one that counts, from 1.
    Parameters have a column each, after `backbone`.
    """

    columns: list[str]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, results: Sequence[TrialResult], study: StudyFolder) -> "Ranking":
        """Return the ranking of `results`, with standard errors if they, or the predictions of `study`, give them."""
        labels = None if all(result.standard_error is not None for result in results) else _labels(study)
        names = list(dict.fromkeys(name for result in results for name in result.params if name != "backbone"))
        rows = [_row(result, names, labels) for result in sorted(results, key=order)]
        again = records.confirmed(study, results[0].metric) if results else {}
        complete = [row for row in rows if row["state"] == "COMPLETE"]
        for rank, row in enumerate(complete, 1):
            row["rank"] = rank
        for row in rows:
            row["confirmed"] = mean(again[row["trial"]]) if row["trial"] in again else None
        known = [row for row in complete if row["value"] is not None]
        _compare(known, lambda row: _resamples(study.trial(row["trial"]), results[0].metric))
        return cls([*COLUMNS, *map(_column, names), *LAST], rows)

    def csv(self) -> str:
        """Return the text of trials.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row[name]) for name in self.columns] for row in self.rows)
        return text.getvalue()


def order(result: TrialResult) -> tuple[bool, float, int]:
    """Return the sort key of a trial, best first."""
    return result.state == "FAILED", -result.oriented, result.number


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(result: TrialResult, names: Sequence[str], labels: int | None) -> dict[str, Any]:
    fixed = {
        "rank": None,
        "tied": None,
        "confirmed": None,
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
    """Return the column of a parameter, prefixed with `train.` if its name is that of another column."""
    return f"train.{name}" if name in COLUMNS or name in LAST else name


def parameter_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each parameter in the leaderboard: its short name; `backbone` has a fixed column."""
    columns = {name: name if name == "backbone" else _column(name) for name in names}
    short = short_names(column for column in columns.values() if column not in OWN)
    return {name: short.get(column, column) for name, column in columns.items()}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the shortest ending of each dotted name that no other name and no fixed column has."""
    known = list(names)
    return {name: next(end for end in ends(name) if _is_unique(end, name, known)) for name in known}


def ends(name: str) -> list[str]:
    """Return the endings of a dotted name, the shortest first."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1)] + [name]


def _is_unique(end: str, name: str, known: Sequence[str]) -> bool:
    others = (other for other in known if other != name)
    return end == name or (end not in OWN and not end.isdigit() and all(end not in ends(other) for other in others))


def _labels(study: StudyFolder) -> int | None:
    """Return the number of val answers behind the overall accuracy; None if no trial has left its predictions.

    These are the answers of the categories with one answer: images x categories, less the missing ones.
    """
    for _, folder in records.folders(study):
        images = _length(folder.val_logits)
        if images and (epochs := records.history(folder)) and (val := epochs[-1].val):
            names = _single(study, val)
            return None if names is None else sum(val.category_answers.get(name, images) for name in names)
    return None


def _single(study: StudyFolder, val: Scores) -> list[str] | None:
    """Return the categories with one answer; None if unknown."""
    if val.mean_average_precision is None:
        return list(val.category_accuracy)
    from trainers.data.summary import Summary

    summary = jsonfile.read(study.data, Summary)
    return [one.name for one in summary.categories if not one.multi] if summary else None


def _length(path: Path) -> int | None:
    """Return the number of images in a file of predictions; None if it is missing or damaged, as another trial's will
    do.
    """
    import numpy as np

    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except (OSError, ValueError, EOFError):
        return None


def _standard_error(result: TrialResult, labels: int | None) -> float | None:
    """Return the recorded standard error; otherwise, for the overall accuracy, a proportion, sqrt(p (1 - p) / n)."""
    if result.standard_error is not None:
        return result.standard_error
    if result.metric != "overall_accuracy" or result.value is None or not labels:
        return None
    return math.sqrt(max(0.0, result.value * (1 - result.value)) / labels)


def _compare(complete: Sequence[dict[str, Any]], resamples: "Callable[[dict[str, Any]], np.ndarray | None]") -> None:
    """Mark the rows that are tied with the first: the 95 % interval of the difference includes 0.

    The interval comes from paired differences in the same resamples of val. Without those, a trial is tied if it is
    within one standard error of the best. If that is unknown too, nothing is marked.
    """
    if not complete or (error := complete[0]["standard_error"]) is None:
        return
    best = resamples(complete[0])
    for row in complete:
        behind, other = abs(complete[0]["value"] - row["value"]), row["standard_error"]
        if other is not None and behind > INTERVAL * (error + other):  # an upper bound on the error of a difference
            row["tied"] = False
        else:
            row["tied"] = _within(behind, error, best, resamples(row))


def _within(behind: float, error: float, best: "np.ndarray | None", other: "np.ndarray | None") -> bool:
    if best is None or other is None or best.shape != other.shape:
        return behind <= error
    return bool(behind <= INTERVAL * (best - other).std(ddof=1))


def tied(one: tuple[StudyFolder, TrialResult], other: tuple[StudyFolder, TrialResult]) -> bool | None:
    """True if val cannot distinguish trials of two studies on the same images, by the rule for one study; None if
    unknown.
    """
    first, second = one[1], other[1]
    if first.value is None or second.value is None or first.standard_error is None:
        return None
    pair = [_resamples(folder.trial(result.number), first.metric) for folder, result in (one, other)]
    return _within(abs(first.value - second.value), first.standard_error, *pair)


def _resamples(folder: RunFolder, metric: str) -> "np.ndarray | None":
    """Return a metric in resamples of val; None if the trial has left none or the file is damaged."""
    from trainers.support.checksummed import load_array

    try:
        found = load_array(folder.val_bootstrap)
    except (FileNotFoundError, EnvironmentFault):
        return None
    return found[metric].astype("f8") if metric in (found.dtype.names or ()) else None


def tables(folder: StudyFolder) -> list[Path]:
    """Rewrite trials.csv; return the files to show with the study."""
    results = records.results(folder)
    try:
        if results:
            files.write_text(folder.table, Ranking.of(results, folder).csv())
    except OSError as error:  # on a full disk the previous table stays
        if not files.full(error):
            raise
    return [folder.table] if results and folder.table.exists() else []
