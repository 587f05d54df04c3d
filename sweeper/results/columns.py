"""The columns of a leaderboard for people: short names, parameters that vary, metrics of every trial."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sweeper.errors import UserError
from sweeper.space.tree import flow
from sweeper.store import jsonfile, records
from sweeper.store.importance import Importance, ordered
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import COLUMNS, LAST, OWN, Ranking, ends, short_names
from sweeper.store.studies import FinalRun, StudyStatus
from sweeper.text import format_value, join_or, plain
from sweeper.trial import TrialResult
from trainers.epoch import Scores
from trainers.metrics.definitions import minimizes

FIRST = ("rank", "trial", "value")
FIXED = ("state", "epochs", "minutes", "backbone")


# -------------------------------------------------------------------------------------------- names
def full_name(given: str, names: Sequence[str], what: str) -> str:
    """Return the name that `given` stands for: itself, with or without `train.`, or an unambiguous end of a name.

    Raises UserError, with the nearest names, if there is none.
    """
    plain = given.removeprefix("train.")
    for whole in (given, plain, f"train.{given}"):
        if whole in names:
            return whole
    found = [name for name in names if plain in ends(name)]
    if len(found) > 1:
        raise UserError(f"'{given}' is ambiguous: {join_or(found)}", help="write more of the name")
    if not found:
        raise UserError(f"there is no {what} '{given}' in this study", help=nearest(plain, names))
    return found[0]


def nearest(given: str, names: Sequence[str]) -> str:
    """Return a hint with the names most similar to `given`, or with all names if none is."""
    found = {end: name for name in names for end in ends(name)}
    near = dict.fromkeys(found[end] for end in get_close_matches(given, found, n=3, cutoff=0.6))
    return f"did you mean {join_or([repr(name) for name in near])}?" if near else f"choose from {', '.join(names)}"


# ------------------------------------------------------------------------------------------ metrics
def metrics(study: StudyFolder, results: Sequence[TrialResult]) -> dict[int, dict[str, float]]:
    """Return every metric of each trial at the epoch that counts, with the loss and the accuracy of each category."""
    scores = counting_scores(study, results)
    return {number: one.metrics | {"loss": one.loss} | one.category_accuracy for number, one in scores.items()}


def counting_scores(study: StudyFolder, results: Sequence[TrialResult]) -> dict[int, Scores]:
    """Return the scores of each trial on val at the epoch that counts, or on train if there is no val."""
    found = {one.number: records.history(study.trial(one.number))[: one.epoch] for one in results if one.epoch}
    return {number: epochs[-1].val or epochs[-1].train for number, epochs in found.items() if epochs}


def by(metric: str, study: StudyFolder, results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the results with another metric of the same epoch as value. Raises UserError if none recorded it."""
    if not results or metric == results[0].metric:
        return list(results)
    known = metrics(study, results)
    metric = full_name(metric, list(dict.fromkeys(name for each in known.values() for name in each)), "metric")
    change = {"metric": metric, "minimize": metric == "loss" or _minimized(metric, study, results[0])}
    return [one.model_copy(update=change | {"value": known.get(one.number, {}).get(metric)}) for one in results]


def _minimized(metric: str, study: StudyFolder, one: TrialResult) -> bool:
    """True if less is better; for a metric of an extension file, this is known if recipes choose epochs by it."""
    job = records.read_config(study.trial(one.number))
    if job and job.recipe.train.selection == metric:
        return job.recipe.minimize_selection
    return minimizes(metric)


