"""The keys of a definition in an extension file, derived from the signature of its function or class."""

import inspect
import json
from collections.abc import Collection
from dataclasses import MISSING, is_dataclass
from dataclasses import fields as fields_of
from functools import partial
from typing import Any, Literal, get_args

from pydantic import PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from trainers.config import LossPart
from trainers.epoch import Part
from trainers.support.errors import UserError
from trainers.support.text import brief

Kind = Literal["metrics", "losses", "augmentations", "models", "heads", "layouts", "samplers", "pruners"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LEADING: dict[Kind, tuple[str, ...]] = {
    "metrics": ("probabilities", "labels"),
    "losses": ("logits", "labels"),
    "augmentations": ("image", "generator"),  # or images, a batch: see trainers/loading/custom_augmentations.py
    "models": (),
    "heads": ("features", "sizes"),
    "layouts": ("root",),
    "samplers": ("seed",),
    "pruners": ("seed",),
}
"""The leading parameters of each kind, which sweep fills in; the others are keys of the YAML."""
NAMED: tuple[Kind, ...] = ("losses", "heads", "samplers", "pruners")
"""Kinds whose keys are written beside their name."""
APPLIED: tuple[Kind, ...] = ("metrics", "losses", "augmentations")
"""Kinds that are called with data. A class among these is constructed with the keys, and its object is called."""
RESERVED = ("name", "choice", "uniform", "loguniform", "int", "logint", "step", "per_category")
"""Keys that have a meaning in every part."""


def base(kind: Kind) -> type[Part]:
    """Return the model with the keys that every part of a kind has."""
    return LossPart if kind == "losses" else Part


def keys_of(kind: Kind, name: str, value: Any, where: str) -> type[Part]:
    """Return the model of the keys beside a name: one per parameter after those that sweep fills in."""
    fields: dict[str, Any] = {"name": (Literal[name], name)} if kind in NAMED else {}
    for one in _keyed(kind, name, value, where):
        if one.annotation is one.empty:
            default = "" if one.default is one.empty else f" = {one.default!r}"
            raise UserError(
                f"the parameter {one.name} of {name} has no annotation",
                where=where,
                help=f"annotate its type, as in {one.name}: {_guess(one.default)}{default}",
            )
        if one.name in (*base(kind).model_fields, *RESERVED) or one.name.startswith("_") or hasattr(Part, one.name):
            what = f"the parameter {one.name} of {name} cannot be a key: its name is reserved or starts with _"
            raise UserError(what, where=where, help="give it another name")
        fields[one.name] = _field(one, value, f"the default of the parameter {one.name} of {name}", where)
    try:
        return _described(create_model(name, __base__=base(kind), **fields), fields, f"of {name} in {where}")
    except (PydanticUserError, NameError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise UserError(
            f"the parameters of {name} cannot be keys: {said}",
            where=where,
            help="annotate with float, int, bool, str, Literal, or tuples of them",
        ) from None


def _described(keys: type[Part], own: Collection[str], whose: str) -> type[Part]:
    """Return the model with a description, which messages show, for each of its own keys that has none."""
    for key in own:
        field = keys.model_fields[key]
        field.description = field.description or f"{inspect.formatannotation(field.annotation)}, {whose}"
    return keys


def _field(one: inspect.Parameter, value: Any, whose: str, where: str) -> tuple[Any, Any]:
    """Return the annotation and default of a key; a default of None allows null. Raises UserError on a misfit."""
    if one.default is one.empty:
        return one.annotation, ...
    if isinstance(one.default, FieldInfo):
        return one.annotation, one.default
    default = _made(one, value)
    annotation = one.annotation if default is not None else one.annotation | None
    adapter = TypeAdapter(annotation)
    try:
        json.dumps(adapter.dump_python(adapter.validate_python(default), mode="json"), allow_nan=False)
    except (ValueError, TypeError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        remedy = "change the default or the annotation"
        raise UserError(f"{whose}, {brief(repr(default))}, does not fit: {said}", where=where, help=remedy) from None
    return annotation, FieldInfo(default=default)


def _made(one: inspect.Parameter, value: Any) -> Any:
    """Return the default of a parameter; a dataclass may make it with a factory."""
    made = {f.name: f.default_factory for f in fields_of(value)} if is_dataclass(value) else {}
    factory = made.get(one.name, MISSING)
    return one.default if factory is MISSING else factory()


def _guess(default: Any) -> str:
    return "float" if default is inspect.Parameter.empty or default is None else type(default).__name__


def _keyed(kind: Kind, name: str, value: Any, where: str) -> list[inspect.Parameter]:
    """Return the parameters that become keys."""
    if kind in APPLIED and not (inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, partial)):
        return []  # an object that is called with data, such as an albumentations pipeline
    try:
        found = list(inspect.signature(value, eval_str=True).parameters.values())
    except (NameError, TypeError, ValueError, SyntaxError) as error:
        what = f"the signature of {name} cannot be read: {error}"
        raise UserError(what, where=where, help="write its parameters out") from None
    leading = () if kind in APPLIED and inspect.isclass(value) else LEADING[kind]
    named = [one for one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    firsts = [one for one in named if one.kind != one.KEYWORD_ONLY][: len(leading)]
    if len(firsts) < len(leading) and not any(one.kind == one.VAR_POSITIONAL for one in found):
        raise UserError(
            f"{name} has too few parameters: {kind} are called with {' and '.join(leading)}",
            where=where,
            help=f"write def {name}({', '.join(leading)}, ...)",
        )
    return [one for one in named if one not in firsts]
