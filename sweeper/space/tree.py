"""A recipe with some values left open, as a tree that records the place of everything in the file."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

Scalar = None | bool | int | float | str


_NULL, _BOOL = re.compile(r"|~|null|Null|NULL"), re.compile(r"true|True|TRUE|false|False|FALSE")


_INT, _BASED = re.compile(r"[-+]?[0-9]+"), re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


_PLAIN = re.compile(r"(\.{1,2}/)?[\w/]([\w./+ -]*[\w./+-])?", re.ASCII)


def scalar(text: str) -> Scalar:
    """Return the value of an unquoted YAML scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _BASED.fullmatch(text) and len(text) < 20:
        return int(text, 0)
    return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text) if _FLOAT.fullmatch(text) else text


def flow(value: Any) -> str:
    """Return `value` (JSON types) on one line of YAML 1.2 that reads back as the same."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(str(k))}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and scalar(value) == value:
        return value
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'


Kind = Literal["uniform", "loguniform", "int", "logint"]
Options = Callable[[str, "Distribution"], list[Any]]
"""The values to try for a parameter, given its dotted name and its distribution."""


@dataclass(frozen=True)
class Node:
    """A value; `where` is its place (file:line:column), `key` the place of its key."""

    value: "Scalar | dict[str, Node] | list[Node] | Distribution | PerCategory"
    where: str = field(default="", compare=False)
    key: str = field(default="", compare=False)


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, both included, on a linear or a logarithmic scale."""

    kind: Kind
    low: float
    high: float
    step: float | None = None
    where: tuple[str, str] = field(default=("", ""), compare=False)  # places of low and high

    @property
    def whole(self) -> bool:
        return self.kind in ("int", "logint")

    @property
    def log(self) -> bool:
        return self.kind in ("loguniform", "logint")

    def bounds(self) -> list[Any]:
        return [self.low, self.high]

    def midpoint(self) -> float:
        """Return the geometric middle on a logarithmic scale, else the arithmetic one; to three digits or a step."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step:
            return self.at(int((middle - self.low) // self.step))
        rounded = round(middle) if self.whole else float(f"{middle:.3g}")
        return min(max(rounded, self.low), self.high)

    def near(self, value: float) -> float:
        """Return the value of the range nearest to `value`."""
        inside = min(max(value, self.low), self.high)
        if self.step:
            return self.at(round((inside - self.low) / self.step))
        return round(inside) if self.whole else float(inside)

    def at(self, index: int) -> float:
        """Return the value `index` steps above `low`, without the rounding errors of binary fractions."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step))
        return int(value) if self.whole else float(value)

    def values(self) -> Sequence[Any] | None:
        """Return all values, or None if there are infinitely many."""
        if self.whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        return [self.at(i) for i in range(round((self.high - self.low) / self.step) + 1)] if self.step else None

    def node(self, value: Any) -> Node:
        return Node(value, self.where[1] if value == self.high else self.where[0])

    def __str__(self) -> str:
        step = "" if self.step is None else f" step {flow(self.step)}"
        return f"{self.kind} {flow([self.low, self.high])}{step}"


@dataclass(frozen=True)
class Choice:
    """One of several values, or of several branches with parameters of their own.

    The search sees `labels`: a scalar is its own label, a branch goes by its `name`.
    """

    labels: tuple[Scalar, ...]
    nodes: tuple[Node, ...]

    def bounds(self) -> list[Any]:
        return list(self.labels)

    def midpoint(self) -> Scalar:
        return self.labels[0]

    def values(self) -> Sequence[Any]:
        return self.labels

    def node(self, value: Any) -> Node:
        """Return the node with the label `value`; LookupError if there is none."""
        for label, node in zip(self.labels, self.nodes, strict=True):
            if label == value:
                return node
        raise LookupError(value)

    def __str__(self) -> str:
        return f"choice {flow(list(self.labels))}"


@dataclass(frozen=True)
class PerCategory:
    """The same distribution once for every category; `expand` turns it into a mapping."""

    node: Node


Distribution = Range | Choice


