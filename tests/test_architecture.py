"""The arrows: contracts of import-linter in pyproject.toml, and here what they cannot say."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("sweeper", "trainers") for path in (ROOT / folder).rglob("*.py"))
HEAVY = {"torch", "torchvision", "timm", "safetensors", "mlflow", "optuna", "pandas", "numpy", "scipy", "matplotlib"}
HEAVY |= {"onnxruntime", "plotly", "sklearn", "PIL", "ray", "jinja2", "ruamel", "huggingface_hub", "sqlalchemy"}
LIGHT = ["sweeper.cli", "sweeper.trial", "sweeper.space.yaml_io", "sweeper.store.records", "trainers.config"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_contract_is_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)  # it would silence every logger of this process
    assert lint() == 0, "run .venv/bin/lint-imports: it names each arrow"


def lint() -> int:
    from importlinter.cli import lint_imports

    return int(lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True))


@pytest.mark.process
@pytest.mark.parametrize("module", LIGHT)
def test_the_coordinators_modules_load_no_heavy_library(module):
    code = f"import sys, {module}; print(*sorted({HEAVY - {'ruamel'}!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_initial_files_hold_words_and_no_work():
    for path in SOURCES:
        if path.name == "__init__.py":
            kinds = {type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.ClassDef}, name(path)


def test_at_most_a_dozen_files_stand_in_a_package():
    for folder in {path.parent for path in SOURCES}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= LARGEST.get(name(folder), 12), name(folder)


LARGEST = {"trainers/data": 18, "sweeper/space": 15}  # a file for each layout, a file for each use of the language


def test_nothing_that_is_read_is_unpickled():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        imported = {word for line in text.splitlines() if "import " in line for word in line.split()}
        assert "pickle" not in imported, name(path)
        assert text.count("torch.load(") == text.count("weights_only=True"), name(path)
        assert "allow_pickle=True" not in text, name(path)


def test_the_drawing_of_the_packages_is_current():
    """`make map` draws it."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_packages.py"))
    for path, text in script["files"]().items():
        assert path.read_text(encoding="utf-8") == text, path.name


# ------------------------------------------------------------------------------------------ imports inside functions
STARTING = {
    *(name(path) for path in (ROOT / "sweeper" / "cli").glob("*.py")),
    "sweeper/api.py",
    "sweeper/__main__.py",
    "sweeper/system/subprocesses.py",
}
"""`sweep --help` loads little, and nothing of the library before the user's folder is off the path."""


def module(path: Path) -> str:
    return name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names; of `from a import b` both a and a.b, if that is one of ours."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES)
        yield node.module


def inner(tree: ast.Module) -> Iterator[ast.AST]:
    """The import statements inside functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    yield from (node for one in functions for node in ast.walk(one) if isinstance(node, ast.Import | ast.ImportFrom))


def outer(tree: ast.Module) -> set[str]:
    """What loading the file imports: all but what stands inside functions or is for type checkers."""
    return {found for node in tree.body for found in imported(node)}


MODULES = {module(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


@cache
def loaded(name: str) -> frozenset[str]:
    """The heavy libraries that are loaded with a module."""
    waiting, seen = [name], set[str]()
    while waiting:
        if (one := waiting.pop()) not in seen:
            seen.add(one)
            waiting += outer(MODULES[one]) if one in MODULES else ()
    return frozenset({one.split(".")[0] for one in seen} & HEAVY)


def test_what_counts_a_runs_answers_loads_nothing_that_draws():
    assert not loaded("sweeper.figures.finished_run") & {"matplotlib", "plotly"}


def light(path: Path) -> list[str]:
    """The imports inside functions of a file that could as well stand at its top."""
    own = loaded(module(path))
    found = [list(imported(node)) for node in inner(MODULES[module(path)])]
    return [names[0] for names in found if not frozenset().union(*map(loaded, names)) - own]


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path) not in STARTING], ids=name)
def test_only_what_is_heavy_is_imported_inside_a_function(path):
    assert light(path) == []


def test_an_import_inside_a_function_is_seen():
    tree = ast.parse("import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    def g():\n        import c")
    assert outer(tree) == {"a"}
    assert {found for node in inner(tree) for found in imported(node)} == {"c"}


@pytest.mark.parametrize("word", ["._trial_id", "ray._private"])
def test_the_private_parts_of_a_library_are_used_in_one_file(word):
    assert len([path for path in SOURCES if word in path.read_text(encoding="utf-8")]) <= 1
