"""The record of one epoch: scores, and what else was measured."""

from collections.abc import Mapping
from operator import not_
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from trainers.metrics.definitions import BUILT_IN, STANDARD

MEANING = {name: BUILT_IN[name].description for name in STANDARD}


class Frozen(BaseModel):
    """A frozen record that refuses fields it does not know, in a changed copy as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with the fields in `update` changed, which are not validated. Raises TypeError for any other."""
        if unknown := (update or {}).keys() - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


class Part(Frozen):
    """A piece of a recipe."""

    model_config = ConfigDict(allow_inf_nan=False)


def _absent(value: object) -> bool:
    """Whether records leave a figure out, for the data have none."""
    return value is None or value == {}


class Scores(Part):
    """One split after one epoch. Accuracies are over the whole split, never a mean over batches."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    loss: float = Field(description="mean over images of the objective, without mixing or smoothing on val")
    overall_accuracy: float | None = Field(None, exclude_if=_absent, description=MEANING["overall_accuracy"])
    mean_class_accuracy: float | None = Field(None, exclude_if=_absent, description=MEANING["mean_class_accuracy"])
    macro_precision: float = Field(description=MEANING["macro_precision"])
    macro_recall: float = Field(description=MEANING["macro_recall"])
    macro_f1: float = Field(description=MEANING["macro_f1"])
    micro_f1: float | None = Field(None, exclude_if=_absent, description=MEANING["micro_f1"])
    mean_average_precision: float | None = Field(
        None, exclude_if=_absent, description=MEANING["mean_average_precision"]
    )
    mean_category_score: float | None = Field(None, exclude_if=_absent, description=MEANING["mean_category_score"])
    category_accuracy: dict[str, float] = Field(
        description="accuracy of each category, by name; of one with several answers the mean average precision"
    )
    category_answers: dict[str, int] = Field(
        default_factory=dict,
        exclude_if=_absent,
        description="images with a known answer, by category; where any is missing",
    )
    further: dict[str, float] = Field(
        default_factory=dict,
        exclude_if=_absent,
        description="the study's metric, and that of `selection`, where they are none of those above; not on train",
    )
    standard_errors: dict[str, float] = Field(
        default_factory=dict, exclude_if=_absent, description="on test: by metric, by bootstrap over the images"
    )

    def value(self, metric: str) -> float:
        """The metric. Raises ValueError where the data have no category that it stands on."""
        if (found := self.metrics.get(metric)) is None:
            raise ValueError(f"no {metric}: the data set has no category for it")
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric that the data have and the epoch records."""
        standard = {name: value for name in STANDARD if (value := getattr(self, name)) is not None}
        return standard | self.further


THRESHOLDS = (
    "probability from which on a class is an answer, for each class of each category with several; where fitted"
)

TEMPERATURE = (
    "by what the logits of a category are divided so that probabilities are true, by name; 1 where val has few"
)


class Look(Scores):
    """Val through the views of test-time augmentation."""

    tau: float | None = Field(None, description="strength of the correction that was fitted to these predictions")
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)
    temperature: dict[str, float] = Field(default_factory=dict, exclude_if=_absent, description=TEMPERATURE)


class Corrected(Part):
    """What posterior correction makes of a metric on val."""

    tau: float = Field(description="the strength that is best by this metric on the whole of val")
    value: float = Field(description="the metric, each fold of val with the tau of the others")


class FoldScores(Scores):
    """One fold of a cross-validation by itself, after its epoch that counts."""

    epoch: int = Field(ge=1, description="that epoch, from 1 in each fold")


MEASURED = ("seconds", "images_per_second", "peak_memory_gb", "time")  # of an epoch, never twice the same


class Epoch(Part):
    """What one pass over the training images left behind: one line of history.jsonl."""

    number: int = Field(ge=1, description="1 for the first; in a cross-validation it runs on from fold to fold")
    train: Scores = Field(description="on the augmented images, as they passed")
    val: Scores | None = Field(description="on val, without augmentation; none when there is no val")
    plain: Scores | None = Field(None, description="val without the correction that the recipe asks for")
    corrected: dict[str, Corrected] = Field(
        default_factory=dict, description="what a fitted correction would give, for the two accuracies and the metric"
    )
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)
    temperature: dict[str, float] = Field(default_factory=dict, exclude_if=_absent, description=TEMPERATURE)
    folds: tuple[FoldScores, ...] = Field(
        (),
        exclude_if=not_,
        description="of the last epoch of a cross-validation, whose val is all folds: each by itself",
    )
    lr: float = Field(description="learning rate of the head at the last step")
    seconds: float = Field(description="wall time of the epoch, evaluation included")
    images_per_second: float = Field(description="training images over the time spent training")
    peak_memory_gb: float = Field(description="peak memory, GiB: taken from the GPU, or of the process on a CPU")
    time: float = Field(description="Unix time when the epoch ended, seconds")

    def measured_as(self, again: "Epoch") -> "Epoch":
        """This epoch, whose figures stand, with the time and memory that it took when it was trained again."""
        return self.model_copy(update={name: getattr(again, name) for name in MEASURED})

    def value(self, metric: str) -> float:
        """The metric on val, or on train where there is no val."""
        return (self.val or self.train).value(metric)

    def known(self, metric: str) -> float | None:
        """The same; None where there is no val and train does not record the metric."""
        return self.value(metric) if self.val or metric in self.train.metrics else None
