"""Names are the field's words: the worst of the old ones do not come back (see STYLE.md)."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

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


# ------------------------------------------------------------------------------------------- prose
PHRASES = re.compile(
    r"\b(anew|begun|whoever|for want of|is at it|taken up|gone on with|goes? on|so many|open values?|is told|told of"
    r"|as far as)\b",
    re.IGNORECASE,
)
"""What STYLE.md refuses in messages, help, docstrings and comments."""
OPENINGS = re.compile(r"(Whether|What|That|How|Of|Have)\b")
"""How a docstring does not start."""


def prose(text: str) -> Iterator[str]:
    """The strings and comments of a program."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT, FSTRING):
            yield token.string


def phrases(text: str) -> set[str]:
    return {found[0].lower() for one in prose(text) for found in PHRASES.finditer(one)}


def openings(text: str) -> list[str]:
    """The docstrings that start as none should."""
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, Documented))
    return [words for node in nodes if (words := ast.get_docstring(node)) and OPENINGS.match(words)]


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
FSTRING = getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)  # before Python 3.12 an f-string is one string


@pytest.mark.parametrize("find", [phrases, openings])
def test_prose_is_plain_english(find):
    found = {path.relative_to(ROOT).as_posix(): find(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: words for path, words in found.items() if words} == {}


def test_golden_files_and_templates_are_plain_english():
    files = [
        *ROOT.glob("tests/**/golden/*.txt"),
        *ROOT.glob("tests/space/bad_yaml/*.txt"),
        *ROOT.glob("sweeper/**/*.j2"),
    ]
    found = {path.name: PHRASES.findall(path.read_text(encoding="utf-8")) for path in files}
    assert len(files) > 50
    assert {name: words for name, words in found.items() if words} == {}


def test_refused_prose_is_found_in_strings_and_comments():
    text = '"""Whether it is begun."""\nx = f"made anew {1}"  # for want of memory\nwhoever = 1\n'
    assert phrases(text) == {"begun", "anew", "for want of"}
    assert openings(text) == ["Whether it is begun."]
