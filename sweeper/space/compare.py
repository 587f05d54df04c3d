"""The identity of a search space, in plain JSON types with every default written out, and the difference of two."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sweeper.space import hints
from sweeper.space.hints import parts
from sweeper.space.parameters import KINDS
from sweeper.space.tree import flow

LEFT_OUT = object()


def filled(value: Any, annotation: Any) -> Any:
    """Return `value`, made by `sweeper.space.tree.plain`, with the defaults of the model that `annotation` names."""
    if _kind(value) == "choice":
        return {"choice": [[label, filled(option, annotation)] for label, option in value["choice"]]}
    models = {hints.tag(model): model for model in parts(annotation)}
    if isinstance(value, str) and value in models:
        value = {"name": value}
    if not isinstance(value, dict) or _kind(value):
        return value
    tag = value.get("name")
    model = models.get(tag if isinstance(tag, str) else None)
    return value if model is None else {name: _entry(value, name, model) for name in model.model_fields}


def _entry(value: dict[str, Any], name: str, model: type[BaseModel]) -> Any:
    field = model.model_fields[name]
    if name in value:
        return filled(value[name], field.annotation)
    default = field.get_default(call_default_factory=True)
    plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
    return list(plain) if isinstance(plain, tuple) else plain


def _kind(value: Any) -> str | None:
    """Return the kind of distribution, or None for a fixed value."""
    return next((kind for kind in KINDS if kind in value), None) if isinstance(value, dict) else None


def opened(value: Any, name: str = "") -> dict[str, Any]:
    """Return the distributions in an identity's `train` by dotted name, those of branches after their choice."""
    kind = _kind(value)
    if kind == "choice":
        inner = [(f"{name}.{label}", option) for label, option in value["choice"]]
    elif isinstance(value, Mapping) and kind is None:
        inner = [(f"{name}.{key}" if name else str(key), child) for key, child in value.items()]
    else:
        inner = [(f"{name}.{i}", child) for i, child in enumerate(value)] if isinstance(value, list) else []
    own = {} if kind is None else {name: value}
    return own | {key: one for child, each in inner for key, one in opened(each, child).items()}


def difference(old: Any, new: Any, name: str = "") -> list[str]:
    """Return one line per value in which two identities differ: `train.loss.gamma: uniform [0.0, 5.0] -> 2`."""
    if old == new:
        return []
    pairs = _pairs(old, new)
    if pairs is None:
        return [f"{name}: {_shown(old)} -> {_shown(new)}"]
    return [line for key, a, b in pairs for line in difference(a, b, f"{name}.{key}" if name else key)]


def identity_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line per value in which two identities differ, as `difference`.

    Defaults that one of them has for each backbone are compared with the single value of the other.
    """
    mine, theirs = (one.get("train", {}) for one in (old, new))
    left, right = _per_backbone(mine, theirs), _per_backbone(theirs, mine)
    return difference({**old, "train": left}, {**new, "train": right})


def _per_backbone(train: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return `train` with one value in place of equal ones for each backbone, or with one for each if `other` has
    different ones.
    """
    return {
        key: _spread(_joined(value, train), _joined(other.get(key), other), other) for key, value in train.items()
    }


def _joined(value: Any, train: Mapping[str, Any]) -> Any:
    """Return the single value of a mapping from each backbone of `train` to the same value; any other as it is."""
    same = _is_per_backbone(value, train) and all(one == next(iter(value.values())) for one in value.values())
    return next(iter(value.values())) if same else value


def _spread(value: Any, other: Any, train: Mapping[str, Any]) -> Any:
    """Return a mapping from each backbone to `value` if `other` is a mapping from the backbones of `train`."""
    if not _is_per_backbone(other, train) or (isinstance(value, Mapping) and value.keys() == other.keys()):
        return value
    return dict.fromkeys(other, value)


def _is_per_backbone(value: Any, train: Mapping[str, Any]) -> bool:
    """True for the defaults of several backbones, by name or as `NAME from random weights`."""
    backbones = train.get("backbone")
    if _kind(backbones) != "choice" or not isinstance(value, Mapping) or not value:
        return False
    names = set(map(str, _labels(backbones)))
    return all(key.partition(" from ")[0] in names for key in value)


def _pairs(old: Any, new: Any) -> list[tuple[str, Any, Any]] | None:
    """Return the keys or branches of two values side by side, or None if it makes no sense to compare one by one."""
    kinds = {_kind(old), _kind(new)}
    if isinstance(old, Mapping) and isinstance(new, Mapping) and kinds == {None}:
        return [(key, old.get(key, LEFT_OUT), new.get(key, LEFT_OUT)) for key in dict.fromkeys([*new, *old])]
    if kinds == {"choice"} and _labels(old) == _labels(new):
        options = zip(old["choice"], new["choice"], strict=True)
        return [(str(label), a, b) for (label, a), (_, b) in options]
    return None


def _labels(value: Any) -> list[Any]:
    return [label for label, _ in value["choice"]]


def _shown(value: Any) -> str:
    kind = _kind(value)
    if value is LEFT_OUT:
        return "left out"
    if kind is None:
        return flow(value)
    step = f" step {flow(value['step'])}" if "step" in value else ""
    return f"{kind} {flow(_labels(value) if kind == 'choice' else value[kind])}{step}"