def plain(node: Node) -> Any:
    """Return the JSON form of a tree; a distribution is {kind: [low, high]} or {choice: [[label, value], ...]}."""
    match node.value:
        case dict() as entries:
            return {name: plain(child) for name, child in entries.items()}
        case list() as items:
            return [plain(child) for child in items]
        case Choice() as distribution:
            return {
                "choice": [
                    [label, plain(child)]
                    for label, child in zip(distribution.labels, distribution.nodes, strict=True)
                ]
            }
        case Range() as distribution:
            return {distribution.kind: [distribution.low, distribution.high]} | (
                {} if distribution.step is None else {"step": distribution.step}
            )
        case PerCategory() as each:
            return {"per_category": plain(each.node)}
    return node.value


def leaf(value: Any) -> Node:
    """Return plain values as a tree, without a place in any file."""
    if isinstance(value, dict):
        return Node({key: leaf(child) for key, child in value.items()})
    return Node([leaf(child) for child in value] if isinstance(value, list) else value)


def expand(node: Node, categories: Sequence[str]) -> Node:
    """Return the tree with every `per_category` written out as one parameter per category."""
    match node.value:
        case dict() as entries:
            return replace(node, value={name: expand(child, categories) for name, child in entries.items()})
        case list() as items:
            return replace(node, value=[expand(child, categories) for child in items])
        case Choice() as distribution:
            return replace(
                node, value=replace(distribution, nodes=tuple(expand(n, categories) for n in distribution.nodes))
            )
        case PerCategory() as each:
            return replace(node, value=dict.fromkeys(categories, each.node))
    return node


def configurations(node: Node, name: str, options: Options) -> Iterator[tuple[dict[str, Any], Node]]:
    """Yield every way to close the tree with the values that `options` offers: the parameters, and the closed tree.

    `options` is called for the parameters of a branch only if that branch is chosen.
    """
    match node.value:
        case dict() as entries:
            for params, parts in _products(list(entries.items()), name, options):
                yield params, replace(node, value=parts)
        case list() as items:
            for params, parts in _products(list(enumerate(items)), name, options):
                yield params, replace(node, value=list(parts.values()))
        case Choice() | Range() as distribution:
            for value in options(name, distribution):
                inner = f"{name}.{value}" if isinstance(distribution, Choice) else name
                for params, closed in configurations(distribution.node(value), inner, options):
                    yield {name: value} | params, replace(closed, key=node.key)
        case _:
            yield {}, node


def _products(
    entries: list[tuple[Any, Node]], name: str, options: Options
) -> Iterator[tuple[dict[str, Any], dict[Any, Node]]]:
    if not entries:
        yield {}, {}
        return
    (key, child), *others = entries
    for params, closed in configurations(child, f"{name}.{key}" if name else str(key), options):
        for more, rest in _products(others, name, options):
            yield params | more, {key: closed} | rest


def parameters(node: Node, name: str = "", given: Mapping[str, Any] | None = None) -> Iterator["Parameter"]:
    """Yield every parameter of the tree in the order of the file, those of a branch after its choice."""
    given = given or {}
    if isinstance(node.value, Choice | Range):
        yield Parameter(name, node, node.value, given)
    match node.value:
        case dict() as entries:
            children = [(f"{name}.{key}" if name else key, child, given) for key, child in entries.items()]
        case list() as items:
            children = [(f"{name}.{index}", child, given) for index, child in enumerate(items)]
        case Choice() as distribution:
            pairs = zip(distribution.labels, distribution.nodes, strict=True)
            children = [(f"{name}.{label}", child, {**given, name: label}) for label, child in pairs]
        case _:
            children = []
    for inner, child, conditions in children:
        yield from parameters(child, inner, conditions)


@dataclass(frozen=True)
class Parameter:
    """A parameter: its dotted name, its place, and the choices under which it exists."""

    name: str
    node: Node
    distribution: Distribution
    given: Mapping[str, Any]


def size(node: Node) -> int | None:
    """Return the number of closed trees, or None if there are infinitely many."""
    match node.value:
        case Range() as distribution:
            values = distribution.values()
            return None if values is None else len(values)
        case Choice() as distribution:
            sizes = [size(child) for child in distribution.nodes]
            return None if None in sizes else sum(s or 0 for s in sizes)
        case dict() as entries:
            sizes = [size(child) for child in entries.values()]
        case list() as items:
            sizes = [size(child) for child in items]
        case _:
            return 1
    return None if None in sizes else math.prod(s or 0 for s in sizes)
