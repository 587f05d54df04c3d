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
