"""Learning curves as one self-contained SVG, drawn without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from trainers.config import Epoch, Goal

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 260, 52, 12, 34, 34
BLUE, GREY = "#1f6feb", "#8b949e"


@dataclass(frozen=True)
class Line:
    """One curve: `values` by epoch from 1; None where there is none."""

    name: str
    colour: str
    values: Sequence[float | None]
    dashed: bool = False  # to be told apart in grey, too


def learning(epochs: Sequence[Epoch], goal: Goal, title: str) -> str:
    """Two panels side by side over the epochs: the goal, and the losses, on val (blue) and train (grey)."""
    goals = _pair([getattr(e.val, goal, None) for e in epochs], [getattr(e.train, goal) for e in epochs])
    losses = _pair([e.val.loss if e.val else None for e in epochs], [e.train.loss for e in epochs])
    panels = _panel(goal, goals, 0) + _panel("loss", losses, WIDTH)
    head = f'<text x="{LEFT}" y="14" font-weight="600">{escape(title)}</text>'
    size = f'width="{2 * WIDTH}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH} {HEIGHT}"'
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#57606a"'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{paper}{head}{panels}</svg>\n'


def _pair(val: Sequence[float | None], train: Sequence[float]) -> list[Line]:
    fitted = Line("train", GREY, [_number(v) for v in train], dashed=True)
    return [fitted, Line("val", BLUE, [_number(v) for v in val])]


def _number(value: float | None) -> float | None:
    """None for what cannot be drawn: nothing, NaN, infinity."""
    return value if value is not None and abs(value) < 1e30 else None


def _panel(name: str, lines: Sequence[Line], offset: float) -> str:
    known = [v for line in lines for v in line.values if v is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    pad = (high - low or abs(high) or 1.0) * 0.06
    box = _Box(low - pad, high + pad, max(len(line.values) for line in lines))
    parts = [_grid(box, low, high), *(_curve(line, box) for line in lines), _legend(name, lines)]
    return f'<g transform="translate({offset} 0)">{"".join(parts)}</g>'


@dataclass(frozen=True)
class _Box:
    """Maps epoch and value to pixels of one panel."""

    low: float
    high: float
    epochs: int

    def x(self, epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(1, self.epochs - 1)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)


def _grid(box: _Box, low: float, high: float) -> str:
    def row(value: float) -> str:
        y = box.y(value)
        line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eaeef2"/>'
        return f'{line}<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'

    def column(epoch: int) -> str:
        return f'<text x="{box.x(epoch):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{epoch}</text>'

    rows = sorted({low, (low + high) / 2, high})
    columns = sorted({1, (1 + box.epochs) // 2, box.epochs})
    return "".join([*map(row, rows), *map(column, columns)])


def _curve(line: Line, box: _Box) -> str:
    known = [(box.x(i), box.y(v)) for i, v in enumerate(line.values, 1) if v is not None]
    if not known:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
    x, y = known[-1]
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>'
    dash = ' stroke-dasharray="6 3"' if line.dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>{dot}'


def _legend(name: str, lines: Sequence[Line]) -> str:
    drawn = [line for line in lines if any(v is not None for v in line.values)]
    words = "".join(f'<tspan dx="10" fill="{line.colour}">{line.name}</tspan>' for line in reversed(drawn))
    return f'<text x="{WIDTH - RIGHT}" y="14" text-anchor="end">{escape(name.replace("_", " "))}{words}</text>'
