"""The metrics by name: the standard ones, which every epoch records, scikit-learn's, and registered ones."""

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
    """A metric; with `minimize`, lower is better.

    `function` is called for each category separately, with the images whose answer is known, and the metric is the
    mean: it takes probabilities [N, C] and labels [N] int64. For a category with several answers, if `kinds` includes
    these, it is called for each class, with probabilities [N] and labels 0 and 1, and the category's value is the
    mean. A class or category for which it returns None is left out of the mean. Without `per_category` it is called
    once, for all categories with one answer: probabilities [K] of [N, C] and labels [N, K], where -1 is a missing
    answer. Probabilities are float32, or float64 for the built-in metrics.
    """

    name: str
    function: Callable[[Any, Any], float | None] | None  # None: a standard metric, counted during prediction
    minimize: bool = False
    per_category: bool = True
    description: str = ""
    kinds: tuple[Kind, ...] = ONE  # of categories that it applies to; the data need one


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
            "mean F1 of the classes that occur or are predicted, where a class that is only predicted counts as 0;"
            " scikit-learn's f1_score(average='macro')",
        ),
        _standard(
            "macro_precision",
            BOTH,
            "mean precision of the classes that occur or are predicted, where a class that is never predicted counts"
            " as 0; scikit-learn's precision_score(average='macro')",
        ),
        _standard(
            "macro_recall",
            BOTH,
            "mean recall of the classes that occur or are predicted, where a class that is only predicted counts as"
            " 0; scikit-learn's recall_score(average='macro')",
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
            "mean over the categories of their accuracy or, with several answers, their mean average precision",
        ),
        MetricDefinition(
            "log_loss",
            scikit.log_loss,
            minimize=True,
            kinds=BOTH,
            description="lower is better: mean over the categories of scikit-learn's log_loss; with several answers,"
            " its mean over the classes",
        ),
        MetricDefinition(
            "roc_auc",
            scikit.roc_auc,
            kinds=BOTH,
            description="mean over the categories of scikit-learn's roc_auc_score: with two classes the plain one,"
            " with more each class that occurs against the rest (ovr, macro); with several answers, its mean over the"
            " classes that some images have and some lack. A category in which a single class occurs is left out",
        ),
        MetricDefinition(
            "average_precision",
            scikit.average_precision,
            kinds=BOTH,
            description="mean over the categories of scikit-learn's average_precision_score(average='macro'), over"
            " the classes that occur",
        ),
        MetricDefinition(
            "top_3_accuracy",
            scikit.top_3_accuracy,
            description="mean over the categories with one answer of scikit-learn's top_k_accuracy_score(k=3); 1"
            " if there are at most three classes",
        ),
        MetricDefinition(
            "quadratic_kappa",
            scikit.quadratic_kappa,
            description="mean over the categories with one answer of scikit-learn's"
            " cohen_kappa_score(weights='quadratic'), with the classes in their order. A category in which a single"
            " class occurs is left out",
        ),
        MetricDefinition(
            "matthews",
            scikit.matthews,
            description="mean over the categories with one answer of scikit-learn's matthews_corrcoef. A category in"
            " which a single class occurs is left out",
        ),
    )
}
"""The standard metrics average over the classes of all categories at once and ignore missing answers.

The two accuracies apply to categories with one answer; micro_f1, mean_average_precision and mean_category_score need
a category with several; the macro figures are over the classes of both.
"""
SINGLE = ("overall_accuracy", "mean_class_accuracy")
"""The metrics that use only the categories with one answer; they are reported for every model."""
STANDARD = tuple(name for name, one in BUILT_IN.items() if one.function is None)
SELECTIONS = ("last", "metric", "loss")
"""The values of `train.selection` other than the name of a metric."""
REGISTERED: dict[str, MetricDefinition] = {}


def register(one: MetricDefinition) -> None:
    """Register a user's metric under its name; it replaces a registered one of that name.

    Raises UserError if a built-in metric, or a value of `train.selection`, has that name.
    """
    if one.name in BUILT_IN or one.name in SELECTIONS:
        raise UserError(f"there is a built-in metric '{one.name}'", help="give yours another name")
    REGISTERED[one.name] = one


def names() -> list[str]:
    """Return the names of all metrics, the standard ones first."""
    return [*BUILT_IN, *REGISTERED]


def find(name: str) -> MetricDefinition | None:
    """Return the metric of that name, if there is one."""
    return BUILT_IN.get(name) or REGISTERED.get(name)


def definition(name: str) -> MetricDefinition:
    """Return the metric of that name. Raises UserError if there is none."""
    if (one := find(name)) is None:
        raise UserError(f"unknown metric '{name}'", help=f"it can be {', '.join(names())}")
    return one


def minimizes(name: str) -> bool:
    """True if the metric is known and lower is better. A stored recipe has its own record of this."""
    one = find(name)
    return one is not None and one.minimize


def oriented(value: float, *, minimize: bool) -> float:
    """Return the value oriented so that larger is better."""
    return -value if minimize else value


def lacking(multi: Sequence[bool]) -> list[str]:
    """Return the metrics that do not apply to the data; multi [K] marks categories with several answers."""
    there = {BOTH[several] for several in multi}
    return [one.name for one in map(definition, names()) if there.isdisjoint(one.kinds)]
