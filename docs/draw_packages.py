"""Draw the packages and their arrows from the imports: `make map` writes docs/explanation/packages-*.svg."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "explanation"
WIDE, HIGH, GAP, FLOOR = 112, 30, 22, 84  # pixels: of a box, between boxes, from floor to floor
STYLE = (
    "text{font:13px sans-serif;text-anchor:middle;fill:#1a1a2e}"
    "rect{fill:#e8eaf6;stroke:#3f51b5}line{stroke:#7986cb;stroke-width:1.2;marker-end:url(#tip)}"
)
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#7986cb"/></marker>'
)


def rooms(root: str) -> list[list[str]]:
    """Return the floors of a root package, highest first, as the contract in pyproject.toml lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["type"] == "layers" and one["containers"] == [root]]
    floors = [[room.strip(" ()") for room in floor.split("|")] for floor in layers]
    return [[room for room in floor if _file(f"{root}.{room}")] for floor in floors]


def _file(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def arrows(root: str, names: list[str]) -> dict[str, set[str]]:
    """Return the packages that each package imports."""
    graph = grimp.build_graph(root, exclude_type_checking_imports=True, cache_dir=None)
    for name in names:
        if graph.find_descendants(f"{root}.{name}"):
            graph.squash_module(f"{root}.{name}")
    found = {name: graph.find_modules_directly_imported_by(f"{root}.{name}") for name in names}
    return {name: {other for other in names if f"{root}.{other}" in found[name]} - {name} for name in names}


def reduced(uses: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that do not follow from others."""

    def reached(name: str) -> set[str]:
        return uses[name] | {far for near in uses[name] for far in reached(near)}

    return [
        (name, other)
        for name in uses
        for other in sorted(uses[name])
        if not any(other in reached(near) for near in uses[name] - {other})
    ]


def picture(root: str) -> str:
    """Draw a row of boxes for each floor, highest on top, with the arrows behind them."""
    floors = rooms(root)
    width = max(map(len, floors)) * (WIDE + GAP) + GAP
    places = {name: place for row, floor in enumerate(floors) for name, place in _row(floor, row, width)}
    uses = reduced(arrows(root, list(places)))
    lines = [_line(*places[name], *places[other]) for name, other in uses]
    boxes = [_box(name, *place) for name, place in places.items()]
    high = (len(floors) - 1) * FLOOR + HIGH + 2 * GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {high}" width="{width}" height="{high}">'
    ground = f'<rect width="{width}" height="{high}" rx="8" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, f"<style>{STYLE}</style><defs>{TIP}</defs>", ground, *lines, *boxes, "</svg>"]) + "\n"


def _row(floor: list[str], row: int, width: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """Return the centre of each box of a floor."""
    left = (width - (len(floor) - 1) * (WIDE + GAP)) / 2
    for column, name in enumerate(floor):
        yield name, (left + column * (WIDE + GAP), GAP + HIGH / 2 + row * FLOOR)


def _line(x: float, y: float, end_x: float, end_y: float) -> str:
    return f'<line x1="{x}" y1="{y + HIGH / 2}" x2="{end_x}" y2="{end_y - HIGH / 2}"/>'


def _box(name: str, x: float, y: float) -> str:
    corner = f'x="{x - WIDE / 2}" y="{y - HIGH / 2}"'
    return f'<rect {corner} width="{WIDE}" height="{HIGH}" rx="5"/><text x="{x}" y="{y + 4}">{name}</text>'


def files() -> dict[Path, str]:
    """Return the pictures as they should be."""
    return {FOLDER / f"packages-{root}.svg": picture(root) for root in ("sweeper", "trainers")}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
