"""The findings of pydantic, in the user's words and with the place in the file."""

from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from sweeper.space import hints
from sweeper.space.hints import parts
from sweeper.space.tree import Node, flow, plain
from sweeper.text import join_or
from trainers.metrics import definitions
from trainers.support.errors import UserError
from trainers.support.text import brief, did_you_mean

Loc = tuple[int | str, ...]
M = TypeVar("M", bound=BaseModel)

_MUST = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
    "string_pattern_mismatch": "cannot be a name",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "too_long": "must have {max_length} values",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
_HELP = {
    "bool_type": "YAML 1.2 reads yes, no, on and off as text",
    "int_from_float": "write it without a decimal point or quotes",
    "int_type": "write it without a decimal point or quotes",
    "string_type": 'put "quotes" around it',
}


def checked(model: type[M], node: Node, root: str = "") -> M:
    """Return a closed `node` as a `model`, strictly: text is no number, yes no boolean; UserError names the place."""
    try:
        return model.model_validate(_tuples(plain(node)), strict=True)
    except ValidationError as error:
        _explain(error, model, node, root)


def _tuples(value: Any) -> Any:
    """Return lists as tuples, which strict validation needs."""
    if isinstance(value, dict):
        return {name: _tuples(child) for name, child in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _explain(error: ValidationError, model: type[BaseModel], node: Node, root: str) -> NoReturn:
    """Raise UserError for the clearest finding: an unknown key first, then the deepest of the first faulty part."""
    found = error.errors(include_url=False)
    first = found[0]["loc"][:1]
    finding = min(
        found,
        key=lambda e: (e["type"] != "extra_forbidden", e["loc"][:1] != first, -len(_place(node, e["loc"])[0])),
    )
    loc, kind, context = finding["loc"], finding["type"], finding.get("ctx", {})
    path, at = _place(node, loc)
    name = ".".join(filter(None, [root, *map(str, path)]))
    if kind == "extra_forbidden":
        refuse_key(str(loc[-1]), at, ".".join(name.split(".")[:-1]), fields(model, loc[:-1]))
    if kind == "missing":
        what = f"{loc[-1]} is missing" + (f" in {name}" if name else "")
        remedy = hints.MISSING.get(str(loc[-1])) or _described(model, loc)
        raise UserError(what, where=at.key or at.where, help=remedy)
    if kind == "literal_error":
        hints.refuse(f"{name}: {_text(_named(at))}", _named(at).where)
    if kind == "union_tag_not_found" and not isinstance(at.value, dict):
        kind = "model_attributes_type"
    if kind == "union_tag_not_found":
        raise UserError(f"name is missing in {name}", where=at.where, help=f"it can be {join_or(_tags(model, loc))}")
    if kind == "union_tag_invalid":
        refuse_name(name, at, _tags(model, loc))
    if kind == "value_error":
        raise UserError(f"{name}: {context['error']}", where=at.where, help=_described(model, loc))
    if kind == "model_type":
        keys = f"its keys are {join_or(fields(model, loc))}"
        raise UserError(f"{name} must be a mapping, found {_shown(at)}", where=at.where, help=keys)
    what = _MUST.get(kind, "").format(**context) or finding["msg"]
    if kind == "literal_error" and any(e["type"] == "dict_type" and e["loc"][:-1] == loc[:-1] for e in found):
        what += " or a mapping"
    raise UserError(
        f"{name} {what}, found {_shown(at)}",
        where=at.where,
        help=_remedy(kind, context, model, loc, at, searched=name.startswith("train.")),
    )


def _place(node: Node, loc: Loc) -> tuple[list[int | str], Node]:
    """Return the path and the node of `loc`, without the tags that pydantic inserts for members of a union."""
    path: list[int | str] = []
    for index, part in enumerate(loc):
        inside, last = node.value, index == len(loc) - 1
        if isinstance(inside, dict) and part in inside and (last or inside.get("name") != Node(part)):
            node = inside[str(part)]
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            node = inside[part]
        else:
            continue
        path.append(part)
    return path, node


def refuse_key(key: str, at: Node, name: str, known: Sequence[str]) -> NoReturn:
    """Raise UserError for a key of the part `name` that is not among the `known` ones."""
    hints.refuse(f"{name}.{key}" if name else key, at.key or at.where)
    what = f"unknown key '{brief(key)}'" + (f" in {name}" if name else "")
    elsewhere = hints.key(key) if "." not in name else ""  # a part of several kinds has keys of its own
    remedy = hints.HABITS.get(key) or did_you_mean(key, known) or elsewhere or f"it can be {join_or(known)}"
    raise UserError(what, where=at.key or at.where, help=remedy)


def refuse_name(name: str, at: Node, known: Sequence[str]) -> NoReturn:
    """Raise UserError for the name of the part `name` that is not among the `known` ones."""
    at = _named(at)
    hints.refuse(f"{name}: {_text(at)}", at.where)
    what = f"unknown {name.split('.')[-1]} '{_text(at)}'"
    if meant := hints.value(str(at.value), known):
        raise UserError(what, where=at.where, help=f"did you mean '{meant}'?")
    if written := hints.called(str(at.value)):
        raise UserError(what, where=at.where, help=f"write {written}")
    near, options = did_you_mean(str(at.value), known), join_or(known)
    raise UserError(what, where=at.where, help=f"{near} It can be {options}" if near else f"it can be {options}")


def known_metric(name: str, at: Node, others: Sequence[str] = ()) -> None:
    """Raise UserError if `at`, the value of the key `name`, is neither a metric nor one of the `others`."""
    known = [*others, *definitions.names()]
    if at.value not in known:
        refuse_name(name, at, known)


def _named(at: Node) -> Node:
    """Return the name in a mapping, or the node in its place."""
    return at.value.get("name", at) if isinstance(at.value, dict) else at


def _remedy(kind: str, context: dict[str, Any], model: type[BaseModel], loc: Loc, at: Node, *, searched: bool) -> str:
    if kind == "literal_error":
        known = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        meant = hints.value(str(at.value), known)
        near = f"did you mean '{meant}'?" if meant else did_you_mean(str(at.value), known)
        return near or (_opened(at) if searched else "") or _described(model, loc)
    if at.value is None:
        return "write a value after the colon, or leave the key out"
    if isinstance(at.value, str) and (written := hints.called(at.value)):
        return f"write {written}"
    if searched and isinstance(at.value, list) and kind not in ("tuple_type", "too_long", "too_short"):
        return _opened(at)
    if kind == "string_pattern_mismatch" and (name := hints.name(str(at.value))):
        return f"try '{name}'; a name may have a-z, 0-9, _, . and -"
    if searched and isinstance(at.value, dict) and kind != "string_type":
        return "to leave a value open, use choice, uniform, loguniform, int or logint"
    if searched and kind in ("int_type", "int_from_float"):
        return f"{_HELP[kind]}; to leave it open, use int or logint"
    return _HELP.get(kind, "") or _described(model, loc)


def _opened(at: Node) -> str:
    """Return advice on how to write a list of values as a distribution, or an empty string."""
    values = plain(at)
    if not isinstance(values, list) or not values:
        return ""
    numbers = len(values) == 2 and all(isinstance(one, int | float) for one in values)
    between = f"; to search between them, write {hints.between(*values)}" if numbers else ""
    return f"to try each of them, write {hints.choice(values)}{between}"


def _shown(node: Node) -> str:
    text = _text(node)
    return f"'{text}'" if isinstance(node.value, str) and not text.startswith('"') else text


def _text(node: Node) -> str:
    text = flow(plain(node))
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------------------------------- the models
def fields(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the names of the keys that are allowed at `loc` of a model (with pydantic's union tags)."""
    return list(dict.fromkeys(name for found in _models(model, loc) for name in found.model_fields))


def _models(model: type[BaseModel], loc: Loc) -> list[type[BaseModel]]:
    models = [model]
    for part in loc:
        named = [m for m in models if part in (hints.tag(m), m.__name__)]
        inner = [m.model_fields[str(part)].annotation for m in models if part in m.model_fields]
        below = [m for annotation in inner for m in parts(annotation)]
        models = named or (below if inner else models)  # else a key of a mapping, or a tag of pydantic's
    return models


def _tags(model: type[BaseModel], loc: Loc) -> list[str]:
    return [tag for tag in map(hints.tag, _models(model, loc)) if tag]


def _described(model: type[BaseModel], loc: Loc) -> str:
    """Return the description of the field at `loc`, or of the innermost one around it, as advice."""
    for end in range(len(loc), 0, -1):
        name = str(loc[end - 1])
        owners = [owner for owner in _models(model, loc[: end - 1]) if name in owner.model_fields]
        if owners and (text := owners[0].model_fields[name].description):
            return f"{name}: {text}"
    return ""
