"""The files generated from the models: the JSON schema of a search space, for editors, and the page of its keys."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sweeper.space import hints
from sweeper.space.hints import parts
from sweeper.space.overrides import NAMED
from sweeper.space.spec import Budget, Rules, Search, StudyFile
from sweeper.space.tree import flow
from trainers.config import TrainConfig
from trainers.data_config import DataConfig
from trainers.metrics.definitions import BUILT_IN
from trainers.support.files import write_text

PATH = Path(__file__).parents[2] / "search_spaces" / "schema.json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "keys.md"
Schema = dict[str, Any]


def schema() -> Schema:
    """Return the schema (JSON Schema 2020-12), with the models' descriptions of meaning, unit and range."""
    file = StudyFile.model_json_schema()
    train = TrainConfig.model_json_schema(ref_template="#/$defs/Open{model}")
    closed, parts = file.pop("$defs"), train.pop("$defs")
    opened = {f"Open{name}": _open_part(part, parts) for name, part in parts.items()}
    definitions = {name: _short_forms(part, closed) for name, part in closed.items()}
    definitions |= opened | {"OpenTrainConfig": _open_part(train, parts), "Range": _ranges(), "Each": _each()}
    file["properties"]["train"] = {"$ref": "#/$defs/OpenTrainConfig"}
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **file, "$defs": definitions}
    tidy: Schema = _without_titles(whole)
    return tidy


