"""The planner: what fits in the hours of a study, from the seconds per step measured on this machine.

Only values from the preset are planned; those that the user wrote stay.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from sweeper import text
from sweeper.errors import UserError
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder

if TYPE_CHECKING:
    from sweeper.space.space import Space
    from sweeper.space.spec import StudySpec
    from sweeper.system.devices import Slot
    from trainers.config import Recipe
    from trainers.data.layouts import Table

WANTED = 2  # full trials that a search should fit besides the retraining; up to five, more gain less than pixels do
ENOUGH = 3  # full trials from which a second model is worth more than further trials
SMALLEST = 64  # pixels; images are not shrunk below this to save time
TRIAL_S = 5.0  # seconds of a trial besides its epochs
MARGIN = 1.05  # factor on times: a reserve. Epochs on photographs took .92 to 1.00 of what was timed
STEP = 32  # pixels between two sizes
LEAST = 2  # lowest size and epochs: the preset's, divided by this
TIMED_S = 2.0, 10.0  # least and most seconds for which a network is timed: on a shared machine, 2 are off by a fifth
TIMED_SHARE = 0.01  # of the hours, between these
RESERVE = 1.05  # factor on the minimal hours in advice to the user


Answer = Mapping[str, Any]
"""How fast a recipe trains, and at which side of the images that was measured: see `trainers.throughput.timed`."""

Timed = Callable[[Sequence["Recipe"], int | None], Sequence[Answer]]
"""Measures how fast recipes train on images of a side, as `timing.measure` does."""


class HoursPlan(BaseModel):
    """The trainings that fit in the hours; `values` replace those of the preset. The number of trials is an estimate,
    not a limit.
    """

    model_config = ConfigDict(frozen=True)

    hours: float
    retrains: bool
    slots: int  # trials side by side
    values: Mapping[str, Any]  # image_size and epochs, where the preset gave them
    image_size: str
    epochs: int
    trial_seconds: float  # of a trial that runs to its end, on average over the backbones
    slowest_seconds: float = 0.0  # the same with the slowest backbone
    final_seconds: float  # of the retraining
    start_seconds: float  # until the first trial trains
    configurations: int | None = None  # number of them in a finite space
    folds: int | None = None  # trainings per trial
    repeats: int = 0  # confirmation trainings after the search, in sequence
    share: float = 0.0  # of the hours that confirmation may take at most
    pairs: bool = False  # two models may be retrained

    @property
    def trials(self) -> int:
        """The number of full trials that fit in the hours, with time left for what follows the search."""
        return self._trials(self.models)

    @property
    def rounds(self) -> int:
        """The full trials that fit on each slot. The first round lasts as long as that of the slowest backbone."""
        return self._rounds(self.models)

    @property
    def models(self) -> int:
        """The models that are retrained one after another: two if ENOUGH trials fit beside them, else one.

        Two side by side, on several slots, take the time of one.
        """
        enough = min(ENOUGH, self.configurations or ENOUGH)
        able = self.pairs and self.retrains and self.slots == 1
        return 2 if able and self._trials(2) >= enough else 1

    def _trials(self, models: int) -> int:
        found = self.slots * self._rounds(models)
        return found if self.configurations is None else min(found, self.configurations)

    def _rounds(self, models: int) -> int:
        left = self.hours * 3600 - self.start_seconds - self._aside(models) - self.first_seconds
        return 0 if left < 0 else 1 + math.floor(left / self.trial_seconds)

    @property
    def first_seconds(self) -> float:
        """The seconds of the first round of trials."""
        return max(self.trial_seconds, self.slowest_seconds)

    @property
    def aside(self) -> float:
        """The seconds reserved for what follows the search."""
        return self._aside(self.models)

    @property
    def combining(self) -> float:
        """The seconds reserved for combining two models, in a cold process."""
        return self._combining(self.models)

    def _aside(self, models: int) -> float:
        return self.again + (models * self.final_seconds + self._combining(models) if self.retrains else 0.0)

    def _combining(self, models: int) -> float:
        return self.start_seconds if self.pairs and max(self.slots, models) > 1 else 0.0

    @property
    def again(self) -> float:
        """The seconds reserved for new seeds of the best trials."""
        return min(self.repeats * self.trial_seconds, self.share * self.hours * 3600)

    def document(self) -> dict[str, Any]:
        """Return the plan as in study.json and the commands' JSON."""
        return {**self.model_dump(mode="json"), "trials": self.trials, "models": self.models}

    @property
    def once(self) -> bool:
        """True if two trials and a retraining do not fit, so the default is trained once on train and val."""
        return self.retrains and self.trials < min(2, self.configurations or 2)

    @property
    def search_hours(self) -> float:
        """The hours in which two of its trials and what follows them fit."""
        rounds = math.ceil(min(2, self.configurations or 2) / self.slots)
        rest = self.aside - self.again  # new seeds take more with more hours
        seconds = self.start_seconds + rest + self.first_seconds + (rounds - 1) * self.trial_seconds
        seconds = min(seconds + self.repeats * self.trial_seconds, seconds / (1 - self.share))
        return rounded_up(RESERVE * seconds / 3600)

    @property
    def once_seconds(self) -> float:
        """The seconds of the minimum: that one training or, without a retraining, one trial."""
        return self.final_seconds if self.retrains else self.start_seconds + self.first_seconds

    @property
    def fits_once(self) -> bool:
        return self.once_seconds <= self.hours * 3600

    @property
    def shape(self) -> str:
        """The length and image size of a training, such as `10 epochs at 128 px`."""
        return f"{text.counted(self.epochs, 'epoch')} at {self.image_size} px"

    @property
    def line(self) -> str:
        """The line in the heading: `2 h = 6 trials of 10 epochs at 128 px (16m each) + retraining 21m`."""
        one = self.first_seconds if self.rounds == 1 else self.trial_seconds
        each, last = text.format_duration(one), text.format_duration(self.final_seconds)
        if self.once:
            few = f"too few for a search (--hours {self.search_hours:g} would do), so the default is trained once"
            return f"{self.hours:g} h are {few} on train and val: {self.shape} ({last})"
        side = f", {self.slots} side by side" if self.slots > 1 else ""
        final = f" + new seeds {text.format_duration(self.again)}" if self.repeats else ""
        final += f" + retraining {last}" if self.retrains and self.models == 1 else ""
        final += f" + {self.models} retrainings ({last} each)" if self.models > 1 else ""
        each_of = f"{self.folds} folds of " if self.folds else ""
        trials = f"{text.counted(self.trials, 'trial')} of {each_of}{self.shape}"
        return f"{self.hours:g} h = {trials} ({each} each{side}){final}"


