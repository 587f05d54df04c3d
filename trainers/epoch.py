"""The record of one epoch: its scores and other measurements."""

from collections.abc import Mapping
from operator import not_
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from trainers.metrics.definitions import BUILT_IN, STANDARD

MEANING = {name: BUILT_IN[name].description for name in STANDARD}


class Frozen(BaseModel):
    """A frozen record that refuses unknown fields, also in a changed copy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields in `update` changed, unvalidated. Raises TypeError for unknown fields."""
        if unknown := (update or {}).keys() - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


class Part(Frozen):
    """A piece of a recipe."""

    model_config = ConfigDict(allow_inf_nan=False)


def _absent(value: object) -> bool:
    """True for a figure that the data do not have; records leave it out."""
    return value is None or value == {}


class Scores(Part):
    """Scores of one split after one epoch. Accuracies are over the whole split, never a mean over batches."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    loss: float = Field(description="mean of the objective over the images; on val without mixing or label smoothing")
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
        description="accuracy of each category, by name; with several answers, its mean average precision"
    )
    category_answers: dict[str, int] = Field(
        default_factory=dict,
        exclude_if=_absent,
        description="images with a known answer, by category; only if any answer is missing",
    )
    further: dict[str, float] = Field(
        default_factory=dict,
        exclude_if=_absent,
        description="the study's metric and that of `selection`, unless they are among those above; not on train",
    )
    standard_errors: dict[str, float] = Field(
        default_factory=dict, exclude_if=_absent, description="on test, by metric: from a bootstrap over the images"
    )

    def value(self, metric: str) -> float:
        """Return the metric. Raises ValueError if the data have no category that it applies to."""
        if (found := self.metrics.get(metric)) is None:
            raise ValueError(f"no {metric}: the data set has no category for it")
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric that applies to the data and that the epoch records."""
        standard = {name: value for name in STANDARD if (value := getattr(self, name)) is not None}
        return standard | self.further


THRESHOLDS = (
    "probability above which a class is an answer, for each class of each category with several; only if fitted"
)

TEMPERATURE = (
    "divisor of a category's logits that calibrates its probabilities, by name; 1 if val has too few answers"
)


class Look(Scores):
    """Scores of val with the views of test-time augmentation."""

    tau: float | None = Field(None, description="strength of the correction that was fitted to these predictions")
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)
    temperature: dict[str, float] = Field(default_factory=dict, exclude_if=_absent, description=TEMPERATURE)


class Corrected(Part):
    """A metric on val after posterior correction."""

    tau: float = Field(description="the strength that is best by this metric on all of val")
    value: float = Field(description="the metric, with each fold of val corrected by the tau of the others")


class FoldScores(Scores):
    """Scores of a single fold of a cross-validation, after its selected epoch."""

    epoch: int = Field(ge=1, description="the selected epoch, counted from 1 in each fold")


MEASURED = ("seconds", "images_per_second", "peak_memory_gb", "time")  # of an epoch: they differ from run to run


class Epoch(Part):
    """The record of one pass over the training images: one line of history.jsonl."""

    number: int = Field(ge=1, description="1 for the first; in a cross-validation it continues from fold to fold")
    train: Scores = Field(
        description="on the augmented images, as they were trained on; average precision of more than 10 million"
        " logits is that of an even sample"
    )
    val: Scores | None = Field(description="on val, without augmentation; null if there is no val")
    plain: Scores | None = Field(None, description="val without the correction that the recipe requests")
    corrected: dict[str, Corrected] = Field(
        default_factory=dict, description="results of a fitted correction, for the two accuracies and the metric"
    )
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)
    temperature: dict[str, float] = Field(default_factory=dict, exclude_if=_absent, description=TEMPERATURE)
    folds: tuple[FoldScores, ...] = Field(
        (),
        exclude_if=not_,
        description="in the last epoch of a cross-validation, whose val is all folds together: each fold's scores",
    )
    lr: float = Field(description="learning rate of the head at the last step")
    seconds: float = Field(description="wall time of the epoch, including evaluation")
    images_per_second: float = Field(description="training images per second spent training")
    peak_memory_gb: float = Field(
        description="peak memory in GiB: reserved on the GPU, or used by the process on a CPU"
    )
    time: float = Field(description="Unix time at the end of the epoch, in seconds")

    def measured_as(self, again: "Epoch") -> "Epoch":
        """Return this epoch with its own figures, but the time and memory of its second training."""
        return self.model_copy(update={name: getattr(again, name) for name in MEASURED})

    def value(self, metric: str) -> float:
        """Return the metric on val, or on train if there is no val."""
        return (self.val or self.train).value(metric)

    def known(self, metric: str) -> float | None:
        """Return the same metric; None if there is no val and train does not record it."""
        return self.value(metric) if self.val or metric in self.train.metrics else None
