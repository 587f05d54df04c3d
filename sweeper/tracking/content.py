"""The content of a study in MLflow: names, metrics, tags, the note and the table view. Sends nothing itself."""

import json
import math
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any
from urllib.parse import quote

from sweeper.store.importance import Importance
from sweeper.store.records import best
from sweeper.text import code, plain, redacted
from sweeper.trial import OPEN, STATUS, Job, State, TrialResult
from trainers.epoch import Epoch, Scores
from trainers.metrics.definitions import SINGLE

MAX_KEY_LENGTH = 200  # characters of a key; MLflow takes 250, including a prefix
MAX_COLUMNS = 40  # of the table view; more would not fit into a tag
MAX_CLASSES = 200  # classes whose thresholds are listed in a tag
VALUE_WIDTH = 80  # pixels; leaves space for two parameters at 1280 pixels with MLflow's assistant open


@dataclass(frozen=True)
class Point:
    """Metrics at one time: `step` is the epoch's number from 1 (for a study: the trial), `time` is in ms."""

    step: int
    time: int
    figures: dict[str, float]


def points(job: Job, epochs: Sequence[Epoch]) -> list[Point]:
    """Return one point per epoch; equal epochs give equal points, so that sending them again adds none."""
    counts, found = epochs[0] if epochs else None, []
    for epoch in epochs:
        counts = max((counts, epoch), key=job.recipe.rank) if counts else epoch
        figures = _figures(job, epoch) | (_metric(job, epoch, counts) if epoch.val or job.kind != "final" else {})
        found.append(Point(epoch.number, _ms(epoch.time), _tidy(figures)))
    return found


def _metric(job: Job, epoch: Epoch, counts: Epoch) -> dict[str, float]:
    """Return the metric, and the trial's value so far, by which MLflow's table is sorted."""
    metric = job.recipe.metric
    return {metric: epoch.value(metric), "value": counts.value(metric)}


def _figures(job: Job, epoch: Epoch) -> dict[str, float]:
    """Return everything except the metric; each prefix becomes a section of charts."""
    metric = job.recipe.metric
    found = {"train_loss": epoch.train.loss}
    found |= {f"train/{metric}": value for name, value in epoch.train.metrics.items() if name == metric}
    if epoch.val:
        found |= {"val_loss": epoch.val.loss} | _others(epoch.val, metric) | _corrected(epoch, metric)
    return found | {
        "optim/lr": epoch.lr,
        "speed/images_per_second": epoch.images_per_second,
        "memory/peak_gb": epoch.peak_memory_gb,
    }


def _others(val: Scores, metric: str) -> dict[str, float]:
    found = {f"val/{name}": value for name, value in val.metrics.items() if name != metric}
    named = keys(val.category_accuracy)
    return found | {f"category_accuracy/{named[name]}": value for name, value in val.category_accuracy.items()}


def _corrected(epoch: Epoch, metric: str) -> dict[str, float]:
    """Return the metrics with posterior correction, applied or not, and its strength tau."""
    found = {f"posterior/{name}": fit.value for name, fit in epoch.corrected.items()}
    found |= {f"posterior/tau_{name}": fit.tau for name, fit in epoch.corrected.items()}
    return found | ({f"val/plain_{metric}": epoch.plain.value(metric)} if epoch.plain else {})


def looked(job: Job, result: TrialResult, time: float) -> list[Point]:
    """Return the facts about a finished run that are not in its epochs, as metrics of the epoch that counts.

    These are the standard error of its metric, a final model's metric on test, an ensemble's scores on val, and
    metrics with test-time augmentation.
    """
    metric, place = result.metric, "test/" if job.kind == "final" else ""
    figures = {f"{place}{metric}": result.value} if place and result.value is not None else {}
    if result.standard_error is not None:
        figures[f"{place}{metric}_se"] = result.standard_error
    if job.ensemble:
        figures["members"] = float(len(job.ensemble.members))
    if job.ensemble and (val := job.ensemble.val):
        figures |= {metric: val.value(metric)}
        figures |= {f"{metric}_se": error for name, error in val.standard_errors.items() if name == metric}
    if result.tta:
        metrics = result.tta.metrics
        figures |= {f"tta/{name}": metrics[name] for name in dict.fromkeys((*SINGLE, metric)) if name in metrics}
    step = result.epoch or (1 if job.ensemble else None)
    return [Point(step, _ms(time), _tidy(figures))] if figures and step else []


def _tidy(figures: Mapping[str, float]) -> dict[str, float]:
    """Round to five digits, and drop values that are not finite."""
    return {name: float(f"{value:.5g}") for name, value in figures.items() if math.isfinite(value)}


def progress(results: Mapping[int, TrialResult], times: Mapping[int, float], metric: str) -> list[Point]:
    """Return the study's best value so far: one point per completed trial, in the order of completion.

    Points never change, as later completions come after them. If a trial has all its epochs but no outcome yet, the
    points stop before its last epoch, because its own point belongs there.
    """
    complete = {n: result for n, result in results.items() if result.state == "COMPLETE"}
    due = [times.get(n, 0.0) for n, one in results.items() if one.state in OPEN and one.epochs >= one.planned]
    sure = [n for n in complete if times.get(n, 0.0) < min(due, default=math.inf)]
    found, top = list[Point](), None
    for step, number in enumerate(sorted(sure, key=lambda n: (times.get(n, 0.0), n))):
        top = best(filter(None, (top, complete[number])))
        value = top.value if top and top.value is not None else math.nan
        found.append(Point(step, _ms(times.get(number, 0.0)), _tidy({f"best_{metric}": value})))
    return found


