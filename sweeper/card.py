"""The model card: what the model is, where it comes from, how good it is, and what it should not be trusted with."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from sweeper.markdown import code, plain
from sweeper.redact import redacted
from sweeper.trial import Job, TrialResult
from trainers.config import METRICS, Epoch, Scores
from trainers.data.rows import counted

if TYPE_CHECKING:
    from trainers.data.layouts import Table

LIBRARIES = ("sweep", "torch", "timm", "numpy", "pillow")
RARE = 10  # times rarer than an even share: worth a warning


@dataclass(frozen=True)
class Facts:
    """What the card tells of: the winning trial with the epoch that counts, and the final job that repeated it."""

    study: str
    result: TrialResult
    epoch: Epoch
    confirmed: tuple[float, ...]
    job: Job
    table: "Table"
    test: Scores | None
    notes: tuple[str, ...] = ()  # on the data set


def card(facts: Facts, model: str, submission: str | None) -> str:
    """The card as Markdown; `model` and `submission` are sha256 digests."""
    parts = [_head(facts), _data(facts), _metrics(facts), _recipe(facts), _limits(facts), _files(model, submission)]
    return redacted("\n".join(line for part in parts for line in [*part, ""]))


def answers(categories: int) -> str:
    """What the model says of an image."""
    each = f" in each of {categories} categories" if categories > 1 else ""
    return f"An image classifier with one answer{each}."


def _head(facts: Facts) -> Iterator[str]:
    train, result = facts.job.recipe.train, facts.result
    names = ", ".join(plain(category.name) for category in facts.table.categories)
    yield f"# {plain(train.backbone.split('.')[0])} for {names}"
    yield ""
    yield answers(len(facts.table.categories))
    yield ""
    yield f"- study `{facts.study}`, trial {result.number}: the best {result.goal} on val, {result.value:.4f}"
    if facts.confirmed:
        average = sum(facts.confirmed) / len(facts.confirmed)
        yield f"- trained again with {len(facts.confirmed)} new seeds: mean {result.goal} {average:.4f} on val"
    yield f"- this model: the same recipe on train and val, {facts.job.length}"
    yield from _predictions(facts)
    yield f"- starts from {'published weights' if train.pretrained else 'random weights'}"


def _predictions(facts: Facts) -> Iterator[str]:
    """How answers are made of logits, where that is more than taking the largest."""
    train, fitted = facts.job.recipe.train, facts.job.tau
    tau = train.posterior.tau if fitted is None else fitted
    if tau or fitted is not None:
        source = "the recipe's" if fitted is None else "fitted on val by the winning trial"
        yield f"- answers are corrected for class frequency: logits - {tau:g} log(prior), {source}"
    if train.tta.count > 1 and facts.job.views:
        yield f"- answers are the mean over {train.tta.count} views of each image (test-time augmentation)"
    elif train.tta.count > 1:
        yield "- answers are of one view an image: on val the recipe's test-time augmentation was worse"


def _data(facts: Facts) -> Iterator[str]:
    splits = {name: len(facts.table.split(name)) for name in ("train", "val", "test")}
    yield "## Data"
    yield ""
    counts = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    yield f"{code(facts.job.recipe.elsewhere.data.root)}, {counts}"
    yield ""
    for note in facts.notes:
        yield f"- note: {plain(note)}"
    if facts.notes:
        yield ""
    yield "| category | number | class | train + val | val |"
    yield "|---|--:|---|--:|--:|"
    numbers = [number for category in facts.table.categories for number in range(len(category.classes))]
    for number, (category, name, both, val) in zip(numbers, _counts(facts.table), strict=True):
        yield f"| {plain(category)} | {number} | {plain(name)} | {both:,} | {val:,} |"
    yield ""
    yield "The numbers are those of `prediction.txt`: a category's classes counted from 0."


def _counts(table: "Table") -> Iterator[tuple[str, str, int, int]]:
    """Category, class, images in train and val, images in val."""
    both, val = counted(table.split("train", "val")), counted(table.split("val"))
    for k, category in enumerate(table.categories):
        for c, name in enumerate(category.classes):
            yield category.name, name, both[k, c], val[k, c]


def _metrics(facts: Facts) -> Iterator[str]:
    val, test = facts.epoch.val, facts.test
    yield "## Metrics"
    yield ""
    yield "Val is of the winning trial, which had not seen it; this model has. Choosing the best of many trials by"
    yield f"val makes its figure too good. Test is of this model{'.' if test else ': it has no labels here.'}"
    yield ""
    overall, classes = baseline(facts.table)
    yield f"The commonest class of each category for every image: overall accuracy {overall:.4f}, mean class accuracy"
    yield f"{classes:.4f} on val."
    yield ""
    yield f"| metric | val |{' test |' if test else ''}"
    yield f"|---|--:|{'--:|' if test else ''}"
    rows = [(name, [getattr(s, name) for s in (val, test) if s]) for name in (*METRICS, "loss")]
    if val:
        for name in val.category_accuracy:
            rows.append((f"accuracy of {name}", [s.category_accuracy[name] for s in (val, test) if s]))
    rows += [(name, [value]) for name, value in _asides(facts)]
    for name, values in rows:
        cells = [f"{value:.4f}" for value in values] + [""] * (1 + bool(test) - len(values))
        yield f"| {plain(name)} | " + " | ".join(cells) + " |"


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


def _asides(facts: Facts) -> Iterator[tuple[str, float]]:
    """What val would say of the winner in other ways of looking; the correction's figures are cross-fitted."""
    for name, fit in facts.epoch.corrected.items():
        yield f"{name} with posterior correction, cross-fitted (on all of val tau {fit.tau:g})", fit.value
    if facts.epoch.plain:
        yield f"{facts.result.goal} without correction", float(getattr(facts.epoch.plain, facts.result.goal))
    if facts.result.tta:
        also = " and correction" if facts.job.tau is not None or facts.job.recipe.train.posterior.tau else ""
        value = float(getattr(facts.result.tta, facts.result.goal))
        yield f"{facts.result.goal} with test-time augmentation{also}", value


def _recipe(facts: Facts) -> Iterator[str]:
    from sweeper import spec

    yield "## Recipe"
    yield ""
    yield "```yaml"
    yield spec.recipe_yaml(facts.study, facts.job.recipe.elsewhere).rstrip()
    yield "```"


def _limits(facts: Facts) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It knows the categories and classes above, and answers with one of them whatever the image shows."
    yield "- Images unlike those it was trained on, in subject, framing or light, were not tested."
    counts = list(_counts(facts.table))
    images = len(facts.table.split("train", "val"))
    even = {category.name: images / len(category.classes) for category in facts.table.categories}
    rare = [(both, name, category) for category, name, both, _ in counts if both * RARE < even[category]]
    if rare:
        listed = ", ".join(f"{plain(name)} of {plain(category)} ({both})" for both, name, category in sorted(rare))
        yield f"- Classes are unequally frequent. Rare ones are hardly learnt, and their figures are noise: {listed}."
    else:
        yield "- No class is ten times rarer than an even share of its category."


def _files(model: str, submission: str | None) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield f"- `model.safetensors`, sha256 `{model}`"
    if submission:
        yield f"- `submission.zip`, sha256 `{submission}`"
    yield "- made with " + ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
