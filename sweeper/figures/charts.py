"""Interactive charts of a study as Plotly JSON, and Plotly's script. Independent of folders.

The page's script fills in the colours of the light or dark theme and the hover texts: `customdata` of a point is its
trial, and `meta` of a trace is the name of its colour, or its number from the worst to the best.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.colors
import plotly.graph_objects as go
import plotly.io
import plotly.offline

from sweeper.figures import parallel
from sweeper.figures.parallel import STEPS, Axis, short, word
from sweeper.figures.study_plots import Dot, aside

MAX_AXES = 12  # in parallel coordinates: the most important ones
MAX_SLICES = 24
MAX_TRIALS = 1500  # in parallel coordinates and slices, the best ones: more are slow to draw in a browser
AXIS_WIDTH = 95  # pixels that an axis of parallel coordinates needs to be readable
LIGHT = {
    "completed": "#0b57d0",
    "pruned": "#8c959f",
    "not finished": "#8c959f",
    "best": "#1a7f37",
    "chosen": "#cf222e",
    "lines": "#8c959f",
    "words": "#1f2328",
    "ground": "rgba(255,255,255,0.8)",
}
DARK = {
    "completed": "#6cb0ff",
    "pruned": "#757d87",
    "not finished": "#757d87",
    "best": "#3fb950",
    "chosen": "#ff9248",
    "lines": "#757d87",
    "words": "#e6edf3",
    "ground": "rgba(13,17,23,0.8)",
}
THEMES = {"light": ("plotly_white", "Viridis_r", LIGHT), "dark": ("plotly_dark", "Viridis", DARK)}
"""Plotly's template, its colour scale from the worst (pale) to the best (strong), and other colours by use."""
MARGIN = {"l": 10, "r": 10, "t": 10, "b": 10}


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its title, the figure in Plotly's JSON, and the pixels below which it scrolls."""

    key: str
    title: str
    figure: str
    width: int = 0

    @property
    def is_slice(self) -> bool:
        """True if it is one of the small charts of a single parameter."""
        return self.key.startswith("slice-")


# ------------------------------------------------------------------------------------------- a study
def study(
    dots: Sequence[Dot],
    axes: Sequence[Axis],
    metric: str,
    shares: Sequence[tuple[str, float, float]] = (),
    *,
    minimize: bool = False,
) -> list[Chart]:
    """Return the charts of trials that have a value: history, importance, parallel coordinates and slices.

    `shares` are name, share and standard error of the parameters; the most important come first in all charts.
    """
    dots = [dot for dot in dots if math.isfinite(dot.value)]
    if not dots:
        return []
    order = {name: n for n, (name, _, _) in enumerate(shares)}
    best = sorted(dots, key=lambda dot: (dot.state == "COMPLETE", -dot.value if minimize else dot.value))[
        -MAX_TRIALS:
    ]
    used = [axis for axis in axes if len({axis.place(dot) for dot in best} - {None}) > 1]
    used.sort(key=lambda axis: order.get(axis.name, len(order)))
    labels = {axis.name: axis.label for axis in axes}
    found = [Chart("history", "Value of each trial, and the best so far", _json(_history(dots, metric, minimize)))]
    if shares:
        named = [(labels.get(name, name), share, error) for name, share, error in shares]
        found.append(Chart("importance", "What mattered: share of each parameter", _json(_importance(named))))
    if used:
        width = AXIS_WIDTH * (1 + len(used[:MAX_AXES]))
        figure = _json(parallel.coordinates(best, used[:MAX_AXES], metric, minimize=minimize))
        title = "Parallel coordinates: one line per trial; stronger colours are better"
        found.append(Chart("parallel", title, figure, width))
    return found + [
        Chart(f"slice-{n}", axis.label, _json(_slice(best, axis))) for n, axis in enumerate(used[:MAX_SLICES])
    ]


def hover(dot: Dot, metric: str) -> str:
    """Return the hover text of a trial's point for Plotly: escaped, with <br> as line breaks."""
    head = f"<b>trial {dot.number}</b>, {dot.state.lower()}"
    lines = [f"{name} = {written(value)}" for name, value in dot.params.items()]
    return "<br>".join([head, html.escape(f"{metric} {dot.value:.4f}"), *map(html.escape, lines)])


