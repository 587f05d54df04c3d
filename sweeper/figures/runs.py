"""The set of figures of a run and of a study. The drawing itself is elsewhere."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sweeper.errors import EnvironmentFault, UserError
from sweeper.figures import answer_plots, image_grids, plots, study_plots
from sweeper.figures.finished_run import Run, labels_of
from sweeper.figures.process import FigureResult
from sweeper.space.compare import opened
from sweeper.statistics import confusion
from sweeper.store import importance, records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import OPEN, TrialResult
from trainers.data.table import class_counts, known_images
from trainers.epoch import Epoch, Scores
from trainers.optim import frequency
from trainers.support import files

SQUARE = 2000  # most classes for a confusion matrix
MACRO = {"precision": "macro_precision", "recall": "macro_recall", "F1": "macro_f1"}


class FigureSet:
    """The figures of one folder: those already drawn from `source` are kept, others are drawn. Collects errors."""

    def __init__(self, folder: RunFolder | StudyFolder, source: str) -> None:
        self.folder, self.source = folder, source
        self.known = records.drawn_from(folder, source)
        self._files: list[Path] = []
        self._failed: dict[str, list[str]] = {}

    def has(self, name: str) -> bool:
        """True if the figure is already drawn."""
        return name in (self.known or ())

    def put(self, name: str, make: Callable[[], bytes]) -> None:
        path = self.folder.figures / name
        try:
            if not self.has(name):
                content = make()
                with files.atomic_write(path) as file:
                    file.write(content)
            self._files.append(path)
        except Exception as error:  # noqa: BLE001  (a figure that cannot be drawn must not cost the others)
            self._failed.setdefault(reason(error), []).append(name)

    def done(self) -> FigureResult:
        """Record and return all existing figures, with one line per reason why others are missing."""
        names = tuple(path.name for path in self._files)
        if names != self.known:
            records.write_drawn(self.folder, self.source, names)
        troubles = (f"{', '.join(lost)}: {why}" for why, lost in self._failed.items())
        return FigureResult(key=str(self.folder.root), files=tuple(self._files), troubles=tuple(troubles))


def reason(error: Exception) -> str:
    """Return the reason why something was not drawn, in one line."""
    if isinstance(error, UserError):
        return f"{error.what}{f' ({error.where})' if error.where else ''}".splitlines()[0]
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


# --------------------------------------------------------------------------------------------- runs
def run(folder: RunFolder) -> FigureResult:
    """Draw all figures of a finished run; those already drawn from the same result are kept."""
    job, result = records.read_config(folder), records.read_result(folder)
    if job is None or result is None:
        return FigureResult(key=str(folder.root), troubles=("the run has not finished",))
    one, figure_set = Run(folder, job, result), FigureSet(folder, records.checksum(folder))
    if not job.ensemble:  # an ensemble has no epochs of its own
        figure_set.put("curves.svg", lambda: _curves(one))
    if job.kind != "final":
        figure_set.put("categories.svg", lambda: _categories(one))
    if one.seen or figure_set.has("confusion.png"):
        figure_set.put("confusion.png", lambda: _confusion(one))
    figure_set.put("labels.svg", lambda: _weighed(one))
    if one.seen or figure_set.has(folder.last_figure.name):
        figure_set.put(folder.last_figure.name, lambda: _mistakes(one))
    return figure_set.done()


def _curves(one: Run) -> bytes:
    if not one.epochs:
        raise EnvironmentFault("no epoch is on record", where=str(one.folder.history))
    quantities = [plots.Curves(name, *train_and_val(one.epochs, name)) for name in (one.job.recipe.metric, "loss")]
    return plots.curves(quantities, one.name("learning curves"))


def train_and_val(epochs: Sequence[Epoch], name: str) -> tuple[list[float], list[float]]:
    """Return a metric by epoch on train and val; val is empty if no epoch was evaluated on it."""
    val = [_value(epoch.val, name) for epoch in epochs]
    seen = any(epoch.val for epoch in epochs)
    return [_value(epoch.train, name) for epoch in epochs], val if seen else []


def _value(scores: Scores | None, name: str) -> float:
    """Return a metric of a split; NaN if there is none, such as without labels."""
    if scores is None:
        return math.nan
    return scores.loss if name == "loss" else scores.metrics.get(name, math.nan)


def _categories(one: Run) -> bytes:
    val = [epoch.val for epoch in one.epochs if epoch.val]
    if not val:
        raise EnvironmentFault("no epoch was evaluated on val", where=str(one.folder.history))
    train = [epoch.train for epoch in one.epochs]
    names = val[0].category_accuracy
    learning = plots.Learning(
        val={name: [scores.category_accuracy[name] for scores in val] for name in names},
        train={name: [scores.category_accuracy[name] for scores in train] for name in names},
        macro={name: [getattr(scores, field) for scores in val] for name, field in MACRO.items()},
        epoch=one.result.epoch,
    )
    several = val[0].mean_average_precision is not None
    aside = ", mean average precision if there are several answers" if several else ""
    return plots.categories(learning, one.name(f"accuracy by category{aside}"))


def _confusion(one: Run) -> bytes:
    largest = max((len(c.classes) for c in one.table.categories if not c.multi), default=0)
    if largest > SQUARE:
        raise EnvironmentFault(f"a confusion matrix of {largest} classes is too large", where=str(one.folder.root))
    logits, labels, categories = one.logits, one.labels, one.table.categories
    found = confusion.answers(logits, labels, categories)
    asked = [k for k, images in enumerate(known_images(labels, categories)) if images]
    title = one.name(f"predictions on {one.split}; shade: share of the row; empty: none")
    return answer_plots.confusion([categories[k] for k in asked], [found[k] for k in asked], title)


def _weighed(one: Run) -> bytes:
    loss = one.job.recipe.train.loss
    factors = loss.category_weights or {}
    categories = one.table.categories
    labels = labels_of(one.table.split(*one.fit), "train", categories)
    counts, known = class_counts(labels, categories), known_images(labels, categories)
    groups = [
        plots.Labels(
            category,
            count,
            frequency.class_weights(count.tolist(), loss.class_weights, beta=loss.beta)
            * factors.get(category.name, 1.0),
            f"known for {images:,} of {len(labels):,} images" if images < len(labels) else "",
        )
        for category, count, images in zip(categories, counts, known, strict=True)
    ]
    how = f"class weights {loss.class_weights.replace('_', ' ')}, category weights {'set' if factors else 'none'}"
    return plots.labels(groups, one.name(f"labels of {' + '.join(one.fit)}; {how}"))


def _mistakes(one: Run) -> bytes:
    found = confusion.mistakes(one.logits, one.labels, one.table.categories)
    shown = min(len(found), image_grids.WORST)
    title = one.name(f"the {shown} worst of {len(found):,} mistakes on {one.split}")
    return image_grids.mistakes(one.table, one.rows, found, title)


# ------------------------------------------------------------------------------------------ studies
def study(folder: StudyFolder) -> FigureResult:
    """Draw the study's own figures, again if a trial has finished since; importance comes from importance.json."""
    results = [result for result in records.results(folder) if result.value is not None]
    if not results:
        return FigureResult(key=folder.name)
    figure_set = FigureSet(folder, _ends(results))
    dots = [study_plots.Dot(one.number, one.state, one.value or 0.0, one.params) for one in results]
    logarithmic = _logarithmic(folder)
    metric, minimize = results[0].metric, results[0].minimize
    trials = f"{folder.name}: value of each trial"
    figure_set.put("history.svg", lambda: study_plots.history(dots, metric, trials, minimize=minimize))
    if any(dot.params for dot in dots):
        title = f"{folder.name}: value against each parameter"
        figure_set.put("slices.svg", lambda: study_plots.slices(dots, metric, title, logarithmic))
    if (found := importance.read(folder)) and found.shares:
        shares = [(one.label, one.share, one.error) for one in found.shares]
        title = f"{folder.name}: what mattered, of {found.completed} completed and {found.pruned} pruned trials"
        figure_set.put("importance.svg", lambda: study_plots.importance(shares, title))
    _of_data(folder, records.best(results) or results[0], figure_set)
    return figure_set.done()


def _ends(results: Sequence[TrialResult]) -> str:
    """Return a checksum of the results of finished trials."""
    lines = (one.model_dump_json() for one in results if one.state not in OPEN)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _of_data(folder: StudyFolder, result: TrialResult, figure_set: FigureSet) -> None:
    """Add the figures of the data set, as the trial of `result` uses it."""
    run_folder = folder.trial(result.number)
    job = records.read_config(run_folder)
    if job:
        one = Run(run_folder, job, result)
        figure_set.put("labels.svg", lambda: _weighed(one))
        if job.recipe.data.crop == "box":
            figure_set.put("crops.png", lambda: _crops(one))


def _crops(one: Run) -> bytes:
    boxed = [row for row in one.table.split("train") if row.box]
    few = boxed[:: max(1, len(boxed) // image_grids.PAIRS)]
    return image_grids.crops(one.table, few, f"{one.job.study}: images of train, before and after crop: box")


def _logarithmic(folder: StudyFolder) -> Callable[[str], bool]:
    """Return a function that is true for parameters on a logarithmic scale."""
    asked = opened(study_file.identity(folder).get("train"))
    return lambda name: bool(asked.get(name, {}).keys() & {"loguniform", "logint"})