# -------------------------------------------------------------------------------------------- board
@dataclass(frozen=True)
class Board:
    """A table for people: headers as they are typed in options, and cells."""

    headers: list[str]
    rows: list[list[str]]

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        rule = ["---"] * len(self.headers)
        lines = [self.headers, rule, *self.rows]
        return [f"| {' | '.join(map(plain, line))} |" for line in lines]

    def csv(self) -> str:
        """Return the table as CSV."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.headers, *self.rows])
        return file.getvalue()


def board(ranking: Ranking, mattered: Importance | None = None) -> Board:
    """Return rank, trial, value, the parameters that vary (the most important first), and the fixed columns.

    `~` marks trials tied with the best; a failed trial shows its reason.
    """
    rows = ranking.rows
    names = ordered((name for name in parameters(ranking) if _varies(rows, name)), mattered)
    again = ["confirmed"] if any(row["confirmed"] is not None for row in rows) else []
    counts = ["epoch"] if any(row["epoch"] and row["epoch"] < row["epochs"] for row in rows) else []
    fixed = [name for name in FIXED if name not in names]
    rare = [name for name in ("repeat_of", "error") if any(row[name] is not None for row in rows)]
    return shown(ranking, [*FIRST, *again, *names, fixed[0], *counts, *fixed[1:], *rare])


def parameters(ranking: Ranking) -> list[str]:
    """Return the columns of parameters; the backbone is one of them if trials differ in it."""
    own = ranking.columns[len(COLUMNS) : len(ranking.columns) - len(LAST)]
    return [*(["backbone"] if _varies(ranking.rows, "backbone") else []), *own]


def _varies(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({flow(row[name]) for row in rows if row.get(name) is not None}) > 1


def shown(ranking: Ranking, names: Sequence[str]) -> Board:
    """Return a table of these columns, with parameters under their short names."""
    short = short_names(name for name in parameters(ranking) if name not in OWN)
    formats = {name: ".3g" if name in ranking.columns else ".4f" for name in names}  # parameters, and metrics
    rows = [[_cell(name, row, formats[name]) for name in names] for row in ranking.rows]
    return Board([short.get(name, name) for name in names], rows)


def chosen(ranking: Ranking, names: str, known: Mapping[int, Mapping[str, float]]) -> tuple[Ranking, list[str]]:
    """Return the columns named in a comma-separated list, and a ranking that includes the metrics of `known`.

    Raises UserError if there is no such column.
    """
    further = [name for name in dict.fromkeys(name for each in known.values() for name in each) if name not in OWN]
    there = list(dict.fromkeys([*OWN, *ranking.columns, *further]))
    wanted = [full_name(name.strip(), there, "column") for name in names.split(",")]
    rows = [{name: known.get(row["trial"], {}).get(name) for name in further} | row for row in ranking.rows]
    return Ranking(ranking.columns, rows), wanted


def as_csv(ranking: Ranking, names: Sequence[str]) -> str:
    """Return only these columns as CSV, in the format of trials.csv."""
    if "minutes" in names:
        ranking = Ranking(ranking.columns, [{**row, "minutes": row["seconds"] / 60} for row in ranking.rows])
    return Ranking(list(names), ranking.rows).csv()


# ------------------------------------------------------------------------------------------ final models
def ledger(one: StudyStatus) -> Board:
    """Return the final models of a study: one row per board score, or one for a model without a score."""
    results = {result.number: result for result in one.results}
    rows = []
    for final in one.finals:
        test = jsonfile.read(final.folder.test_scores, Scores)
        known = [
            _on_val(final, one.metric, results.get(final.trial)),
            format_value(test.metrics.get(one.metric), test.standard_errors.get(one.metric)) if test else "-",
        ]
        fixed = [str(final.number), final.models, *known]
        scores = [[f"{score['value']:g}", score.get("note", "")] for score in final.scores]
        rows += [[*fixed, *score] for score in scores or [["" if final.done else "not finished", ""]]]
    return Board(["final", "trial", "val", "test", "board", "note"], rows)


def _on_val(final: FinalRun, metric: str, trial: TrialResult | None) -> str:
    """Return the score on val from before the model was trained on val, too; `-` if another seed was trained."""
    if final.ensemble and final.ensemble.val:
        val = final.ensemble.val
        return format_value(val.metrics.get(metric), val.standard_errors.get(metric))
    own = final.seed is None and not final.ensemble
    return format_value(trial.value, trial.standard_error) if trial and own else "-"


def _cell(name: str, row: Mapping[str, Any], format: str) -> str:
    match name:
        case "rank":
            return f"{row['rank'] or ''}{'~' if row['tied'] else ''}"
        case "confirmed":
            return value(row["confirmed"], None)
        case "value":
            return value(row["value"], row["standard_error"])
        case "epochs":
            return f"{row['epochs']}/{row['planned']}"
        case "minutes":
            return f"{row['seconds'] / 60:.1f}"
    found = row[name]
    if found is None:
        return ""
    return f"{found:{format}}" if isinstance(found, float) else str(found)


def value(found: float | None, error: float | None) -> str:
    """Return a value with its standard error, if known."""
    return "" if found is None or found != found else format_value(found, error)