def written(value: Any) -> str:
    """Return a value for a hover text: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else word(value)


def _json(figure: go.Figure) -> str:
    """Return the figure as JSON that is safe inside a script element, without a template, which the page adds."""
    figure.update_layout(template="none", margin=MARGIN)
    plain = json.loads(plotly.io.to_json(figure, validate=False))
    plain["layout"].pop("template", None)
    return json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")


LOOKS = {
    "COMPLETE": ("completed", "circle"),
    "PRUNED": ("pruned", "circle-open"),
    "": ("not finished", "x-thin-open"),
}


def _points(places: Sequence[tuple[float, Dot]], *, legend: bool = True) -> list[go.Scatter]:
    """Return the points: completed trials filled, pruned ones hollow, others as crosses."""
    traces = []
    for state, (label, symbol) in LOOKS.items():
        mine = [(x, dot) for x, dot in places if (dot.state if dot.state in LOOKS else "") == state]
        if mine:
            traces.append(
                go.Scatter(
                    x=[x for x, _ in mine],
                    y=[dot.value for _, dot in mine],
                    customdata=[dot.number for _, dot in mine],
                    mode="markers",
                    name=label,
                    meta=label,
                    marker={"symbol": symbol, "size": 7},
                    showlegend=legend,
                )
            )
    return traces


def _history(dots: Sequence[Dot], metric: str, minimize: bool) -> go.Figure:
    ordered = sorted(dots, key=lambda dot: dot.number)
    figure = go.Figure(_points([(dot.number, dot) for dot in ordered]))
    complete = [dot for dot in ordered if dot.state == "COMPLETE"]
    top, tops = min if minimize else max, list[float]()
    for dot in complete:
        tops.append(top([*tops[-1:], dot.value]))
    if complete:
        across = [*(dot.number for dot in complete), ordered[-1].number]
        figure.add_scatter(
            x=across,
            y=[*tops, tops[-1]],
            mode="lines",
            line_shape="hv",
            name="best so far",
            meta="best",
            hoverinfo="skip",
        )
    figure.update_layout(height=340, hovermode="closest", legend={"orientation": "h", "y": 1.08, "yanchor": "bottom"})
    figure.update_xaxes(title="trial", rangemode="tozero", dtick=1 if ordered[-1].number < 10 else None)
    figure.update_yaxes(title=html.escape(metric.replace("_", " ")))
    return figure


def _importance(shares: Sequence[tuple[str, float, float]]) -> go.Figure:
    names, values, errors = zip(*reversed(shares), strict=True)
    figure = go.Figure(
        go.Bar(
            y=list(map(html.escape, names)),
            x=list(values),
            orientation="h",
            meta="completed",
            error_x={
                "type": "data",
                "array": [min(error, 1 - share) for share, error in zip(values, errors, strict=True)],
                "arrayminus": [min(error, share) for share, error in zip(values, errors, strict=True)],
                "thickness": 1.5,
            },
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    )
    figure.update_layout(height=70 + 26 * len(names))
    figure.update_xaxes(tickformat=".0%", rangemode="tozero", title="share, and its standard error")
    figure.update_yaxes(automargin=True)
    return figure


def _slice(dots: Sequence[Dot], axis: Axis) -> go.Figure:
    placed = [(place, dot) for dot in dots if (place := axis.place(dot)) is not None]
    if axis.choices:
        placed = [(place + aside(dot), dot) for place, dot in placed]
    figure = go.Figure(_points(placed, legend=False))
    if axis.choices:
        words = [short(choice) for choice in axis.choices]
        figure.update_xaxes(tickvals=list(range(len(words))), ticktext=words, range=[-0.5, len(words) - 0.5])
    else:
        figure.update_xaxes(type="log" if axis.log else "linear", nticks=6, tickformat="~g")
        if axis.log and (decades := _decades(placed)) > 0.7:
            figure.update_xaxes(dtick=1 if decades > 1 else "D2")  # label powers of ten only, or 1, 2 and 5
    figure.update_layout(height=240, hovermode="closest")
    figure.update_xaxes(automargin=True)
    low, high = min(dot.value for dot in dots), max(dot.value for dot in dots)
    rest = 0.08 * (high - low or 1)
    figure.update_yaxes(automargin=True, nticks=6, range=[low - rest, high + rest])  # the same for every slice
    return figure


def _decades(placed: Sequence[tuple[float, Dot]]) -> float:
    numbers = [place for place, _ in placed]
    return math.log10(max(numbers) / min(numbers))


# -------------------------------------------------------------------------------------- several studies
def best_so_far(series: Mapping[str, Sequence[float | None]], metric: str) -> Chart:
    """Return a chart of the best value after 1, 2, 3... trials, one line per study."""
    figure = go.Figure()
    for name, values in series.items():
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=list(values),
            mode="lines",
            line_shape="hv",
            name=html.escape(name),
            hovertemplate="after %{x} trials: %{y:.4f}",
            showlegend=True,
        )
    figure.update_layout(
        height=380, hovermode="x unified", legend={"orientation": "h", "y": 1.08, "yanchor": "bottom"}
    )
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title=html.escape(metric.replace("_", " ")))
    return Chart("best-so-far", f"Best {metric} so far", _json(figure))


# -------------------------------------------------------------------------------------------- the page
def library() -> str:
    """Return Plotly's script."""
    return str(plotly.offline.get_plotlyjs())


def themes() -> str:
    """Return template and colours for a light and a dark page as JSON; strong colours mark the best on both."""
    points = [n / (STEPS - 1) for n in range(STEPS)]
    found = {}
    for name, (base, scale, colours) in THEMES.items():
        whole = plotly.io.templates[base].to_plotly_json()["layout"]
        layout = {key: whole[key] for key in ("colorway", "font", "hoverlabel", "xaxis", "yaxis")}
        layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
        steps = plotly.colors.sample_colorscale(scale, [0.12 + 0.88 * point for point in points])
        found[name] = {"template": {"layout": layout}, "colours": dict(enumerate(steps)) | colours}
    return json.dumps(found, separators=(",", ":"))
