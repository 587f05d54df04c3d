"""The model card: what the model is, where it comes from, how good it is, and where not to trust it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from sweeper.results import winner
from sweeper.store.paths import RunFolder
from sweeper.text import code, format_value, plain, redacted
from sweeper.trial import Ensemble, Job, TrialResult
from trainers.config import TrainConfig
from trainers.data import splitting
from trainers.data.decoded_files import ImageFormat
from trainers.data.table import Category, counted, known_images, label_matrix
from trainers.epoch import Epoch, Scores
from trainers.evaluation import metrics
from trainers.metrics.definitions import SINGLE

if TYPE_CHECKING:
    from trainers.data.layouts import Table

LIBRARIES = ("vision-sweep", "torch", "timm", "numpy", "pillow")
RARE = 10  # a class this many times rarer than an even share is worth a warning


@dataclass(frozen=True)
class CardData:
    """The facts of a card: the winning trial with the epoch that counts, and the retraining job that repeats it.

    Without an epoch there was no search: the recipe is the study's first configuration.
    """

    study: str
    result: TrialResult
    epoch: Epoch | None
    confirmed: tuple[float, ...]
    job: Job
    table: "Table"
    test: Scores | None
    notes: tuple[str, ...] = ()  # on the data set
    picked: bool = False  # the trial was chosen by number or for an ensemble, not as the best

    @property
    def judged_on(self) -> str:
        """The images that the trial's value was measured on, such as `val` or `5 folds`."""
        return winner.judged_on(self.epoch)

    @property
    def val(self) -> Scores | None:
        """The scores of the trial on val; for an ensemble of trials, those of all members together."""
        if self.job.ensemble and self.job.ensemble.val:
            return self.job.ensemble.val
        val = self.epoch.val if self.epoch else None
        return val and val.model_copy(update={"standard_errors": self.result.standard_errors})

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores that are known, by split: val unless there was no search, and test if it has labels."""
        return {split: found for split, found in (("val", self.val), ("test", self.test)) if found}


def card(facts: CardData, model: str, submission: str | None) -> str:
    """Return the card as Markdown; `model` and `submission` are sha256 digests."""
    from sweeper.space import yaml_io

    recipe = facts.job.recipe.elsewhere
    judged = splitting.judged_on(facts.table, recipe.folds)
    splits = {name: len(facts.table.split(name)) for name in ("train", "val", "test")}
    text = _template().render(
        facts=facts,
        answers=answers(facts.table.categories),
        several=[category.name for category in facts.table.categories if category.multi],
        missing=list(_missing(judged)),
        predictions=list(_predictions(facts)),
        recipe=recipe,
        recipe_yaml=yaml_io.recipe_yaml(facts.study, recipe).rstrip(),
        images=", ".join(f"{count:,} {name}" for name, count in splits.items()),
        classes=list(_classes(judged)),
        baseline={name: format_value(value) for name, value in baseline(facts.table, recipe.folds).items()},
        metrics=list(_metrics(facts)),
        rare=_rare(judged),
        figures=_figures(facts),
        weights=_weights(recipe.train),
        onnx="\n".join(_use(facts)),
        versions=", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES),
        model=model,
        submission=submission,
    )
    return redacted(text)


def _use(facts: CardData) -> list[str]:
    """Return the lines of Python code that classify photo.jpg with the exported ONNX file."""
    recipe = facts.job.recipe
    how = ImageFormat.of(
        recipe.data.size or 0, "jpeg" if recipe.data.cache == "jpeg" else "raw", recipe.train.framing
    )
    return how.classify(recipe.train.input_size, [category.name for category in facts.table.categories])


def _weights(train: TrainConfig) -> str:
    """Return the weights that training starts from."""
    if train.weights:
        return f"weights of a local file or folder, {code(str(train.weights))}"
    return "published weights" if train.pretrained else "random weights"


def _template() -> Template:
    """Return the template. Names in it go through `plain` or `code`, since Markdown may hold HTML."""
    loader = PackageLoader("sweeper.results")
    pages = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.filters |= {"plain": plain, "code": code}
    return pages.get_template("card.md.j2")


def answers(categories: Sequence[Category]) -> str:
    """Return a sentence on what the model predicts for an image."""
    several = [category.name for category in categories if category.multi]
    ones = len(categories) - len(several)
    each = f" in each of {ones} categories" if ones > 1 else " in one category" if several else ""
    said = [f"one answer{each}"] if ones else []
    if several:
        said.append(f"any number of answers in {', '.join(map(plain, several))}")
    return f"An image classifier with {' and '.join(said)}."


def _missing(table: "Table") -> Iterator[str]:
    """Yield the number of labelled images per category, if not every image of train and val has a label."""
    parts = {where: table.split(*names) for where, names in (("train and val", ("train", "val")), ("val", ("val",)))}
    known = [known_images(label_matrix(rows, table.categories), table.categories) for rows in parts.values()]
    for category, *images in zip(table.categories, *known, strict=True):
        if images[0] < len(parts["train and val"]):
            whole = zip(images, parts.items(), strict=True)
            counts = ", ".join(f"{n:,} of {len(rows):,} images of {where}" for n, (where, rows) in whole)
            yield f"{plain(category.name)}: labels are known for {counts}"


def _predictions(facts: CardData) -> Iterator[str]:
    """Yield how predictions are made from logits, if there is more to it than taking the largest."""
    if facts.job.ensemble:
        yield from _members(facts.job.ensemble)
        return
    train, fitted = facts.job.recipe.train, facts.job.tau
    tau = train.posthoc_logit_adjustment.tau if fitted is None else fitted
    if tau or fitted is not None:
        source = "the recipe's" if fitted is None else "fitted on val by the winning trial"
        yield f"answers are corrected for class frequency: logits - {tau:g} log(prior), {source}"
    if train.tta.count > 1 and facts.job.use_tta:
        yield f"answers are the mean over {train.tta.count} views of each image (test-time augmentation)"
    elif train.tta.count > 1:
        yield "answers use one view per image: on val the recipe's test-time augmentation was worse"
    if heat := facts.job.temperature:
        pairs = ", ".join(f"{plain(name)} {value:.3g}" for name, value in heat.items())
        yield f"probabilities are calibrated by a temperature, fitted on val: {pairs}"
    yield from _thresholds(facts)


def _members(ensemble: Ensemble) -> Iterator[str]:
    """Yield the share of each member of an ensemble."""
    for one in ensemble.members:
        seed = "" if one.seed is None else f" with seed {one.seed}"
        where = f"trial {one.trial}{seed}, in `finals/{one.final}`"
        yield f"{where}, has {one.share:.0%} of the weight in the mean of logits"
    if ensemble.val is None:
        yield "a mean over seeds is not measured on val, only the trial alone"
    yield "each model has its own correction, views and thresholds: see its card"


def _thresholds(facts: CardData) -> Iterator[str]:
    """Yield the probability above which a class is an answer, for each category with several answers."""
    for category in facts.table.categories:
        if not category.multi:
            continue
        if given := (facts.job.thresholds or {}).get(category.name):
            pairs = zip(category.classes, given, strict=True)
            what = f"its threshold, fitted on val: {', '.join(f'{plain(name)} {share:.3g}' for name, share in pairs)}"
        else:
            what = "0.5"
        yield f"a class of {plain(category.name)} is an answer if its probability is above {what}"


def _classes(table: "Table") -> Iterator[tuple[str, int, str, int, int]]:
    """Yield category, number and name of each class, its images in train + val, and its images in val."""
    both, val = (counted(table.split(*names), table.categories) for names in (("train", "val"), ("val",)))
    for k, category in enumerate(table.categories):
        for c, name in enumerate(category.classes):
            yield category.name, c, name, both[k, c], val[k, c]


def _metrics(facts: CardData) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each metric and its cells, one per split with scores."""
    seen = list(facts.scores.values())
    names = dict.fromkeys(name for s in seen for name in s.metrics)
    rows = [(n, [format_value(s.metrics.get(n), s.standard_errors.get(n)) for s in seen]) for n in names]
    rows.append(("loss", [format_value(s.loss) for s in seen]))
    rows += [_of_category(category, seen) for category in facts.table.categories]
    rows += [(name, [format_value(value)]) for name, value in _asides(facts)]
    for name, cells in rows:
        yield name, cells + [""] * (len(seen) - len(cells))


