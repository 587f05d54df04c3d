"""Names are the field's words: the worst of the old ones do not come back (see STYLE.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("sweeper", "trainers") for path in (ROOT / folder).rglob("*.py"))
REFUSED = {
    "hole": "parameter",
    "goal": "metric",
    "adopt": "resume",
    "begun": "started",
    "lesson": "transferred trial",
    "ladder": "rungs",
    "errand": "reconcile, or the name of the task",
    "twin": "sync state",
    "easel": "figure client",
    "seal": "checksum",
}
"""By the beginning of a word what to write instead."""


def names(path: Path) -> Iterator[str]:
    """Everything that a file names: itself, functions, classes, arguments, variables and attributes."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Attribute(attr=name) | ast.Name(id=name):
                yield name
            case ast.alias(asname=str(name)):
                yield name


def words(name: str) -> list[str]:
    """`old_TwinStates` -> old, twin, states."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def refused(path: Path) -> dict[str, str]:
    """The names of a file that hold a refused word, and what to write instead."""
    return {
        name: better
        for name in names(path)
        for word in words(name)
        for old, better in REFUSED.items()
        if word.startswith(old)
    }


def test_names_are_words_of_the_field():
    found = {path.relative_to(ROOT).as_posix(): refused(path) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


def test_an_old_word_is_found_wherever_a_name_is_given(tmp_path):
    path = tmp_path / "twins.py"
    path.write_text("class Hole:\n    def adoptable(self, lessons): self.is_sealed = whole = lessons\n")
    assert set(refused(path)) == {"twins", "Hole", "adoptable", "lessons", "is_sealed"}
