"""The JSON schema of a search space, for editors: generated from the models, every value of `train` may be open."""

import json
from pathlib import Path
from typing import Any

from sweeper.space.overrides import NAMED
from sweeper.space.spec import StudyFile
from trainers.config import TrainConfig
from trainers.support.files import write_text

PATH = Path(__file__).parents[2] / "search_spaces" / "schema.json"
Schema = dict[str, Any]


def schema() -> Schema:
    """The schema (JSON Schema 2020-12), with the models' descriptions of meaning, unit and range."""
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
    """Put the schema at `path`."""
    write_text(path, json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")


# --------------------------------------------------------------------------------------- short forms
def _short_forms(part: Schema, parts: Schema) -> Schema:
    """`loss: focal` is short for `loss: {name: focal}`."""
    entries = {key: _short(entry, parts) if key in NAMED else entry for key, entry in part["properties"].items()}
    return part | {"properties": entries}


def _short(entry: Schema, parts: Schema) -> Schema:
    kept = {key: value for key, value in entry.items() if key not in ("oneOf", "$ref", "discriminator")}
    members = [member | {"required": ["name"]} for member in entry.get("oneOf", [])] or [{"$ref": entry["$ref"]}]
    names = [name for member in members for name in _names(member["$ref"], parts)]
    return kept | {"anyOf": [*members, {"enum": names}]}


def _names(ref: str, parts: Schema) -> list[str]:
    name = ref.rpartition("/")[2]
    part = parts.get(name) or parts[name.removeprefix("Open")]
    return [part["properties"]["name"]["const"]]


# ---------------------------------------------------------------------------------------- open values
def _open_part(part: Schema, parts: Schema) -> Schema:
    """A part of `train` with every value but its name open."""
    entries = _short_forms(part, parts)["properties"]
    opened = {key: entry if key == "name" else _open(entry) for key, entry in entries.items()}
    required = part.get("required", []) if "backbone" in entries else []
    return part | {"properties": opened, "required": required}


def _open(entry: Schema) -> Schema:
    """A value, or one of the mappings that leave it open; a choice offers values of the same kind."""
    notes = {key: entry[key] for key in ("description", "default") if key in entry}
    value = _inner({key: entry[key] for key in entry if key not in notes})
    each = [{"$ref": "#/$defs/Each"}] if "additionalProperties" in json.dumps(entry) else []
    options = {"anyOf": [value, {"$ref": "#/$defs/Range"}, *each]}
    choice = _mapping({"choice": {"type": "array", "minItems": 1, "items": options}}, ["choice"])
    choice["description"] = "one of these values, or of these branches with open values of their own"
    return notes | {"anyOf": [value, choice, {"$ref": "#/$defs/Range"}, *each]}


def _inner(value: Schema) -> Schema:
    """The values inside a list or a mapping may be open too."""
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
    """The four kinds of number between two bounds."""

    def bounds(kind: str, item: str, **more: Schema) -> Schema:
        pair = {"type": "array", "prefixItems": [{"type": item}, {"type": item}], "minItems": 2, "maxItems": 2}
        return _mapping({kind: pair, **more}, [kind])

    return {
        "description": "a number between two bounds, both included; the log kinds on a logarithmic scale",
        "anyOf": [
            bounds("uniform", "number", step={"type": "number", "exclusiveMinimum": 0}),
            bounds("loguniform", "number"),
            bounds("int", "integer", step={"type": "integer", "minimum": 1}),
            bounds("logint", "integer"),
        ],
    }


def _each() -> Schema:
    """The same open value once for every category."""
    choice = _mapping({"choice": {"type": "array", "minItems": 1}}, ["choice"])
    each = _mapping({"per_category": {"anyOf": [choice, {"$ref": "#/$defs/Range"}]}}, ["per_category"])
    return each | {"description": "one such value for each category, by name"}


def _without_titles(value: Any) -> Any:
    """pydantic's titles only repeat the keys."""
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    from sweeper.space import reference

    write()
    reference.write()
