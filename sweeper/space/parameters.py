"""Reads distributions: mappings such as {uniform: [0, 5]} become Range, Choice and PerCategory, or a UserError."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any, NoReturn, get_args

from sweeper.space import hints
from sweeper.space.tree import Choice, Kind, Node, PerCategory, Range, Scalar, flow, plain
from trainers.support.errors import UserError
from trainers.support.text import did_you_mean

RANGES: tuple[str, ...] = get_args(Kind)
KINDS = ("choice", *RANGES, "per_category")


def is_distribution(node: Node) -> bool:
    """True if a mapping is a distribution, not a value."""
    return isinstance(node.value, dict) and any(kind in node.value for kind in KINDS)


def opened(node: Node, name: str) -> Node:
    """Return the tree with every distribution read; `name` is its dotted path, for messages."""
    if isinstance(node.value, list):
        return replace(node, value=[opened(child, f"{name}.{i}") for i, child in enumerate(node.value)])
    if not isinstance(node.value, dict):
        return node
    if is_distribution(node):
        return replace(node, value=_distribution(node.value, name))
    if [*node.value] == ["each"]:
        where = node.value["each"].key
        raise UserError(f"{name}: each was renamed to 'per_category'", where=where, help="write the new name")
    _refuse_misspelt(node.value, name)
    return replace(node, value={key: opened(child, f"{name}.{key}") for key, child in node.value.items()})


def closed(node: Node, name: str) -> None:
    """Raise UserError for a distribution where none is allowed."""
    if is_distribution(node):
        raise UserError(
            f"{name} cannot be left open",
            where=node.where,
            help="only values under train can be left open; to compare two of these, run two studies",
        )
    for key, child in node.value.items() if isinstance(node.value, dict) else ():
        closed(child, f"{name}.{key}")


def _refuse_misspelt(entries: dict[str, Node], name: str) -> None:
    """Refuse mappings such as `{unifrom: [0, 5]}`, a misspelt distribution, or `{min: 0, max: 5}`, another tool's."""
    free = name.endswith((".category_weights", ".backbone_args"))  # keys of the user's own
    if not free and (written := hints.opening({key: plain(child) for key, child in entries.items()})):
        key, first = next(iter(entries.items()))
        raise UserError(f"unknown distribution '{key}' in {name}", where=first.key, help=f"write {written}")
    for key, child in entries.items():
        if len(entries) == 1 and isinstance(child.value, list) and (near := did_you_mean(key, KINDS)):
            raise UserError(f"unknown distribution '{key}' in {name}", where=child.key, help=near)


def _distribution(entries: dict[str, Node], name: str) -> Range | Choice | PerCategory:
    kind, *others = [key for key in entries if key in KINDS]
    if others:
        raise UserError(
            f"{name} is left open in two ways, {kind} and {others[0]}",
            where=entries[others[0]].key,
            help="keep one of them",
        )
    for key, child in entries.items():
        if key != kind and not (key == "step" and kind in ("uniform", "int")):
            remedy = "" if key == "step" else did_you_mean(key, ["step"])
            remedy = remedy or "only uniform and int take another key, step"
            raise UserError(f"unknown key '{key}' beside {kind} in {name}", where=child.key, help=remedy)
    if kind == "choice":
        return _choice(entries[kind], name)
    return _each(entries[kind], name) if kind == "per_category" else _range(kind, entries, name)


def _each(node: Node, name: str) -> PerCategory:
    if not is_distribution(node):
        raise UserError(
            f"{name}: per_category needs a distribution, found {flow(plain(node))}",
            where=node.where,
            help="such as {per_category: {uniform: [0.5, 1.5]}}",
        )
    return PerCategory(opened(node, name))


