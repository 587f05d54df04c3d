"""One trial in detail: parameters, epochs, accuracy by category and class, confusions, files, log."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sweeper import text
from sweeper.errors import UserError
from sweeper.results.columns import counting_scores
from sweeper.space import defaults, yaml_io
from sweeper.space.compare import difference
from sweeper.space.tree import flow
from sweeper.store import records, studies
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.text import format_value
from sweeper.trial import Job, TrialResult
from trainers.config import TrainConfig
from trainers.epoch import Epoch

MAX_EPOCHS, MAX_CLASSES, MAX_CONFUSIONS, LOG_LINES = 12, 10, 10, 10  # limits of what is shown


@dataclass(frozen=True)
class ClassScore:
    """The score of a class on val: the images that have it, and the share of them that were found."""

    category: str
    name: str
    images: int
    recall: float | None  # None if no image has the class


@dataclass(frozen=True)
class Confusion:
    """Images of val with one class that were predicted as another."""

    category: str
    true: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Answers:
    """The scores and confusions of the predictions on val; `trouble` is the reason if there are none."""

    classes: tuple[ClassScore, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class TrialView:
    """A trial read from its folder; `rank` is its place among the completed ones."""

    study: StudyFolder
    job: Job
    result: TrialResult
    rank: int | None
    ranked: int

    @property
    def folder(self) -> RunFolder:
        return self.study.trial(self.result.number)

    @cached_property
    def epochs(self) -> list[Epoch]:
        return records.history(self.folder)

    @cached_property
    def differences(self) -> list[str]:
        """One line for each value in which the recipe differs from the default of its backbone."""
        train = self.job.recipe.train
        given = {"backbone": train.backbone, "pretrained": train.pretrained}
        length = {"epochs": train.epochs}  # other defaults depend on it
        usual = TrainConfig.model_validate(defaults.filled(given | length, self.job.recipe.metric))
        usual = usual.model_copy(update={"epochs": TrainConfig.model_fields["epochs"].default})
        return difference(usual.model_dump(mode="json"), train.model_dump(mode="json"))

    @cached_property
    def categories(self) -> dict[str, float]:
        """The accuracy of each category at the epoch that counts."""
        scores = counting_scores(self.study, [self.result]).get(self.result.number)
        return dict(scores.category_accuracy) if scores else {}

    @cached_property
    def answers(self) -> Answers:
        """The answers from its predictions on val, if these were kept and the data set is unchanged."""
        if not self.folder.val_logits.exists():
            return Answers(trouble="its predictions on val were not kept")
        from sweeper.figures.finished_run import Run

        try:
            return _answers(Run(self.folder, self.job, self.result))
        except UserError as error:
            return Answers(trouble=f"{error.what}{f' ({error.where})' if error.where else ''}")

    def recipe(self) -> str:
        """Return the trial as a search space without parameters, with a comment on its origin."""
        number, name = self.result.number, self.study.name
        comment = f"Trial {number} of study {name}: {self._value}."
        return yaml_io.recipe_yaml(f"{name[:57]}-t{number:04d}", self.job.computed, comment=comment)

    @property
    def _value(self) -> str:
        if self.result.value is None:
            return self.result.state.lower()
        at = f"epoch {self.result.epoch} of {self.result.planned}"
        return f"{self.result.metric} {format_value(self.result.value, self.result.standard_error)} after {at}"

    # ------------------------------------------------------------------------------------- output
    def lines(self) -> Iterator[str]:
        """Yield everything as text."""
        result = self.result
        place = f", rank {self.rank} of {self.ranked}" if self.rank else ""
        yield f"trial {result.number} of {self.study.name}: {result.state.lower()}{place}"
        yield f"{self._value}, {text.format_duration(result.seconds)}"
        if result.error:
            yield f"error: {result.error}"
        if result.params:
            yield from _section("parameters", [[name, flow(value)] for name, value in result.params.items()])
        yield from ("", f"recipe, differences from the default of {result.backbone}:")
        yield from (f"  {line}" for line in self.differences or ["none"])
        yield from self._epoch_lines()
        if self.categories:
            yield from _section("accuracy by category", [[n, format_value(v)] for n, v in self.categories.items()])
        yield from self._answer_lines()
        yield from _section("files", [[path.name, text.format_bytes(path.stat().st_size)] for path in self._files])
        yield f"  in {text.relative_path(self.folder.root)}"
        yield from ("", "end of its log:", *(f"  {line}" for line in self._log or ["(empty)"]))

    def _epoch_lines(self) -> Iterator[str]:
        if not self.epochs:
            return
        metric = self.result.metric
        step = -(-len(self.epochs) // MAX_EPOCHS)
        kept = [one for one in self.epochs if one.number in (1, len(self.epochs), self.result.epoch)]
        kept += [one for one in self.epochs if one.number % step == 0]
        rows = []
        for one in sorted({one.number: one for one in kept}.values(), key=lambda one: one.number):
            mark = "*" if one.number == self.result.epoch else ""
            figures = [one.train.loss, one.val.loss if one.val else None, one.known(metric)]
            rows.append([f"{one.number}{mark}", *map(format_value, figures)])
        yield from _section(f"epochs (* counts), {metric}", [["epoch", "train loss", "val loss", "value"], *rows])

    def _answer_lines(self) -> Iterator[str]:
        found = self.answers
        if found.trouble:
            yield from ("", f"by class: {found.trouble}")
            return
        known = sorted((one for one in found.classes if one.recall is not None), key=lambda one: one.recall or 0)
        rows = [[one.category, one.name, str(one.images), format_value(one.recall)] for one in known[:MAX_CLASSES]]
        less = f", the {MAX_CLASSES} worst of {len(known)}" if len(known) > MAX_CLASSES else ""
        yield from _section(f"recall by class on val{less}", [["category", "class", "images", "recall"], *rows])
        if found.confusions:
            yield from ("", "most common confusions on val:")
        for one in found.confusions[:MAX_CONFUSIONS]:
            yield f"  {one.category}: {one.true} taken for {one.predicted}, {text.counted(one.images, 'image')}"

    @property
    def _files(self) -> list[Any]:
        return sorted(path for path in self.folder.root.iterdir() if path.is_file() and path.name[0] != ".")

    @property
    def _log(self) -> list[str]:
        try:
            return self.folder.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except FileNotFoundError:
            return []

    def document(self) -> dict[str, Any]:
        """Return the trial as plain values for --json."""
        return {
            "schema_version": 1,
            "study": self.study.name,
            "result": self.result.model_dump(mode="json"),
            "rank": self.rank,
            "differences": self.differences,
            "epochs": [one.model_dump(mode="json") for one in self.epochs],
            "category_accuracy": self.categories,
            "answers": asdict(self.answers),
            "recipe": self.job.computed.model_dump(mode="json"),
            "folder": str(self.folder.root),
            "files": [path.name for path in self._files],
            "log": self._log,
        }


def view(name: str) -> TrialView:
    """Return the trial called `STUDY/NUMBER`, or `NUMBER` in the latest study.

    Raises UserError, with the nearest numbers, if there is none.
    """
    study_name, _, written = name.rpartition("/")
    if not written.isdecimal():
        example = f"{name}/0" if name in [one.name for one in studies.studies()] else "focal/4"
        raise UserError(f"'{name}' is not a trial", where="sweep show", help=f"write STUDY/NUMBER, such as {example}")
    study, number = studies.find(study_name or None), int(written)
    results = records.results(study)
    found = next((one for one in results if one.number == number), None)
    job = records.read_config(study.trial(number)) if found else None
    if found is None or job is None:
        raise studies.no_trial(study, number, [one.number for one in results])
    rows = Ranking.of(results, study).rows
    rank = next(row["rank"] for row in rows if row["trial"] == number)
    return TrialView(study, job, found, rank, sum(row["rank"] is not None for row in rows))


def _section(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a title with aligned rows below it."""
    yield from ("", f"{title}:")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _answers(one: Any) -> Answers:
    """Compute the answers from a run's predictions and its data set. Raises UserError if they do not match."""
    from sweeper.statistics import confusion

    classes: list[ClassScore] = []
    confusions: list[Confusion] = []
    categories = one.table.categories
    for category, found in zip(categories, confusion.answers(one.logits, one.labels, categories), strict=True):
        if isinstance(found, confusion.Several):
            true, hits = found.true.tolist(), found.hits.tolist()
        else:
            true, hits = found.sum(1).tolist(), found.diagonal().tolist()
            cells = ((i, j, int(found[i, j])) for i, j in zip(*found.nonzero(), strict=True) if i != j)
            confusions += [Confusion(category.name, category.classes[i], category.classes[j], n) for i, j, n in cells]
        classes += [
            ClassScore(category.name, name, images, right / images if images else None)
            for name, images, right in zip(category.classes, true, hits, strict=True)
        ]
    confusions.sort(key=lambda each: -each.images)
    return Answers(tuple(classes), tuple(confusions))
