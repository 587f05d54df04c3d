"""The names that extension files define, and their keys, validated like those of sweep itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from sweeper.space.hints import parts, tag
from sweeper.space.spec import Pruner, Sampler
from sweeper.space.tree import Node, leaf
from sweeper.space.validation import checked, refuse_key, refuse_name
from trainers import extensions
from trainers.config import Augment, Head, Loss
from trainers.data_config import LAYOUTS
from trainers.extensions import Definition, ExtensionFile
from trainers.metrics import definitions
from trainers.signatures import Kind
from trainers.support.errors import UserError

PARTS: dict[str, Kind] = {
    "train.loss": "losses",
    "train.head": "heads",
    "search.sampler": "samplers",
    "search.pruner": "pruners",
}
"""The kind of definition that a named part takes from an extension file, by the path of the part."""


def _tags(union: Any) -> list[str]:
    """Return the names of the built-in members of a union of parts."""
    found = (tag(one) for member in get_args(union)[:1] for one in parts(member))
    return [name for name in found if name]


BUILT_IN: dict[Kind, list[str]] = {
    "losses": _tags(Loss),
    "heads": _tags(Head),
    "samplers": _tags(Sampler),
    "pruners": _tags(Pruner),
    "layouts": list(LAYOUTS),
    "augmentations": list(Augment.model_fields),
    "metrics": [*definitions.BUILT_IN, *definitions.SELECTIONS],
}


def files(given: Node | None, source: Path) -> tuple[ExtensionFile, ...]:
    """Read the files that `extensions:` of the space `source` names, or their copies in a study's own folder."""
    entries = given.value if given is not None and isinstance(given.value, list) else []
    copies = source.parent / "extensions"
    found: dict[str, ExtensionFile] = {}
    for node in entries:
        name = Path(str(node.value)).name
        if name in found:
            raise UserError(f"two extension files are called {name}", where=node.where, help="remove or rename one")
        path = source.parent / str(node.value)
        if (source.parent / "study.json").is_file():
            path = copies / name
        if not path.is_file():
            raise UserError(
                f"there is no extension file {str(node.value)!r}",
                where=node.where,
                help=f"paths are relative to the folder of this file: {source.parent}",
            )
        found[name] = ExtensionFile.read(path)
    return tuple(found.values())


def use(given: Sequence[ExtensionFile]) -> None:
    """Load these files and forget all others."""
    extensions.use(given, BUILT_IN)


def judged(entries: Mapping[str, Node]) -> dict[str, Node]:
    """Return the parts of a file besides `train`, none of which can be left open, with names and keys validated."""
    found = dict(entries)
    if "search" in found:
        found["search"] = judge(found["search"], "search")
    data = found["data"].value if "data" in found else None
    if isinstance(data, dict):
        _layout(data)
    return found


def _layout(data: Mapping[str, Node]) -> None:
    node = data.get("layout")
    if node is None or not isinstance(node.value, str) or node.value in LAYOUTS:
        return
    definition = extensions.find("layouts", node.value)
    if definition is None:
        refuse_name("data.layout", node, [*LAYOUTS, *extensions.names("layouts")])
    checked(definition.keys, data.get("layout_args", Node({}, node.where, node.key)), "data.layout_args")


def judge(node: Node, root: str) -> Node:
    """Return a closed part of a file, `train` or `search`, with the names and keys of extension files validated.

    Keys that were left out are filled in. Raises UserError, with the place, for anything that neither sweep nor an
    extension file defines.
    """
    if not isinstance(node.value, dict):
        return node
    entries = dict(node.value)
    for path, kind in PARTS.items():
        above, _, key = path.partition(".")
        if above == root and key in entries:
            entries[key] = _part(entries[key], kind, path)
    if root == "train":
        if "augment" in entries:
            entries["augment"] = _augment(entries["augment"])
        _backbone(entries)
    return replace(node, value=entries)


def _part(node: Node, kind: Kind, path: str) -> Node:
    named = node.value.get("name") if isinstance(node.value, dict) else node
    if named is None or not isinstance(named.value, str) or named.value in BUILT_IN[kind]:
        return node
    definition = extensions.find(kind, named.value)
    if definition is None:
        refuse_name(path, node, [*BUILT_IN[kind], *extensions.names(kind)])
    entries = node.value if isinstance(node.value, dict) else {"name": node}
    return _filled(replace(node, value=entries), definition, path)


def _filled(node: Node, definition: Definition, path: str) -> Node:
    """Return the part with the keys for which the function has a default."""
    found = checked(definition.keys, node, path).model_dump(mode="json")
    entries: dict[str, Node] = node.value if isinstance(node.value, dict) else {}
    own = {key: leaf(found[key]) for key in definition.own if key not in entries}
    return replace(node, value={**entries, **own})


def _augment(node: Node) -> Node:
    if not isinstance(node.value, dict):
        return node
    entries: dict[str, Node] = {}
    for key, child in node.value.items():
        definition = extensions.find("augmentations", key)
        if key not in BUILT_IN["augmentations"] and definition is None:
            refuse_key(key, child, "train.augment", [*BUILT_IN["augmentations"], *extensions.names("augmentations")])
        off = definition is None or child.value is None
        entries[key] = child if off or definition is None else _filled(child, definition, f"train.augment.{key}")
    return replace(node, value=entries)


def _backbone(entries: Mapping[str, Node]) -> None:
    """Validate the arguments of a network from an extension file; raise UserError if it needs published weights."""
    named = entries.get("backbone")
    definition = extensions.find("models", named.value) if named and isinstance(named.value, str) else None
    if named is None or definition is None:
        return
    arguments = entries.get("backbone_args", Node({}, named.where, named.key))
    checked(definition.keys, arguments, "train.backbone_args")
    scratch = entries.get("pretrained")
    if "weights" not in entries and (scratch is None or scratch.value is not False):
        raise UserError(
            f"{named.value} is defined in {definition.path.name} and has no published weights",
            where=named.where,
            help="write pretrained: false, or weights: FILE",
        )