def mattered(found: Importance, time: float) -> Point:
    """Return the share of each parameter, as metrics of a study; `time` is when its last trial finished."""
    named = keys(share.name for share in found.shares)
    figures = {f"importance/{named[share.name]}": share.share for share in found.shares}
    return Point(found.completed + found.pruned, _ms(time), _tidy(figures))


def board(scores: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the board scores of a final model's submission, one point per score."""
    return [Point(step, _ms(one["time"]), _tidy({"board": one["value"]})) for step, one in enumerate(scores, 1)]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def key(name: str) -> str:
    """Return `name` as part of a metric's or parameter's name, which for MLflow must also be a file name."""
    plain = re.sub(r"[^\w.\- ]", "_", name)[:MAX_KEY_LENGTH]
    return plain if plain.strip(".") else "_" * max(1, len(plain))


def keys(names: Iterable[str]) -> dict[str, str]:
    """Return a unique key for each name: unchanged names take precedence, and later duplicates get a number."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: key(name) != name):
        numbered = chain([key(name)], (f"{key(name)}_{number}" for number in count(2)))
        found[name] = next(one for one in numbered if one not in found.values())
    return found


def params(job: Job) -> dict[str, str]:
    """Return the parameters, and other values by which people compare runs; the backbone is called model."""
    train = job.recipe.train
    opened = {key(name): shown(value) for name, value in job.params.items() if name != "backbone"}
    fixed = {"model": train.backbone, "image_size": train.image_size, "epochs": train.epochs, "seed": train.seed}
    fixed |= {"folds": job.recipe.folds} if job.recipe.folds else {}
    return opened | {name: shown(value) for name, value in fixed.items()}


def shown(value: Any) -> str:
    """Return a value as text, floats with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else redacted(str(value))


def outcome(result: TrialResult) -> dict[str, str]:
    """Return the outcome of a run as tags."""
    lines = (result.error or "").strip().splitlines()
    return {"sweep.state": result.state, "sweep.error": redacted(lines[0]) if lines else ""}


def fitted(job: Job, epochs: Sequence[Epoch], result: TrialResult) -> dict[str, str]:
    """Return tags by category, of the epoch that counts: known answers of val if some are missing, and thresholds."""
    counts = next((epoch for epoch in epochs if epoch.number == result.epoch), None)
    answers = counts.val.category_answers if counts and counts.val else {}
    thresholds = job.thresholds or (counts and counts.thresholds) or {}
    named = keys(dict.fromkeys([*answers, *thresholds]))
    found = {f"sweep.answers.{named[name]}": f"{count} of val" for name, count in answers.items()}
    return found | {f"sweep.thresholds.{named[name]}": _row(values) for name, values in thresholds.items()}


def _row(values: Sequence[float]) -> str:
    """Return each value, in the order of the classes, or the extremes of too many values for a tag."""
    if len(values) > MAX_CLASSES:
        return f"{len(values)} from {shown(min(values))} to {shown(max(values))}"
    return " ".join(map(shown, values))


def note(
    state: State,
    metric: str,
    results: Sequence[TrialResult],
    planned: int | None,
    resume: str,
    found: Importance | None = None,
) -> str:
    """Return Markdown for the head of the study's page: status, best trial, importance, and how to resume."""
    counts = {state: sum(r.state == state for r in results) for state in STATUS}
    parts = [f"{n} {name.lower()}" for name, n in counts.items() if n]
    lines = [f"**{state}**: {', '.join(parts) or 'no trial yet'}{f', of {planned} planned' if planned else ''}"]
    if top := best(results):
        where = f"trial {top.number} ({plain(top.backbone)}), epoch {top.epoch}"
        lines.append(f"**Best {metric}**: {top.value:.4f}, {where}")
    if found and found.shares:
        lines.append(plain(found.in_full.line.replace("what mattered", "What mattered")))
    return "\n\n".join([*lines, f"Resume with {code(redacted(resume))}"])


# --------------------------------------------------------------------------------- table view
def children(parent: str) -> str:
    """Return the search filter for the runs of the study whose parent run is `parent`."""
    return f"tags.`mlflow.parentRunId` = '{parent}'"


def view(parent: str, names: Sequence[str], *, minimize: bool = False) -> str:
    """Return the state of MLflow's run table (3.17, undocumented) that makes it a leaderboard, sorted by value.

    As space is limited, the parameters `names` follow the value directly; the model is in a run's name.
    `minimize`: less of the metric is better.
    """
    value = "metrics.`value`"
    opened = [f"params.`{key(name)}`" for name in names if name != "backbone"]
    columns = [value, *opened[: MAX_COLUMNS - 3], "params.`model`", "tags.`sweep.state`"]
    state = {
        "searchFilter": children(parent),
        "orderByKey": value,
        "orderByAsc": minimize,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {value: VALUE_WIDTH, "params.`model`": 150},
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    return json.dumps(state)


def address(base: str, experiment: str, view: str) -> str:
    """Return the address of that table in MLflow's pages."""
    where = f"{base.rstrip('/')}/#/experiments/{quote(experiment)}/runs"
    return f"{where}?workflowType=machine_learning&viewStateShareKey={quote(view)}"


def commit() -> str:
    """Return the commit checked out in the current folder, or ""."""
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""
