"""What holds for the tests themselves: they know what is public, and say which of them start processes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("sweeper", "trainers")
NOBODYS = {"_asdict", "_fields", "_replace"}  # of a named tuple: public, in spite of their names


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NOBODYS


def defined(tree: ast.AST) -> Iterator[str]:
    """Every private name that a module gives to something."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(asname=str(name)):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what a test takes from others: attributes but those of self, imports, and names in strings."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PRODUCT:
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr") | ast.Name(id="getattr"), args=args):
                texts = [arg.value for arg in args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                yield from ((node.lineno, text.rpartition(".")[2]) for text in texts)


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


@cache
def of_ours() -> frozenset[str]:
    return frozenset(name for _, tree in trees(*PRODUCT) for name in defined(tree) if private(name))


def test_no_test_uses_a_private_name_of_ours():
    ours = of_ours()
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, tree in trees("tests", "benchmarks")
        for line, name in used(tree)
        if name in ours
    ]
    assert found == [], "test what is public, or make the name public"


@pytest.mark.parametrize(
    "text",
    [
        "from sweeper.worker.job import _names",
        "job._names(error)",
        "monkeypatch.setattr(job, '_names', None)",
        "monkeypatch.setattr('sweeper.worker.job._names', None)",
        "getattr(job, '_names')",
    ],
)
def test_a_private_name_of_ours_would_be_found(text):
    assert "_names" in of_ours()
    assert "_names" in {name for _, name in used(ast.parse(text))}


UNMARKED = """
import os, subprocess, sys

def test_unmarked(): {what}
"""


@pytest.mark.process
@pytest.mark.parametrize("what", ["subprocess.run(['true'])", "os.posix_spawn('/bin/true', ['true'], {})"])
def test_a_test_that_starts_a_process_and_does_not_say_so_fails(tmp_path, what):
    (tmp_path / "test_it.py").write_text(UNMARKED.format(what=what))
    words = ["-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "tests.conftest"]
    ended = subprocess.run([sys.executable, *words, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "mark it with `process`" in ended.stdout
