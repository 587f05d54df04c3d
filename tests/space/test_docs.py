"""The schema for editors is current, and accepts what the program accepts."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sweeper.space.docs import PAGE, PATH, page, schema
from sweeper.space.spec import StudyFile
from trainers.config import TrainConfig

SPACES = sorted(PATH.parent.rglob("*.yaml"))
WHOLE = schema()
TYPES = {"object": dict, "array": list, "string": str, "number": int | float, "integer": int, "null": type(None)}


def accepts(rule: dict[str, Any], value: Any) -> bool:
    """Whether `value` is valid, by the keywords of JSON Schema that ours uses."""
    if "$ref" in rule and not accepts(WHOLE["$defs"][rule["$ref"].rpartition("/")[2]], value):
        return False
    if any(key in rule and not any(accepts(r, value) for r in rule[key]) for key in ("anyOf", "oneOf")):
        return False
    if "not" in rule and accepts(rule["not"], value):
        return False
    if value not in rule.get("enum", [value]) or value != rule.get("const", value):
        return False
    return _of_type(rule, value) and _inside(rule, value)


def _of_type(rule: dict[str, Any], value: Any) -> bool:
    kind = rule.get("type")
    if kind == "boolean" or isinstance(value, bool):
        return isinstance(value, bool) and kind in (None, "boolean")
    if isinstance(value, int | float):
        low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
        above, below = rule.get("exclusiveMinimum", -math.inf), rule.get("exclusiveMaximum", math.inf)
        if not (low <= value <= high and above < value < below):
            return False
    return kind is None or isinstance(value, TYPES[kind])


def _inside(rule: dict[str, Any], value: Any) -> bool:
    if isinstance(value, list):
        items = [*rule.get("prefixItems", []), *[rule.get("items", {})] * len(value)]
        long_enough = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", math.inf)
        return long_enough and all(accepts(r, v) for r, v in zip(items, value, strict=False))
    if isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
        fits = [accepts(known[k], v) if k in known else _other(others, v) for k, v in value.items()]
        return all(fits) and set(rule.get("required", [])) <= set(value)
    return True


def _other(rule: Any, value: Any) -> bool:
    return rule if isinstance(rule, bool) else accepts(rule, value)


def document(train: str) -> Any:
    return YAML(typ="safe", pure=True).load(f"{{study: s, data: {{root: d}}, train: {{backbone: b, {train}}}}}")


def test_the_file_is_current():
    """python -m sweeper.space.docs writes it anew."""
    assert json.loads(PATH.read_text()) == WHOLE


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_schema_accepts_a_published_space(path: Path):
    assert accepts(WHOLE, YAML(typ="safe", pure=True).load(path.read_text()))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_published_space_names_the_schema_asks_a_question_and_tells_its_cost(path: Path):
    lines = path.read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    place, schema = lines[0].split("$schema=")
    assert place == "# yaml-language-server: "
    assert (path.parent / schema).resolve() == PATH.resolve()
    assert all(any(f" {word}:" in line for line in comment) for word in ("Question", "Cost", "Answer"))


@pytest.mark.parametrize(
    "train",
    [
        "loss: focal",
        "loss: {choice: [focal, {name: cross_entropy, label_smoothing: {uniform: [0, 0.1]}}]}",
        "loss: {name: focal, category_weights: {per_category: {uniform: [0, 1]}}}",
        "loss: {name: focal, category_weights: {material: {uniform: [0, 1]}}}",
        "optimizer: {name: adam, betas: [{uniform: [0.8, 0.9]}, 0.99]}",
        "epochs: {int: [1, 9], step: 2}",
        "augment: {mixup: {choice: [0, {uniform: [0.1, 0.4]}]}}",
    ],
)
def test_the_schema_accepts_open_values(train: str):
    assert accepts(WHOLE, document(train))


def test_the_schema_names_the_keyword_that_the_program_reads():
    assert any(rule.get("required") == ["per_category"] for rule in WHOLE["$defs"].values())


@pytest.mark.parametrize(
    "train",
    [
        "los: focal",
        "loss: focl",
        "loss: {gamma: 2}",
        "loss: {name: focal, gama: 2}",
        "loss: {name: focal, gamma: {uniform: [1]}}",
        "loss: {name: focal, gamma: {unifrom: [0, 1]}}",
        "epochs: {int: [1.5, 9]}",
        "epochs: five",
        "augment: {horizontal_flip: {choice: []}}",
        "augment: {horizontal_flip: {per_category: {uniform: [0, 1]}}}",
    ],
)
def test_the_schema_refuses_what_the_program_refuses(train: str):
    assert not accepts(WHOLE, document(train))


def test_the_schema_tells_what_a_value_means():
    gamma = WHOLE["$defs"]["OpenFocal"]["properties"]["gamma"]
    assert gamma["description"] == "focusing exponent; 0 is cross entropy"


# ------------------------------------------------------------------------------------------- the page of keys
FILE, TRAIN = StudyFile.model_json_schema(), TrainConfig.model_json_schema()
PARTS = FILE["$defs"] | TRAIN["$defs"] | {"StudyFile": FILE, "TrainConfig": TRAIN}
"""All parts of a search space, as pydantic lists them without the help of the page's own code."""
UNDESCRIBED = ("StudyFile", "DataConfig", "TrainConfig")  # their sections start with the table


def sections() -> dict[str, tuple[str, dict[str, list[str]]]]:
    """The text of each section, and its rows of default and meaning, by key."""
    found = {}
    for text in page().split("\n## ")[1:]:
        rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in text.splitlines() if re.match(r"\| \[?`", line)]
        found[text.split("\n")[0]] = text, {row[0].split("`")[1]: row[1:] for row in rows}
    return found


def test_the_page_of_keys_is_current():
    """python -m sweeper.space.docs writes it anew."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", sorted(PARTS))
def test_the_page_has_a_section_with_every_key_of_a_part(name: str):
    keys = {key: entry["description"] for key, entry in PARTS[name]["properties"].items() if key != "name"}
    purpose = "" if name in UNDESCRIBED else PARTS[name]["description"].split("\n")[0]
    tables = [rows for text, rows in sections().values() if purpose in text and rows.keys() == keys.keys()]
    assert len(tables) == 1
    meanings = {key: cells[1].replace(r"\|", "|") for key, cells in tables[0].items()}
    assert all(keys[key].startswith(meaning) for key, meaning in meanings.items() if key == "metric")
    assert all(keys[key] == meaning for key, meaning in meanings.items() if key != "metric")


@pytest.mark.parametrize(
    ("section", "key", "default"),
    [
        ("search", "sampler", "`tpe`"),
        ("search", "pruner", "`median`"),
        ("search.pruner: asha", "min_epochs", "`1`"),
        ("search.pruner: early_stopping", "patience", "`5`"),
        ("data", "root", "(required)"),
        ("train", "epochs", "`20`, or the preset's"),
        ("train.freeze", "epochs", "`0`"),
    ],
)
def test_the_page_gives_the_default_of_a_key(section: str, key: str, default: str):
    assert sections()[section][1][key][0] == default
