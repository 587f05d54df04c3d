"""Overrides of single values of a search space: `--set train.loss.gamma=2`."""

from dataclasses import replace
from typing import NoReturn

from sweeper.space.parameters import is_distribution
from sweeper.space.tree import Node
from trainers.config import NAMED as PARTS
from trainers.support.errors import UserError
from trainers.support.text import did_you_mean

NAMED = (*PARTS, "sampler", "pruner")
"""Keys whose value may be a name alone, as short for {name: ...}."""


def split(assignment: str) -> tuple[list[str], str]:
    """Return the keys and the YAML text of `a.b=text`."""
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(
            "--set needs path=value", where=f"--set {assignment}", help="such as --set train.loss.gamma=2"
        )
    return keys, text


def put(tree: Node, keys: list[str], value: Node, name: str = "") -> Node:
    """Return the tree with `value` at the path `keys`, replaced or added; new keys are validated with the rest."""
    if not keys:
        return replace(value, key=tree.key or value.where)
    if is_distribution(tree):
        _refuse_open(name, value)
    key, *others = keys
    inner = f"{name}.{key}" if name else key
    if isinstance(tree.value, list):
        index = _index(key, len(tree.value), name, value)
        items = [put(item, others, value, inner) if i == index else item for i, item in enumerate(tree.value)]
        return replace(tree, value=items)
    entries = _entries(tree, name, value)
    child = entries.get(key, Node({}, value.where, value.where))
    return replace(tree, value={**entries, key: put(child, others, value, inner)})


def _entries(tree: Node, name: str, value: Node) -> dict[str, Node]:
    if isinstance(tree.value, dict):
        return tree.value
    if isinstance(tree.value, str) and name.split(".")[-1] in NAMED:
        return {"name": replace(tree)}
    if tree.value is None:
        return {}
    raise UserError(f"{name} is a single value and has no keys", where=value.where, help=f"--set {name}=VALUE")


def _index(key: str, length: int, name: str, value: Node) -> int:
    if key.isdecimal() and int(key) < length:
        return int(key)
    known = [str(index) for index in range(length)]
    raise UserError(
        f"{name} is a list of {length} and has no '{key}'",
        where=value.where,
        help=did_you_mean(key, known) or f"count from 0, or set the whole list: --set '{name}=[...]'",
    )


def _refuse_open(name: str, value: Node) -> NoReturn:
    raise UserError(
        f"{name} is left open, so --set cannot reach into it",
        where=value.where,
        help=f"set all of it, such as --set '{name}=VALUE' or --set '{name}={{choice: [...]}}'",
    )
