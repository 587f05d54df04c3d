"""The record of one epoch: scores, and what else was measured."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal[
    "overall_accuracy",
    "mean_class_accuracy",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "micro_f1",
    "mean_average_precision",
    "mean_category_score",
]
SINGLE: tuple[Metric, ...] = ("overall_accuracy", "mean_class_accuracy")
"""What stands on the categories with one answer alone."""
MULTI: tuple[Metric, ...] = ("micro_f1", "mean_average_precision", "mean_category_score")
"""What only data with a category of several answers have."""


METRICS: dict[Metric, str] = {
    "overall_accuracy": "right answers / (images x categories); scikit-learn's accuracy_score",
    "mean_class_accuracy": "mean recall of the classes that occur; scikit-learn's balanced_accuracy_score",
    "macro_f1": "mean F1 of the classes that occur or are predicted, 0 for one that is only predicted; scikit-learn's"
    " f1_score(average='macro')",
    "macro_precision": "mean precision of the classes that occur or are predicted, 0 for one that is never predicted;"
    " scikit-learn's precision_score(average='macro')",
    "macro_recall": "mean recall of the classes that occur or are predicted, 0 for one that is only predicted;"
    " scikit-learn's recall_score(average='macro')",
    "micro_f1": "F1 of all answers together in the categories with several answers; scikit-learn's"
    " f1_score(average='micro')",
    "mean_average_precision": "mean average precision of the classes that occur in the categories with several"
    " answers; scikit-learn's average_precision_score(average='macro')",
    "mean_category_score": "mean over the categories of the accuracy, or with several answers of the mean average"
    " precision",
}
"""What each metric is. Means are over the classes of all categories at once, and missing answers count nowhere.

The two accuracies are of the categories with one answer, the last three need one with several; the other macro
figures are over the classes of both.
"""


def lacking(multi: Sequence[bool]) -> list[Metric]:
    """The metrics that data cannot have; multi [K]: whether a category has several answers."""
    return [*(SINGLE if all(multi) else ()), *(() if any(multi) else MULTI)]


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
    overall_accuracy: float | None = Field(None, exclude_if=_absent, description=METRICS["overall_accuracy"])
    mean_class_accuracy: float | None = Field(None, exclude_if=_absent, description=METRICS["mean_class_accuracy"])
    macro_precision: float = Field(description=METRICS["macro_precision"])
    macro_recall: float = Field(description=METRICS["macro_recall"])
    macro_f1: float = Field(description=METRICS["macro_f1"])
    micro_f1: float | None = Field(None, exclude_if=_absent, description=METRICS["micro_f1"])
    mean_average_precision: float | None = Field(
        None, exclude_if=_absent, description=METRICS["mean_average_precision"]
    )
    mean_category_score: float | None = Field(None, exclude_if=_absent, description=METRICS["mean_category_score"])
    category_accuracy: dict[str, float] = Field(
        description="accuracy of each category, by name; of one with several answers the mean average precision"
    )
    category_answers: dict[str, int] = Field(
        default_factory=dict,
        exclude_if=_absent,
        description="images with a known answer, by category; where any is missing",
    )

    def value(self, metric: Metric) -> float:
        """The metric. Raises ValueError where the data have no category that it stands on."""
        found: float | None = getattr(self, metric)
        if found is None:
            raise ValueError(f"no {metric}: the data set has no category for it")
        return found

    @property
    def metrics(self) -> dict[Metric, float]:
        """Every metric that the data have."""
        return {name: value for name in METRICS if (value := getattr(self, name)) is not None}


THRESHOLDS = (
    "probability from which on a class is an answer, for each class of each category with several; where fitted"
)


class Look(Scores):
    """Val through the views of test-time augmentation."""

    tau: float | None = Field(None, description="strength of the correction that was fitted to these predictions")
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)


class Corrected(Part):
    """What posterior correction makes of a metric on val."""

    tau: float = Field(description="the strength that is best by this metric on the whole of val")
    value: float = Field(description="the metric, each fold of val with the tau of the others")


class Epoch(Part):
    """What one pass over the training images left behind: one line of history.jsonl."""

    number: int = Field(ge=1, description="1 for the first")
    train: Scores = Field(description="on the augmented images, as they passed")
    val: Scores | None = Field(description="on val, without augmentation; none when there is no val")
    plain: Scores | None = Field(None, description="val without the correction that the recipe asks for")
    corrected: dict[Metric, Corrected] = Field(
        default_factory=dict, description="what a fitted correction would give, for the two accuracies and the metric"
    )
    thresholds: dict[str, tuple[float, ...]] | None = Field(None, description=THRESHOLDS)
    lr: float = Field(description="learning rate of the head at the last step")
    seconds: float = Field(description="wall time of the epoch, evaluation included")
    images_per_second: float = Field(description="training images over the time spent training")
    peak_memory_gb: float = Field(description="peak memory, GiB: taken from the GPU, or of the process on a CPU")
    time: float = Field(description="Unix time when the epoch ended, seconds")

    def value(self, metric: Metric) -> float:
        """The metric on val, or on train where there is no val."""
        return (self.val or self.train).value(metric)