def stored(folder: StudyFolder) -> HoursPlan | None:
    """Return the plan with which the study in `folder` started; None if it had none."""
    found = (study_file.read(folder) or {}).get("plan")
    return HoursPlan.model_validate(found) if found else None


# --------------------------------------------------------------------------------------------- planning
@dataclass(frozen=True)
class Shape:
    """A length and an image size of trainings, with their cost; `size` or `epochs` is None if the file gives it."""

    size: int | None
    epochs: int | None
    trial: float  # seconds, on average over the backbones
    slowest: float
    final: float  # seconds
    loss: float  # the factor by which it falls short of the preset; 1 if it does not


def after(spec: "StudySpec", slots: int) -> dict[str, Any]:
    """Return the fields of a plan about what follows the search."""
    confirm = spec.search.confirm
    known = {"repeats": confirm.trainings(slots), "share": confirm.share} if confirm else {"repeats": 0}
    return {**known, "pairs": spec.by_hours and spec.rules.ensemble}


def timed_seconds(spec: "StudySpec") -> float:
    """Return the seconds for which each network is timed."""
    least, most = TIMED_S
    return min(most, max(least, TIMED_SHARE * 3600 * (spec.budget.hours or 0.0)))


@dataclass
class Planner:
    """Chooses among the shapes that a study may have on `slots`; `timed` measures recipes on the first of them."""

    spec: "StudySpec"
    space: "Space"
    table: "Table"
    slots: Sequence["Slot"]
    retrains: bool
    timed: Timed

    def __post_init__(self) -> None:
        self.recipes = list(self.space.recipes())
        self.answers: list[dict[int, Answer]] = [{} for _ in self.recipes]  # by side
        self.most_epochs = self.space.most_epochs  # if the file gives them
        self.start = TRIAL_S  # seconds of a cold process, before its first step

    def answers_for(self, plan: HoursPlan) -> Sequence[Answer] | None:
        """Return what was measured of each recipe at the image size of a plan; None if it has several sizes."""
        side = plan.values.get("image_size")
        return [known[side] for known in self.answers] if side else None

    def plan(self) -> HoursPlan:
        """Return the plan. Raises UserError if the hours are too few for one training."""
        self.measure(next(iter(self.sizes())))
        while not self.has_measured(size := (self.choose() or self.least()).size):
            self.measure(size)
        if chosen := self.choose():
            return self.as_plan(chosen)
        raise self.too_few()

    # ------------------------------------------------------------------------------------ measuring
    def measure(self, size: int | None) -> None:
        """Time each recipe at an image size; None stands for its own."""
        began = time.monotonic()
        answers = self.timed(self.recipes, size)
        self.start = max(TRIAL_S, time.monotonic() - began - sum(answer["seconds"] for answer in answers))
        for known, answer in zip(self.answers, answers, strict=True):
            known[answer["side"]] = answer

    def has_measured(self, size: int | None) -> bool:
        """True if each recipe was timed at this image size; None stands for its own."""
        sides = [size or max(recipe.train.input_size) for recipe in self.recipes]
        return all(side in known for side, known in zip(sides, self.answers, strict=True))

    def seconds(self, recipe: "Recipe", known: Mapping[int, Answer], size: int | None) -> tuple[float, float]:
        """Return the seconds per image of training and of evaluation, scaled from the nearest measured size."""
        side = size or max(recipe.train.input_size)
        answer = min(known.values(), key=lambda one: abs(math.log(one["side"] / side)))
        scale = MARGIN * (side / answer["side"]) ** 2
        return scale / answer["train_images_per_second"], scale / answer["val_images_per_second"]

    # ------------------------------------------------------------------------------------- choosing
    def choose(self) -> Shape | None:
        """Return the shape nearest to the preset of which enough trials fit, where unused time counts as a shortfall.

        If not even two trials fit, return the nearest that fits once; None if none does.
        """
        shapes = list(self.shapes())
        for wanted in range(min(WANTED, self.space.size or WANTED), 0, -1):
            fitting = [shape for shape in shapes if self.as_plan(shape).trials >= wanted]
            fitting = [shape for shape in fitting if not self.as_plan(shape).once]
            if fitting:
                return min(fitting, key=lambda shape: (shape.loss / (1 - self.unused(shape)), -shape.trial))
        return min((shape for shape in shapes if self.as_plan(shape).fits_once), key=_by_loss, default=None)

    def least(self) -> Shape:
        """Return the shape with the shortest trials."""
        return min(self.shapes(), key=lambda shape: shape.trial)

    def unused(self, shape: Shape) -> float:
        """Return the share of the hours left over, because no further trial fits or every configuration was tried."""
        plan = self.as_plan(shape)
        rounds = math.ceil(plan.trials / plan.slots)
        spent = (rounds - 1) * plan.trial_seconds + plan.first_seconds + plan.start_seconds + plan.aside
        return 1 - spent / (plan.hours * 3600)

    def shapes(self) -> Iterator[Shape]:
        for size in self.sizes():
            for epochs in self.lengths():
                yield self.shape(size, epochs)

    def sizes(self) -> Sequence[int | None]:
        """Return the image sizes to choose from, from the preset's or, if smaller, the images' own downwards."""
        size = self.spec.of_preset.get("image_size")
        if size is None or any(one["fixed_size"] for known in self.answers for one in known.values()):
            return [None]
        lowest = max(SMALLEST, _multiple(size / LEAST))
        return range(max(lowest, min(size, self._own_side())), lowest - 1, -STEP)

    def _own_side(self) -> int:
        """Return the side of a square with as many pixels as the median image or box."""
        from trainers.data import cache

        usual = cache.median_size(self.table)
        return _multiple(math.sqrt(usual[0] * usual[1])) if usual else self.space.largest_image_size

    def lengths(self) -> Sequence[int | None]:
        epochs = self.spec.of_preset.get("epochs")
        return [None] if epochs is None else range(epochs, math.ceil(epochs / LEAST) - 1, -1)

    def shape(self, size: int | None, epochs: int | None) -> Shape:
        """Return the shape of `epochs` at `size` with its cost; the retraining is that of the slowest recipe."""
        from trainers.data import splitting

        folds, test = self.spec.search.folds, len(self.table.split("test"))
        train, val = splitting.training_sizes(self.table, folds)
        trials, finals = [], []
        for recipe, known in zip(self.recipes, self.answers, strict=True):
            fit, look = self.seconds(recipe, known, size)
            length = epochs or self.most_epochs
            trials.append(TRIAL_S + length * (train * fit + val * look) * (folds or 1))
            seen = test * look * (recipe.train.tta.count + (folds or 0))  # the model of each fold predicts as well
            finals.append(self.start + TRIAL_S + length * (train + val) * fit + seen)  # no epoch of it is judged
        preset = self.spec.of_preset
        behind = (preset["image_size"] / size) ** 2 if size else 1.0, preset["epochs"] / epochs if epochs else 1.0
        return Shape(size, epochs, mean(trials), max(trials), max(finals), math.hypot(*behind) / math.sqrt(2))

    # ------------------------------------------------------------------------------------ answering
    def as_plan(self, shape: Shape) -> HoursPlan:
        sizes = dict.fromkeys(str(shape.size or recipe.train.image_size) for recipe in self.recipes)
        values = {"image_size": shape.size, "epochs": shape.epochs}
        return HoursPlan(
            hours=self.spec.budget.hours or 0.0,
            retrains=self.retrains,
            slots=len(self.slots),
            values={key: value for key, value in values.items() if value is not None},
            image_size=" or ".join(sizes),
            epochs=shape.epochs or self.most_epochs,
            trial_seconds=shape.trial,
            slowest_seconds=shape.slowest,
            final_seconds=shape.final,
            start_seconds=self.start,
            configurations=self.space.size,
            folds=self.spec.search.folds,
            **after(self.spec, len(self.slots)),
        )

    def too_few(self) -> UserError:
        """Return the error for hours too few for even the cheapest shape, with the hours that it needs."""
        plan = self.as_plan(self.least())
        takes = text.format_duration(plan.once_seconds)
        enough = f"{rounded_up(RESERVE * plan.once_seconds / 3600):g}"
        on = f"{' on train and val' if plan.retrains else ''} on {self.slots[0].name}"
        return UserError(
            f"{plan.hours:g} h are too few for one training of {plan.shape}{on}: it takes {takes}",
            where=f"{self.spec.source}: budget.hours",
            help=f"allow {enough} h (--hours {enough}), or write a faster backbone, fewer epochs or a smaller"
            " image_size",
        )


def _by_loss(shape: Shape) -> tuple[float, float]:
    return shape.loss, -shape.trial


def _multiple(pixels: float) -> int:
    """Return the nearest multiple of STEP, at least one STEP."""
    return STEP * max(1, round(pixels / STEP))


def rounded_up(hours: float) -> float:
    """Round up to two significant digits."""
    digits = 1 - math.floor(math.log10(hours))
    return float(math.ceil(round(hours * 10.0**digits, 6)) / 10.0**digits)
