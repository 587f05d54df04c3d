"""The place of a recipe in a search space: the parameters that close the tree to it, or the reason for none."""

from collections.abc import Iterator
from typing import Any

from sweeper.space.tree import Choice, Node, Range, flow


class NotInSpace(Exception):
    """No parameters close the tree to the recipe; the text names the value that prevents it."""


def candidates(node: Node, value: Any, name: str, why: list[str]) -> Iterator[dict[str, Any]]:
    """Yield parameters that may close `node` to the plain `value`, which has every default; add obstacles to `why`.

    They are only candidates, because the tree leaves defaults out: the caller closes the tree and compares.
    """
    match node.value:
        case dict() as entries:
            parts = [(_inner(name, key), child, _get(value, key)) for key, child in entries.items()]
            yield from _products(parts, why)
        case list() as items:
            parts = [(_inner(name, n), child, _get(value, n)) for n, child in enumerate(items)]
            yield from _products(parts, why)
        case Choice() as distribution:
            yield from _chosen(distribution, value, name, why)
        case Range() as distribution:
            if reason := beyond(distribution, value):
                why.append(f"{name} {reason}")
            else:
                yield {name: value}
        case _:
            if _same(node.value, value):
                yield {}
            else:
                why.append(f"{name} was {flow(_kind(value))}, not {flow(node.value)}")


def _inner(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _get(value: Any, key: Any) -> Any:
    """Return an entry of a mapping or a list, or None."""
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else None


def _products(parts: list[tuple[str, Node, Any]], why: list[str]) -> Iterator[dict[str, Any]]:
    if not parts:
        yield {}
        return
    (name, child, value), *others = parts
    for params in candidates(child, value, name, why):
        for more in _products(others, why):
            yield params | more


def _chosen(distribution: Choice, value: Any, name: str, why: list[str]) -> Iterator[dict[str, Any]]:
    reasons: list[str] = []
    found = False
    for label, node in zip(distribution.labels, distribution.nodes, strict=True):
        for params in candidates(node, value, _inner(name, label), reasons):
            found = True
            yield {name: label} | params
    if not found:
        kind = _kind(value)
        deeper = [
            reason for reason in reasons if kind in distribution.labels and reason.startswith(f"{name}.{kind}.")
        ]
        why.append(deeper[0] if deeper else f"{name} {flow(kind)} is not in {flow(list(distribution.labels))}")


def beyond(distribution: Range, value: Any) -> str:
    """Return the reason why a range does not contain `value`, or an empty string."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"was {flow(value)}, not a number"
    if value > distribution.high or value < distribution.low:
        return (
            f"{value:g} > {distribution.high:g}" if value > distribution.high else f"{value:g} < {distribution.low:g}"
        )
    return "" if distribution.near(value) == value else f"{value:g} is not in {distribution}"


def _same(mine: Any, value: Any) -> bool:
    """True if both are the same fixed value; a part may be written as its name alone."""
    return bool(mine == value) or (isinstance(mine, str) and mine == _kind(value))


def _kind(value: Any) -> Any:
    """Return the name of a part, or the value itself."""
    return value["name"] if isinstance(value, dict) and isinstance(value.get("name"), str) else value
