"""Where a search begins: open values as a recipe that leaves them out would have them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.tree import Choice, Node, Range, plain
from trainers.config import NAMED, TrainConfig

COSTS = ("epochs", "batch_size", "image_size")  # a matter of the data and the machine: their middle is the start


def parameters(tree: Node, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a first trial: the `defaults` of its backbone (trainers/families.py), as far as offered.

    Of a range the nearest value, of a choice the option itself or the nearest number; where a recipe has no default,
    the middle of the range and the first option.
    """
    usual = TrainConfig.model_validate(defaults).model_dump(mode="json")
    usual["drop_path"] = usual["drop_path"] or 0.0  # nothing said is none
    return dict(_walk(tree, "", "", {key: value for key, value in usual.items() if key not in COSTS}))


def _walk(node: Node, name: str, part: str, usual: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of every open value in a node of the part `part`, whose default is `usual`."""
    match node.value:
        case dict() as entries:
            known = _defaults(part, entries, usual)
            for key, child in entries.items():
                yield from _walk(child, f"{name}.{key}" if name else key, part or key, known.get(key))
        case list() as items:
            for index, child in enumerate(items):
                yield from _walk(child, f"{name}.{index}", part, None)
        case Choice() as hole:
            label = _option(hole, usual)
            yield name, label
            yield from _walk(hole.node(label), f"{name}.{label}", part, usual)
        case Range() as hole:
            yield name, hole.near(usual) if _number(usual) else hole.middle()


def _defaults(part: str, entries: Mapping[Any, Node], usual: Any) -> Mapping[str, Any]:
    """The defaults of a mapping: those of its own name, where it has another than is usual."""
    label = entries["name"].value if part in NAMED and "name" in entries else None
    if isinstance(label, str) and not (isinstance(usual, dict) and usual.get("name") == label):
        of_name = TrainConfig.model_validate({"backbone": "", part: {"name": label}})
        defaults: dict[str, Any] = of_name.model_dump(mode="json")[part]
        return defaults
    return usual if isinstance(usual, dict) else {}


def _option(hole: Choice, usual: Any) -> Any:
    wanted = usual.get("name") if isinstance(usual, dict) else usual
    for label, node in zip(hole.labels, hole.nodes, strict=True):
        named = node.value.get("name") if isinstance(node.value, dict) else None
        found = named.value if named else plain(node)
        if wanted is not None and wanted == found and _number(wanted) == _number(found):
            return label
    numbers = [label for label in hole.labels if isinstance(label, int | float)]
    if isinstance(wanted, int | float) and len(numbers) == len(hole.labels):
        goal = float(wanted)
        return min(numbers, key=lambda label: abs(label - goal))
    return hole.middle()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
