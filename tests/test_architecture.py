"""The arrows: which module may import which, and which library lives in which file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("sweeper", "trainers") for path in (ROOT / folder).rglob("*.py"))
HOMES = {
    "optuna": {
        "sweeper/search/optimizer.py",
        "sweeper/search/history.py",
        "sweeper/search/samplers.py",
        "sweeper/search/export.py",
    },
    "mlflow": {"sweeper/tracking/tracker.py"},
    "rich": {"sweeper/terminal/views.py", "sweeper/terminal/output.py"},
    "matplotlib": {"sweeper/figures/plots.py", "sweeper/figures/image_grids.py", "sweeper/figures/study_plots.py"},
    "pandas": {"sweeper/results/leaderboard.py"},
    "ruamel": {"sweeper/space/yaml_io.py"},
    "typer": {"sweeper/cli.py"},
    "jinja2": {"sweeper/results/page.py", "sweeper/results/card.py"},
    "ray": {"sweeper/executors/ray.py"},
}
NO_TORCH = {
    "config",
    "crash",
    "errors",
    "files",
    "sealed",
    "visible",
    "data/rows",
    "data/layouts",
    "data/tree",
    "data/challenge",
    "data/csv_file",
    "data/csv_table",
    "data/columns",
    "data/located",
    "data/names",
    "data/holdout",
    "data/images",
}
NO_TORCH |= {"data/check", "data/cache", "data/demo", "data/garment", "__init__", "data/__init__", "models/__init__"}
WORKER = {"sweeper/worker/job.py", "sweeper/executors/inline.py"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, but not for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_library_is_imported_in_its_own_file_only(path):
    for library, homes in HOMES.items():
        assert library not in libraries(path) or name(path) in homes, f"{name(path)} imports {library}"


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("trainers/")], ids=name)
def test_trainers_know_nothing_of_the_sweeper(path):
    assert not libraries(path) & {"sweeper", *HOMES}


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("sweeper/")], ids=name)
def test_the_sweeper_imports_no_torch(path):
    assert not libraries(path) & {"torch", "timm", "torchvision", "safetensors"}


@pytest.mark.parametrize("path", [ROOT / "trainers" / f"{module}.py" for module in sorted(NO_TORCH)], ids=name)
def test_words_and_data_of_the_trainers_need_no_torch(path):
    assert not libraries(path) & {"torch", "timm", "torchvision"}


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("sweeper/")], ids=name)
def test_only_the_worker_trains(path):
    heavy = {
        module for module in imports(path) if module.startswith(("trainers.train", "trainers.evaluation.predict"))
    }
    heavy |= {
        module for module in imports(path) if module.startswith(("trainers.models", "trainers.loading.batches"))
    }
    assert not heavy or name(path) in WORKER


def test_the_loop_knows_neither_optuna_nor_the_command_line():
    allowed = {
        "sweeper.store.paths",
        "sweeper.executors",
        "sweeper.trial",
        "sweeper.errors",
        "sweeper.system.signals",
    }
    ours = {module for module in imports(ROOT / "sweeper" / "sweep.py") if module.startswith("sweeper.")}
    assert {".".join(module.split(".")[:2]) for module in ours} <= allowed


TRACKING = {"tracking", "errands", "mirror", "sender", "shown", "store"}
FIGURES = {"figures_observer", "artist", "draw", "draw_process", "figures", "trends", "gallery"}


def modules(names: set[str]) -> set[str]:
    return {f"sweeper.{name}" for name in names}


@pytest.mark.parametrize("module", sorted(TRACKING))
def test_tracking_knows_nothing_of_figures(module):
    assert not imports(ROOT / "sweeper" / f"{module}.py") & modules(FIGURES)


@pytest.mark.parametrize("module", sorted(FIGURES))
def test_figures_know_nothing_of_tracking(module):
    assert not imports(ROOT / "sweeper" / f"{module}.py") & (modules(TRACKING) - {"sweeper.tracking.content"})


@pytest.mark.parametrize("module", ["study", "parts", "ends", "recovery", "keeping", "record"])
def test_the_study_knows_neither_tracking_nor_figures(module):
    assert not imports(ROOT / "sweeper" / f"{module}.py") & modules(TRACKING | FIGURES)


@pytest.mark.process
@pytest.mark.parametrize(
    "module", ["sweeper.cli", "sweeper.space.yaml_io", "sweeper.trial", "trainers.config", "sweeper.store.records"]
)
def test_the_coordinators_modules_load_no_heavy_library(module):
    code = (
        f"import sys, {module}; print(*sorted({{'torch', 'mlflow', 'optuna', 'pandas', 'numpy'}} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_initial_files_hold_words_and_no_work():
    for path in SOURCES:
        if path.name == "__init__.py":
            kinds = {type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.ClassDef}, name(path)


def test_nothing_that_is_read_is_unpickled():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in libraries(path), name(path)
        assert text.count("torch.load(") == text.count("weights_only=True"), name(path)
        assert "allow_pickle=True" not in text, name(path)
