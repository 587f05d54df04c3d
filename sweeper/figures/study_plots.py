"""Figures of a whole study as SVG: the values of its trials in order, and against each parameter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from sweeper.figures.plots import DARK, MAX_PANELS, MIDDLE, NORMAL, WIDTH, grid, panels, rows, short, style, svg


@dataclass(frozen=True)
class Dot:
    """One trial of a study."""

    number: int
    state: str
    value: float
    params: Mapping[str, Any]


def history(dots: Sequence[Dot], metric: str, title: str, *, minimize: bool = False) -> bytes:
    """Return an SVG of the value of each trial and the best so far; `minimize`: less is better."""
    with style("history"):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        _dots(axes, [(dot.number, dot) for dot in dots])
        known = [dot for dot in dots if dot.state == "COMPLETE" and dot.value == dot.value]
        if done := sorted(known, key=lambda dot: dot.number):
            better = np.minimum if minimize else np.maximum
            tops = better.accumulate([dot.value for dot in done]).tolist()
            last = max(dot.number for dot in dots)
            across = [*(dot.number for dot in done), last]
            axes.step(across, [*tops, tops[-1]], where="post", color=MIDDLE, linewidth=1.4, label="best so far")
            winner = next(dot for dot in done if dot.value == tops[-1])
            axes.annotate(
                f"trial {winner.number}: {winner.value:.4f}",
                (winner.number, winner.value),
                (4, 5),
                textcoords="offset points",
            )
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(metric.replace("_", " "))
        grid(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
        axes.set_title(title, fontweight="bold")
        return svg(figure)


LOOKS = {"COMPLETE": ("o", DARK, "completed"), "PRUNED": ("o", "white", "pruned"), "": ("x", MIDDLE, "not finished")}


def _dots(axes: Axes, found: Sequence[tuple[float, Dot]]) -> None:
    """Draw completed trials filled, pruned ones hollow, others as crosses."""
    for state, (marker, face, label) in LOOKS.items():
        mine = [(x, dot.value) for x, dot in found if (dot.state if dot.state in LOOKS else "") == state]
        if mine:
            across, values = zip(*mine, strict=True)
            edge = None if marker == "x" else DARK
            axes.scatter(
                across, values, 26, face, marker=marker, linewidths=1.1, edgecolors=edge, label=label, zorder=3
            )


def slices(dots: Sequence[Dot], metric: str, title: str, logarithmic: Callable[[str], bool]) -> bytes:
    """Return an SVG of the trials' values against each parameter; conditional ones show only trials that have them.

    `logarithmic` is true for parameters on a logarithmic scale.
    """
    with style("slices"):
        names = list(dict.fromkeys(name for dot in dots for name in dot.params))[:MAX_PANELS]
        figure, axes = panels(
            len(names), columns=3, width=WIDTH / 3, heights=rows([2.2] * len(names), 3), sharey=True
        )
        for name, panel in zip(names, axes, strict=True):
            _slice(panel, name, [dot for dot in dots if name in dot.params], logarithmic(name))
        for panel in axes[::3]:
            panel.set_ylabel(metric.replace("_", " "))
        if axes:
            handles = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels())}  # noqa: B905
            figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3, frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")
        return svg(figure)


def _slice(axes: Axes, name: str, dots: Sequence[Dot], logarithmic: bool) -> None:
    given = [dot.params[name] for dot in dots]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        _numbers(axes, given, dots, logarithmic and min(given) > 0)
    else:
        _words(axes, [str(value) for value in given], dots)
    axes.set_title(short(name, 34))
    grid(axes)


def _numbers(axes: Axes, given: Sequence[float], dots: Sequence[Dot], logarithmic: bool) -> None:
    _dots(axes, list(zip(given, dots, strict=True)))
    if not logarithmic:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=all(isinstance(value, int) for value in given)))
        return
    axes.set_xscale("log")
    wide = max(given) / min(given) > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _words(axes: Axes, given: Sequence[str], dots: Sequence[Dot]) -> None:
    words = sorted(set(given))
    _dots(axes, [(words.index(word) + aside(dot), dot) for word, dot in zip(given, dots, strict=True)])
    tilt = 0 if sum(len(short(word)) for word in words) < 26 else 25
    axes.set_xticks(
        range(len(words)), [short(word) for word in words], rotation=tilt, ha="right" if tilt else "center"
    )
    axes.set_xlim(-0.6, len(words) - 0.4)


def importance(shares: Sequence[tuple[str, float, float]], title: str) -> bytes:
    """Return an SVG of the share of each parameter in what sets the best trials apart, with its standard error."""
    with style("importance"):
        names, values, errors = zip(*shares[:MAX_PANELS], strict=True)
        figure = Figure(figsize=(WIDTH, 0.8 + 0.26 * len(names)), layout="constrained")
        axes = figure.subplots()
        down = [min(error, value) for value, error in zip(values, errors, strict=True)]
        axes.barh(range(len(names)), values, 0.6, xerr=(down, errors), color=DARK, ecolor=MIDDLE, capsize=2)
        axes.set_yticks(range(len(names)), [short(name, 40) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(title, fontweight="bold")
        grid(axes)
        return svg(figure)


def aside(dot: Dot, width: float = 0.4) -> float:
    """Return a small horizontal offset, so that equal values do not hide one another."""
    return (dot.number * 0.618 % 1 - 0.5) * width
