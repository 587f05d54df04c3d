"""Parallel coordinates with gaps and hover texts, which Plotly's own chart of that name lacks."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from sweeper.figures.study_plots import Dot, aside
from sweeper.space.tree import flow

STEPS = 12  # colours from the worst to the best
TICKS = 5  # on an axis of numbers


@dataclass(frozen=True)
class Axis:
    """A parameter: its name, its label, and its distribution."""

    name: str
    label: str
    choices: tuple[str, ...] = ()  # empty if it is a number
    log: bool = False

    @classmethod
    def of(cls, name: str, label: str, asked: Mapping[str, Any]) -> "Axis":
        """Create an axis from a parameter in study.json."""
        choices = tuple(word(choice) for choice, _ in asked.get("choice", ()))
        return cls(name, label, choices, bool(asked.keys() & {"loguniform", "logint"}))

    def place(self, dot: Dot) -> float | None:
        """Return a trial's position: a number, or the index of a choice; None if its branch was not chosen."""
        if self.name not in dot.params:
            return None
        found = dot.params[self.name]
        if self.choices:
            return float(self.choices.index(word(found))) if word(found) in self.choices else None
        if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
            return None
        return float(found) if found > 0 or not self.log else None


def word(value: Any) -> str:
    """Return a choice as people write it."""
    return value if isinstance(value, str) else flow(value)


def short(text: str, longest: int = 18) -> str:
    """Return a shortened word, escaped for Plotly."""
    return html.escape(text if len(text) <= longest else f"{text[: longest - 1]}…")


def coordinates(dots: Sequence[Dot], axes: Sequence[Axis], metric: str, *, minimize: bool = False) -> go.Figure:
    """Draw one line per trial over the axes, the value last; lines have gaps where a branch was not chosen."""
    scales = [_Scale.of(axis, dots) for axis in axes]
    values = _Scale.of(Axis("", metric.replace("_", " ")), [replace(dot, params={"": dot.value}) for dot in dots])
    figure = go.Figure()
    for step, group in _groups(dots, minimize).items():
        lines = [_line(dot, scales, values) for dot in group]
        figure.add_scatter(
            x=[x for line in lines for x in (*range(len(line)), None)],
            y=[y for line in lines for y in (*line, None)],
            customdata=[
                each for dot, line in zip(group, lines, strict=True) for each in (*[dot.number] * len(line), None)
            ],
            meta="pruned" if step is None else step,
            mode="lines+markers",
            name="pruned" if step is None else "completed",
            opacity=0.35 if step is None else 0.85,
            line={"width": 1.2 if step is None else 1.8},
            marker={"size": 4},
            showlegend=False,
        )
    for x, scale in enumerate([*scales, values]):
        _draw_axis(figure, x, scale)
    figure.update_layout(height=420, hovermode="closest")
    figure.update_xaxes(
        tickvals=list(range(len(scales) + 1)),
        ticktext=[short(scale.axis.label) for scale in [*scales, values]],
        range=[-0.45, len(scales) + 0.45],
        side="top",
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        automargin=True,
    )
    figure.update_yaxes(visible=False, range=[-0.06, 1.06], fixedrange=True)
    return figure


@dataclass(frozen=True)
class _Scale:
    """An axis, scaled so that the trials' values span 0 to 1."""

    axis: Axis
    low: float
    high: float

    @classmethod
    def of(cls, axis: Axis, dots: Sequence[Dot]) -> "_Scale":
        if axis.choices:
            return cls(axis, 0, len(axis.choices) - 1)
        found = [place for dot in dots if (place := axis.place(dot)) is not None]
        ends = min(found), max(found)
        return cls(axis, *(map(math.log10, ends) if axis.log else ends))

    def at(self, number: float) -> float:
        shown = math.log10(number) if self.axis.log else number
        return (shown - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def height(self, dot: Dot) -> float | None:
        place = self.axis.place(dot)
        if place is None:
            return None
        return self.at(place) + (aside(dot, 0.05) if self.axis.choices else 0.0)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The height and text of each tick."""
        if self.axis.choices:
            return [(self.at(n), short(choice, 14)) for n, choice in enumerate(self.axis.choices)]
        steps = [self.low + (self.high - self.low) * n / (TICKS - 1) for n in range(TICKS)]
        numbers = [10**step for step in steps] if self.axis.log else steps
        return [(n / (TICKS - 1), f"{number:.3g}") for n, number in enumerate(numbers)]


def _line(dot: Dot, scales: Sequence[_Scale], values: _Scale) -> list[float | None]:
    places = [*(scale.height(dot) for scale in scales), values.at(dot.value)]
    return [None if place is None else round(place, 4) for place in places]


def _groups(dots: Sequence[Dot], minimize: bool) -> dict[int | None, list[Dot]]:
    """Group trials by colour, the best last and thus on top; None is for those that did not complete."""
    complete = sorted((dot for dot in dots if dot.state == "COMPLETE"), key=lambda dot: dot.value, reverse=minimize)
    groups: dict[int | None, list[Dot]] = {}
    if rest := [dot for dot in dots if dot.state != "COMPLETE"]:
        groups[None] = rest
    for n, dot in enumerate(complete):
        below = len(complete) - 1 - n  # the best always has the last colour
        groups.setdefault(STEPS - 1 - below * STEPS // len(complete), []).append(dot)
    return groups


def _draw_axis(figure: go.Figure, x: int, scale: _Scale) -> None:
    figure.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, line={"width": 1}, layer="below")
    for height, words in scale.ticks:
        figure.add_annotation(x=x, y=height, text=words, showarrow=False, xanchor="left", xshift=4, font={"size": 11})