def write(path: Path = PATH) -> None:
    """Write the schema to `path`."""
    write_text(path, json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")


# --------------------------------------------------------------------------------------- short forms
def _short_forms(part: Schema, parts: Schema) -> Schema:
    """Allow `loss: focal` as short for `loss: {name: focal}`."""
    entries = {key: _short(entry, parts) if key in NAMED else entry for key, entry in part["properties"].items()}
    return part | {"properties": entries}


def _short(entry: Schema, parts: Schema) -> Schema:
    kept = {key: value for key, value in entry.items() if key not in ("oneOf", "$ref", "discriminator")}
    members = [member | {"required": ["name"]} for member in entry.get("oneOf", [])] or [{"$ref": entry["$ref"]}]
    names = [_name(member["$ref"], parts) for member in members]
    return kept | {"anyOf": [*members, {"enum": [*filter(None, names)]}]}


def _name(ref: str, parts: Schema) -> str | None:
    """Return the name of a part; None for one that an extension file defines."""
    name = ref.rpartition("/")[2]
    part = parts.get(name) or parts[name.removeprefix("Open")]
    found: str | None = part["properties"]["name"].get("const")
    return found


# ---------------------------------------------------------------------------------------- distributions
def _open_part(part: Schema, parts: Schema) -> Schema:
    """Return a part of `train` in which every value except its name may be left open."""
    entries = _short_forms(part, parts)["properties"]
    opened = {key: entry if key == "name" else _open(entry) for key, entry in entries.items()}
    return part | {"properties": opened, "required": []}  # families and presets supply what a file leaves out


def _open(entry: Schema) -> Schema:
    """Allow a value or a distribution in its place; a choice offers values of the same kind."""
    notes = {key: entry[key] for key in ("description", "default") if key in entry}
    value = _inner({key: entry[key] for key in entry if key not in notes})
    each = [{"$ref": "#/$defs/Each"}] if "additionalProperties" in json.dumps(entry) else []
    options = {"anyOf": [value, {"$ref": "#/$defs/Range"}, *each]}
    choice = _mapping({"choice": {"type": "array", "minItems": 1, "items": options}}, ["choice"])
    choice["description"] = "one of these values, or one of these branches with parameters of their own"
    return notes | {"anyOf": [value, choice, {"$ref": "#/$defs/Range"}, *each]}


def _inner(value: Schema) -> Schema:
    """Allow the values inside a list or a mapping to be left open, too."""
    if "anyOf" in value:
        value = value | {"anyOf": [_inner(member) for member in value["anyOf"]]}
    if "prefixItems" in value:
        value = value | {"prefixItems": [_open(item) for item in value["prefixItems"]]}
    if isinstance(value.get("additionalProperties"), dict):
        value = value | {"additionalProperties": _open(value["additionalProperties"])}
    return value


def _mapping(entries: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": entries, "required": required, "additionalProperties": False}


def _ranges() -> Schema:
    """Return the four distributions of a number between two bounds."""

    def bounds(kind: str, item: str, **more: Schema) -> Schema:
        pair = {"type": "array", "prefixItems": [{"type": item}, {"type": item}], "minItems": 2, "maxItems": 2}
        return _mapping({kind: pair, **more}, [kind])

    return {
        "description": "a number between two bounds, both included; loguniform and logint on a logarithmic scale",
        "anyOf": [
            bounds("uniform", "number", step={"type": "number", "exclusiveMinimum": 0}),
            bounds("loguniform", "number"),
            bounds("int", "integer", step={"type": "integer", "minimum": 1}),
            bounds("logint", "integer"),
        ],
    }


def _each() -> Schema:
    """Return the schema of one distribution for every category."""
    choice = _mapping({"choice": {"type": "array", "minItems": 1}}, ["choice"])
    each = _mapping({"per_category": {"anyOf": [choice, {"$ref": "#/$defs/Range"}]}}, ["per_category"])
    return each | {"description": "one such value per category, by name"}


def _without_titles(value: Any) -> Any:
    """Remove pydantic's titles, which only repeat the keys."""
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------- docs/reference/keys.md
INTRODUCTION = """\
# Every key

`make schema` writes this page from the program. [Search space](search-space.md) explains the same keys in context.

- A blank default means that the key is not set.
- A heading is the path of a key: `search.confirm` is `confirm` in `search`.
- `image_size`, `epochs` and `batch_size` come from the [preset](recipe.md#presets), not from the defaults below, if
  `train` leaves them out and the file has no `backbone`, names a `preset`, or has hours as its only budget.
- If `train` leaves out loss, optimizer, schedule, augment, weight_averaging, drop_path, posthoc_logit_adjustment or
  tta, they come from the backbone's family (`sweeper/space/defaults.py`), not from the defaults below.
- A part with a name is one of those listed: `loss: focal`, or `loss: {name: focal, gamma: 2}`.

## Top level
"""
SECTIONS: dict[str, type[BaseModel]] = {"budget": Budget, "search": Search, "rules": Rules}
TRAINING: dict[str, type[BaseModel]] = {"data": DataConfig, "train": TrainConfig}
HEADER = ("| key | default | meaning |", "|---|---|---|")
OF_PRESET = ("image_size", "epochs", "batch_size")


def page() -> str:
    """Return the page, in Markdown."""
    lines = [INTRODUCTION, *_top()]
    for name, model in SECTIONS.items():
        lines += _section(name, model)
    lines += _metrics()
    for name, model in TRAINING.items():
        lines += _section(name, model)
    return "\n".join(lines) + "\n"


def _top() -> Iterator[str]:
    """Yield a table of the keys beside and above `train`, each with a link to the section of its own keys."""
    yield from HEADER
    for key, field in StudyFile.model_fields.items():
        linked = key == "metric" or key in SECTIONS | TRAINING
        text = (field.description or "").partition(". ")[0] if key == "metric" else field.description or ""
        yield _row(f"[`{key}`](#{key})" if linked else f"`{key}`", _default(StudyFile, key), text)


def write_page(path: Path = PAGE) -> None:
    """Write the page to `path`."""
    write_text(path, page())


def _metrics() -> list[str]:
    """Return a table of the metrics."""
    text = "The metric on val ranks epochs and trials. A mean is over the classes of all categories."
    rows = [f"| `{name}` | {one.description} |" for name, one in BUILT_IN.items()]
    return ["", "## metric", "", text, "", "| metric | meaning |", "|---|---|", *rows]


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield a table of the model's keys, then a section for each part among them."""
    yield from ("", f"## {name}", "")
    if model.__doc__ and name not in ("data", "train"):
        yield from (model.__doc__.splitlines()[0], "")
    if model.model_fields.keys() - {"name"}:
        yield from HEADER
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        found = list(parts(field.annotation))
        inner += [(f"{name}.{key}{_tag(one)}", one) for one in found]
        if key != "name":
            yield _row(f"`{key}`", _default(model, key), field.description or "")
    for title, one in inner:
        yield from _section(title, one)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _tag(model: type[BaseModel]) -> str:
    if "name" not in model.model_fields:
        return ""
    return f": {hints.tag(model) or 'your own'}"


def _default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required() and key == "backbone":
        return "the preset's"
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if hasattr(value, "name") else "see below"
    if value is None:
        return ""
    shown = f"`{flow(list(value) if isinstance(value, tuple) else value)}`"
    return f"{shown}, or the preset's" if model is TrainConfig and key in OF_PRESET else shown


if __name__ == "__main__":
    write()
    write_page()