# ------------------------------------------------------------------------------------------- ranges
def _range(kind: Any, entries: dict[str, Node], name: str) -> Range:
    node = entries[kind]
    if not (isinstance(node.value, list) and len(node.value) == 2):
        raise UserError(
            f"{name}: {kind} needs two bounds, found {flow(plain(node))}",
            where=node.where,
            help=f"such as {{{kind}: [1, 10]}}",
        )
    low, high = (_bound(kind, bound, name) for bound in node.value)
    where = (node.value[0].where, node.value[1].where)
    if low >= high:
        remedy = f"swap them: [{flow(high)}, {flow(low)}]" if low > high else f"write the value itself: {flow(low)}"
        what = "is not above" if low == high else "is below"
        raise UserError(
            f"{name}: the high bound {flow(high)} {what} the low bound {flow(low)}", where=where[1], help=remedy
        )
    if kind.startswith("log") and low <= 0:
        linear = "int" if kind == "logint" else "uniform"
        raise UserError(
            f"{name}: {kind} needs a low bound above 0, found {flow(low)}",
            where=where[0],
            help=f"a logarithmic scale has no 0; raise the bound or use {linear}",
        )
    return Range(kind, low, high, _step(kind, entries["step"], low, high, name) if "step" in entries else None, where)


def _bound(kind: str, node: Node, name: str) -> float:
    value, whole = node.value, kind in ("int", "logint")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        wanted = "whole numbers" if whole else "numbers"
        remedy = (
            f"use {'loguniform' if kind == 'logint' else 'uniform'}"
            if isinstance(value, float)
            else f"such as {{{kind}: [1, 10]}}"
        )
        raise UserError(f"{name}: {kind} needs {wanted}, found {flow(plain(node))}", where=node.where, help=remedy)
    return value if whole else float(value)


def _step(kind: str, node: Node, low: float, high: float, name: str) -> float:
    step = _bound(kind, node, f"{name}: step of")
    if step <= 0:
        raise UserError(f"{name}: step must be above 0, found {flow(step)}", where=node.where)
    if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        steps = (Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step))
        last = float(Decimal(str(low)) + steps * Decimal(str(step)))
        raise UserError(
            f"{name}: a step of {flow(step)} does not lead from {flow(low)} to {flow(high)}",
            where=node.where,
            help=f"the last value it reaches is {last:g}",
        )
    return step


# ------------------------------------------------------------------------------------------ choices
def _choice(node: Node, name: str) -> Choice:
    if not isinstance(node.value, list) or not node.value:
        found = "an empty one" if isinstance(node.value, list) else flow(plain(node))
        raise UserError(
            f"{name}: choice needs a list of values, found {found}", where=node.where, help="such as {choice: [1, 2]}"
        )
    labels: list[Scalar] = []
    for index, option in enumerate(node.value):
        label = _label(option, index)
        if label in labels and not isinstance(option.value, dict):
            _listed_twice(option, name)
        labels.append(_unique(label, labels))
    nodes = [opened(option, f"{name}.{label}") for option, label in zip(node.value, labels, strict=True)]
    return Choice(tuple(labels), tuple(nodes))


def _label(node: Node, index: int) -> Scalar:
    """Return an option's label: a scalar itself, a branch's name, else its text, or its index if it is left open."""
    if not isinstance(node.value, dict | list):
        return node.value  # type: ignore[return-value]
    if is_distribution(node):
        return next(kind for kind in KINDS if kind in node.value)
    named = node.value.get("name") if isinstance(node.value, dict) else None
    if named is not None and isinstance(named.value, str):
        return named.value
    return str(index) if _has_distributions(node) else flow(plain(node))


def _has_distributions(node: Node) -> bool:
    inside = (
        node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    )
    return is_distribution(node) or any(map(_has_distributions, inside))


def _unique(label: Scalar, taken: list[Scalar]) -> Scalar:
    """Return a unique label: name_2 for the second branch of a name, name_3 for the third."""
    count = Counter(taken)
    return (
        label
        if label not in count
        else next(text for n in range(2, len(taken) + 2) if (text := f"{label}_{n}") not in count)
    )


def _listed_twice(node: Node, name: str) -> NoReturn:
    raise UserError(f"{name}: choice lists {flow(plain(node))} twice", where=node.where, help="keep one of them")
