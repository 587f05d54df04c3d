"""The model card: what the model is, where it comes from, how good it is, and what it should not be trusted with."""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from sweeper.store.paths import RunFolder
from sweeper.text import code, plain, redacted
from sweeper.trial import Job, TrialResult
from trainers.data.table import counted
from trainers.epoch import METRICS, Epoch, Scores

if TYPE_CHECKING:
    from trainers.data.layouts import Table

LIBRARIES = ("sweep", "torch", "timm", "numpy", "pillow")
RARE = 10  # times rarer than an even share: worth a warning


@dataclass(frozen=True)
class CardData:
    """What the card tells of: the winning trial with the epoch that counts, and the final job that repeated it."""

    study: str
    result: TrialResult
    epoch: Epoch
    confirmed: tuple[float, ...]
    job: Job
    table: "Table"
    test: Scores | None
    notes: tuple[str, ...] = ()  # on the data set


def card(facts: CardData, model: str, submission: str | None) -> str:
    """The card as Markdown; `model` and `submission` are sha256 digests."""
    from sweeper.space import yaml_io

    recipe = facts.job.recipe.elsewhere
    splits = {name: len(facts.table.split(name)) for name in ("train", "val", "test")}
    text = _template().render(
        facts=facts,
        answers=answers(len(facts.table.categories)),
        predictions=list(_predictions(facts)),
        recipe=recipe,
        recipe_yaml=yaml_io.recipe_yaml(facts.study, recipe).rstrip(),
        images=", ".join(f"{count:,} {name}" for name, count in splits.items()),
        classes=list(_classes(facts.table)),
        baseline=baseline(facts.table),
        metrics=list(_metrics(facts)),
        rare=_rare(facts.table),
        figures=_figures(facts),
        versions=", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES),
        model=model,
        submission=submission,
    )
    return redacted(text)


def _template() -> Template:
    """Names in it go through `plain` or `code`, for Markdown may hold HTML."""
    loader = PackageLoader("sweeper.results")
    pages = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.filters |= {"plain": plain, "code": code}
    return pages.get_template("card.md.j2")


def answers(categories: int) -> str:
    """What the model says of an image."""
    each = f" in each of {categories} categories" if categories > 1 else ""
    return f"An image classifier with one answer{each}."


def _predictions(facts: CardData) -> Iterator[str]:
    """How answers are made of logits, where that is more than taking the largest."""
    train, fitted = facts.job.recipe.train, facts.job.tau
    tau = train.posthoc_logit_adjustment.tau if fitted is None else fitted
    if tau or fitted is not None:
        source = "the recipe's" if fitted is None else "fitted on val by the winning trial"
        yield f"answers are corrected for class frequency: logits - {tau:g} log(prior), {source}"
    if train.tta.count > 1 and facts.job.use_tta:
        yield f"answers are the mean over {train.tta.count} views of each image (test-time augmentation)"
    elif train.tta.count > 1:
        yield "answers are of one view an image: on val the recipe's test-time augmentation was worse"


def _classes(table: "Table") -> Iterator[tuple[str, int, str, int, int]]:
    """Category, number and name of each class, its images in train and val, and in val."""
    both, val = (counted(table.split(*names), table.categories) for names in (("train", "val"), ("val",)))
    for k, category in enumerate(table.categories):
        for c, name in enumerate(category.classes):
            yield category.name, c, name, both[k, c], val[k, c]


def _metrics(facts: CardData) -> Iterator[tuple[str, list[str]]]:
    """The name of each metric, and its cells: of val, and of test where that has labels."""
    val, test = facts.epoch.val, facts.test
    seen = [s for s in (val, test) if s]
    names = [name for name in METRICS if any(name in s.metrics for s in seen)]
    rows: list[tuple[str, list[float]]] = [(name, [s.metrics.get(name, math.nan) for s in seen]) for name in names]
    rows.append(("loss", [s.loss for s in seen]))
    if val:
        for name in val.category_accuracy:
            rows.append((f"accuracy of {name}", [s.category_accuracy[name] for s in seen]))
    rows += [(name, [value]) for name, value in _asides(facts)]
    for name, values in rows:
        yield name, [f"{value:.4f}" for value in values] + [""] * (1 + bool(test) - len(values))


def baseline(table: "Table") -> tuple[float, float]:
    """Overall and mean class accuracy on val of the answer that is commonest in train; 0, 0 without val."""
    train = [row.labels for row in table.split("train") if row.labels]
    val = [row.labels for row in table.split("val") if row.labels]
    if not train or not val:
        return 0.0, 0.0
    said = [Counter(column).most_common(1)[0][0] for column in zip(*train, strict=True)]
    present = [set(column) for column in zip(*val, strict=True)]
    right = sum(answer == label for labels in val for answer, label in zip(said, labels, strict=True))
    hit = sum(answer in classes for answer, classes in zip(said, present, strict=True))
    return right / (len(val) * len(said)), hit / sum(map(len, present))


def _asides(facts: CardData) -> Iterator[tuple[str, float]]:
    """What val would say of the winner in other ways of looking; the correction's figures are cross-fitted."""
    for name, fit in facts.epoch.corrected.items():
        yield f"{name} with posterior correction, cross-fitted (on all of val tau {fit.tau:g})", fit.value
    if facts.epoch.plain:
        yield f"{facts.result.metric} without correction", facts.epoch.plain.value(facts.result.metric)
    if facts.result.tta:
        also = (
            " and correction"
            if facts.job.tau is not None or facts.job.recipe.train.posthoc_logit_adjustment.tau
            else ""
        )
        value = facts.result.tta.value(facts.result.metric)
        yield f"{facts.result.metric} with test-time augmentation{also}", value


def _rare(table: "Table") -> list[str]:
    """The classes that are much rarer than an even share of their category, the rarest first."""
    images = len(table.split("train", "val"))
    even = {category.name: images / len(category.classes) for category in table.categories}
    found = [(both, name, category) for category, _, name, both, _ in _classes(table) if both * RARE < even[category]]
    return [f"{plain(name)} of {plain(category)} ({both})" for both, name, category in sorted(found)]


def _figures(facts: CardData) -> dict[str, str]:
    """Where those on test and on val are drawn, from the card's own folder."""
    folder = RunFolder(facts.job.folder)
    val = folder.study.trial(facts.result.number).figures
    return {"test": folder.figures.name, "val": Path(os.path.relpath(val, folder.root)).as_posix()}