def _of_category(category: Category, seen: Sequence[Scores]) -> tuple[str, list[str]]:
    """Return the row of a category: accuracy or average precision, with the number of labels if some are missing."""
    what = "mean average precision" if category.multi else "accuracy"
    values = [(s.category_accuracy[category.name], s.category_answers.get(category.name)) for s in seen]
    cells = [format_value(value) + (f" ({n:,} answers)" if n is not None else "") for value, n in values]
    return f"{what} of {category.name}", cells


def baseline(table: "Table", folds: int | None = None) -> dict[str, float]:
    """Return, by metric, the score on val of always predicting train's most frequent class; empty without labels.

    With folds, both train and val are all images of both.
    """
    parts = [("train", "val")] * 2 if folds else [("train",), ("val",)]
    train, val = (label_matrix(table.split(*names), table.categories) for names in parts)
    if not (train >= 0).any() or not (val >= 0).any():
        return {}
    found = metrics.majority(train, val, table.categories).metrics
    return {name: found[name] for name in (*SINGLE, "mean_average_precision") if name in found}


def _asides(facts: CardData) -> Iterator[tuple[str, float]]:
    """Yield further metrics of the winner on val: corrected (cross-fitted), uncorrected, with test-time views."""
    if facts.epoch is None or facts.job.ensemble:
        return
    for name, fit in facts.epoch.corrected.items():
        yield f"{name} with posterior correction, cross-fitted (tau on all of val: {fit.tau:g})", fit.value
    if facts.epoch.plain:
        also = " or fitted thresholds" if facts.epoch.thresholds else ""
        yield f"{facts.result.metric} without correction{also}", facts.epoch.plain.value(facts.result.metric)
    if facts.result.tta:
        also = (
            " and correction"
            if facts.job.tau is not None or facts.job.recipe.train.posthoc_logit_adjustment.tau
            else ""
        )
        value = facts.result.tta.value(facts.result.metric)
        yield f"{facts.result.metric} with test-time augmentation{also}", value


def _rare(table: "Table") -> list[str]:
    """Return the classes that are much rarer than an even share of their category, the rarest first."""
    classes = list(_classes(table))
    total: Counter[str] = Counter()
    for category, _, _, both, _ in classes:
        total[category] += both
    even = {category.name: total[category.name] / len(category.classes) for category in table.categories}
    found = [(both, name, category) for category, _, name, both, _ in classes if both * RARE < even[category]]
    return [f"{plain(name)} of {plain(category)} ({both})" for both, name, category in sorted(found)]


def _figures(facts: CardData) -> dict[str, str]:
    """Return the folders of the figures on test and on val, relative to the card's own folder."""
    folder = RunFolder(facts.job.folder)
    val = folder.study.trial(facts.result.number).figures
    return {"test": folder.figures.name, "val": Path(os.path.relpath(val, folder.root)).as_posix()}
