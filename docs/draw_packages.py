"""Draws the packages and their arrows from the imports: `python docs/draw_packages.py` writes docs/packages.md."""

import ast
import re
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "packages.md"
HEAD = """\
# The packages

`make map` draws this page from the imports, and a test compares it with the code. An arrow points at what a package
uses. Arrows that follow from others are left out: `commands` uses `engine`, and `engine` uses `store`, so `commands`
may use `store` as well. Every package of `sweeper` may use `trainers`, which uses nothing of `sweeper`;
[Architecture](architecture.md#the-packages) says what each is for.
"""


def rooms(root: str) -> list[list[str]]:
    """The floors of a root package, the highest first, as the contract in pyproject.toml lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["type"] == "layers" and one["containers"] == [root]]
    floors = [[room.strip(" ()") for room in floor.split("|")] for floor in layers]
    return [[room for room in floor if _file(f"{root}.{room}")] for floor in floors]


def _file(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def sentence(module: str) -> str:
    """The first sentence of a module's docstring."""
    if (path := _file(module)) is None:
        raise ValueError(f"there is no {module}")
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(words.split()))[0]


def arrows(root: str, names: list[str]) -> dict[str, set[str]]:
    """What each room imports of the others."""
    graph = grimp.build_graph(root, exclude_type_checking_imports=True, cache_dir=None)
    for name in names:
        if graph.find_descendants(f"{root}.{name}"):
            graph.squash_module(f"{root}.{name}")
    found = {name: graph.find_modules_directly_imported_by(f"{root}.{name}") for name in names}
    return {name: {other for other in names if f"{root}.{other}" in found[name]} for name in names}


def reduced(uses: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others."""

    def reached(name: str) -> set[str]:
        return uses[name] | {far for near in uses[name] for far in reached(near)}

    return [
        (name, other)
        for name in uses
        for other in sorted(uses[name])
        if not any(other in reached(near) for near in uses[name] - {other})
    ]


def drawing(root: str) -> str:
    floors = rooms(root)
    lines = [f"## {root}", "", "```mermaid", "flowchart TD"]
    for number, floor in zip(range(len(floors), 0, -1), floors, strict=True):
        boxes = [f'    {root}_{name}["{name}"]' for name in floor]
        lines += [f'  subgraph {root}{number}[" "]', "    direction LR", *boxes, "  end"]
    names = [name for floor in floors for name in floor]
    lines += [f"  {root}_{name} --> {root}_{other}" for name, other in reduced(arrows(root, names))]
    lines += ["```", "", "| | |", "|---|---|"]
    lines += [f"| `{name}` | {sentence(f'{root}.{name}')} |" for name in names]
    return "\n".join(lines) + "\n"


def document() -> str:
    return "\n".join([HEAD, drawing("sweeper"), drawing("trainers")])


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
