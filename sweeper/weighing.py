"""Whether the training images can answer for the class weights that a search space asks for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweeper.errors import UserError
from sweeper.space.tree import Choice, Node

if TYPE_CHECKING:
    from trainers.data.table import Table


def refuse_unseen(train: Node, table: "Table") -> None:
    """UserError where a trial may weigh classes by their training images while a class has none.

    Its weight would be made up. A logit-adjusted loss may stay: where there is no image it counts one, and asks the
    lead of the rarest.
    """
    from trainers.data import check

    chosen = next(_weighing(train), None)
    if chosen is None or not (absent := check.unseen(table)):
        return
    more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    raise UserError(
        f"class_weights {chosen.value} wants an image of every class, and no training image shows {absent[0]}{more}",
        where=chosen.where,
        help="write class_weights: none, or give the class a training image; `sweep data check` names each",
    )


def _weighing(train: Node) -> Iterator[Node]:
    """Every value that a trial may get for the loss's class_weights, but none."""
    for loss in _options(train, "loss"):
        yield from (weights for weights in _options(loss, "class_weights") if weights.value != "none")


def _options(node: Node, key: str) -> Iterator[Node]:
    """What stands under `key`: nothing, one value, or, where it is left open, every option."""
    waiting = [node.value[key]] if isinstance(node.value, dict) and key in node.value else []
    while waiting:
        option = waiting.pop(0)
        if isinstance(option.value, Choice):
            waiting += option.value.nodes
        else:
            yield option
