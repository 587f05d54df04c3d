"""The metrics by name: the standard ones, which every epoch has, scikit-learn's, and those that are registered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainers.metrics import scikit
from trainers.support.errors import UserError

Kind = Literal["one answer", "several answers"]
ONE: tuple[Kind, ...] = ("one answer",)
SEVERAL: tuple[Kind, ...] = ("several answers",)
BOTH: tuple[Kind, ...] = (*ONE, *SEVERAL)


@dataclass(frozen=True)
class MetricDefinition:
    """A metric; `minimize`: less of it is better.

    `function` is asked about each category by itself, about the images whose answer is known, and the metric is the
    mean: it takes probabilities [N, C] and labels [N] int64. In a category with several answers, where `kinds` has
    such, it is asked about each class, with probabilities [N] and labels 0 and 1, and the category's figure is the
    mean. Where it returns None a class or category is left out of the mean. Without `per_category` it is asked once,
    about all categories with one answer: probabilities [K] of [N, C], and labels [N, K], -1 where the answer is
    missing. Probabilities are float32, those of the built-in metrics float64.
    """

    name: str
    function: Callable[[Any, Any], float | None] | None  # None: a standard metric, counted while predictions are made
    minimize: bool = False
    per_category: bool = True
    description: str = ""
    kinds: tuple[Kind, ...] = ONE  # of categories that it stands on; the data need one


def _standard(name: str, kinds: tuple[Kind, ...], description: str) -> MetricDefinition:
    return MetricDefinition(name, None, description=description, kinds=kinds)


BUILT_IN: dict[str, MetricDefinition] = {
    one.name: one
    for one in (
        _standard("overall_accuracy", ONE, "right answers / (images x categories); scikit-learn's accuracy_score"),
        _standard(
            "mean_class_accuracy",
            ONE,
            "mean recall of the classes that occur; scikit-learn's balanced_accuracy_score",
        ),
        _standard(
            "macro_f1",
            BOTH,
            "mean F1 of the classes that occur or are predicted, 0 for one that is only predicted; scikit-learn's"
            " f1_score(average='macro')",
        ),
        _standard(
            "macro_precision",
            BOTH,
            "mean precision of the classes that occur or are predicted, 0 for one that is never predicted;"
            " scikit-learn's precision_score(average='macro')",
        ),
        _standard(
            "macro_recall",
            BOTH,
            "mean recall of the classes that occur or are predicted, 0 for one that is only predicted;"
            " scikit-learn's recall_score(average='macro')",
        ),
        _standard(
            "micro_f1",
            SEVERAL,
            "F1 of all answers together in the categories with several answers; scikit-learn's"
            " f1_score(average='micro')",
        ),
        _standard(
            "mean_average_precision",
            SEVERAL,
            "mean average precision of the classes that occur in the categories with several answers; scikit-learn's"
            " average_precision_score(average='macro')",
        ),
        _standard(
            "mean_category_score",
            SEVERAL,
            "mean over the categories of the accuracy, or with several answers of the mean average precision",
        ),
        MetricDefinition(
            "log_loss",
            scikit.log_loss,
            minimize=True,
            kinds=BOTH,
            description="less is better: mean over the categories of scikit-learn's log_loss; with several answers"
            " the mean over the classes",
        ),
        MetricDefinition(
            "roc_auc",
            scikit.roc_auc,
            kinds=BOTH,
            description="mean over the categories of scikit-learn's roc_auc_score: of two classes the plain one, of"
            " more each class that occurs against the rest (ovr, macro); with several answers the mean over the"
            " classes that some images have and some lack. A category that shows a single class is left out",
        ),
        MetricDefinition(
            "average_precision",
            scikit.average_precision,
            kinds=BOTH,
            description="mean over the categories of scikit-learn's average_precision_score(average='macro') of the"
            " classes that occur",
        ),
        MetricDefinition(
            "top_3_accuracy",
            scikit.top_3_accuracy,
            description="mean over the categories with one answer of scikit-learn's top_k_accuracy_score(k=3); 1"
            " where there are no more than three classes",
        ),
        MetricDefinition(
            "quadratic_kappa",
            scikit.quadratic_kappa,
            description="mean over the categories with one answer of scikit-learn's"
            " cohen_kappa_score(weights='quadratic'), classes in their order. A category that shows a single class is"
            " left out",
        ),
        MetricDefinition(
            "matthews",
            scikit.matthews,
            description="mean over the categories with one answer of scikit-learn's matthews_corrcoef. A category"
            " that shows a single class is left out",
        ),
    )
}
"""Means of the standard ones are over the classes of all categories at once, and missing answers count nowhere.

The two accuracies are of the categories with one answer; micro_f1, mean_average_precision and mean_category_score
need one with several; the other macro figures are over the classes of both.
"""
SINGLE = ("overall_accuracy", "mean_class_accuracy")
"""What stands on the categories with one answer alone, and is told of every model."""
STANDARD = tuple(name for name, one in BUILT_IN.items() if one.function is None)
SELECTIONS = ("last", "metric", "loss")
"""What `train.selection` can be beside a metric."""
REGISTERED: dict[str, MetricDefinition] = {}


def register(one: MetricDefinition) -> None:
    """Have a metric that somebody defined known by its name; it replaces a registered one of that name.

    Raises UserError where a built-in metric, or a value of `train.selection`, is called so.
    """
    if one.name in BUILT_IN or one.name in SELECTIONS:
        raise UserError(f"there is a built-in metric '{one.name}'", help="give yours another name")
    REGISTERED[one.name] = one


def names() -> list[str]:
    """Those of all metrics, the standard ones first."""
    return [*BUILT_IN, *REGISTERED]


def find(name: str) -> MetricDefinition | None:
    """The metric of that name, if there is one."""
    return BUILT_IN.get(name) or REGISTERED.get(name)


def definition(name: str) -> MetricDefinition:
    """The same. Raises UserError where there is none."""
    if (one := find(name)) is None:
        raise UserError(f"unknown metric '{name}'", help=f"it can be {', '.join(names())}")
    return one


def minimizes(name: str) -> bool:
    """Whether less of a metric is better, as far as it is known; a record says so itself."""
    one = find(name)
    return one is not None and one.minimize


def oriented(value: float, *, minimize: bool) -> float:
    """The value for comparisons: the larger the better."""
    return -value if minimize else value


def lacking(multi: Sequence[bool]) -> list[str]:
    """The metrics that data cannot have; multi [K]: whether a category has several answers."""
    there = {BOTH[several] for several in multi}
    return [one.name for one in map(definition, names()) if there.isdisjoint(one.kinds)]
