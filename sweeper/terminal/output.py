"""Output of commands: results on stdout, messages on stderr, tables, and progress counters."""

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sweeper.terminal import summary
from trainers.support.files import full
from trainers.support.text import visible


def is_interactive(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """True if `stream` is a terminal that can move its cursor, and not in CI."""
    if environment.get("CI") or environment.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    with suppress(ValueError, OSError):
        return stream.isatty()
    return False


class BrokenPipeSafeStream:
    """A text stream whose reader may be gone: lost output is dropped, and unencodable characters become `?`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.gone = False

    def write(self, text: str) -> int:
        if not self.gone:
            self._try(lambda: self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding)))
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except (OSError, ValueError) as error:
            if full(error):
                return  # a log on a full disk gets new lines again once there is space
            self.gone = True
            _let_go(self._stream)

    def is_gone(self) -> bool:
        """True if nobody reads the stream any more; checks without writing."""
        with suppress(OSError, ValueError):
            pipe = select.poll()
            pipe.register(self._stream.fileno(), 0)
            if not self.gone and any(event & select.POLLERR for _, event in pipe.poll(0)):
                self.gone = True
                _let_go(self._stream)
        return self.gone

    def isatty(self) -> bool:
        with suppress(ValueError, OSError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def blocks(self) -> str:
        """The sparkline characters that it can encode."""
        return self._shown(summary.BLOCKS, summary.ASCII_BLOCKS)

    @property
    def bar(self) -> str:
        """The characters for the done and remaining parts of a progress bar that it can encode."""
        return self._shown(summary.BAR, summary.ASCII_BAR)

    def _shown(self, characters: str, ascii: str) -> str:
        try:
            characters.encode(self.encoding)
        except UnicodeEncodeError:
            return ascii
        return characters


def _let_go(stream: TextIO) -> None:
    """Point a closed stream at the null device, so that Python does not fail to flush it at exit."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def console(out: BrokenPipeSafeStream) -> Console:
    """Return a Rich console that prints names unchanged, without markup."""
    colours: Any = None if os.environ.get("NO_COLOR") else "auto"
    return Console(file=out, color_system=colours, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]


def print_result(text: str, stream: TextIO | None = None) -> None:
    """Print a result to stdout or to `stream`; does nothing if the reader is gone.

    Control characters, which names can contain, are shown as escapes.
    """
    target = BrokenPipeSafeStream(sys.stdout if stream is None else stream)
    target.write(f"{visible(text)}\n")
    target.flush()


def print_message(text: str) -> None:
    """Print anything that is not a result to stderr."""
    print_result(text, sys.stderr)


def columns() -> int | None:
    """Return the width of the terminal; None if stdout is not interactive."""
    return shutil.get_terminal_size().columns if is_interactive(sys.stdout) else None


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None, *, more: str = ""
) -> None:
    """Print a table to stdout: only the columns that fit on a terminal, the first ones preferred; otherwise all.

    `more` explains how to see the columns that do not fit.
    """
    stream = sys.stdout if stream is None else stream
    if is_interactive(stream):
        return _pretty(headers, rows, more, BrokenPipeSafeStream(stream))
    for line in aligned(headers, rows):
        print_result(line, stream)
    return None


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with all columns."""
    rows, widths, right = _laid_out(headers, rows)
    for row in [headers, *rows]:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        yield "  ".join(cells).rstrip()


def _laid_out(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[int], list[bool]]:
    """Return the cells with control characters escaped, the columns' widths, and the columns that hold numbers."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    return cells, widths, [all(_numeric(row[i]) for row in cells) for i in range(len(headers))]


def _numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "-."


GAP, EDGES = 2, 2  # characters between two columns, and around the table


def _pretty(headers: Sequence[str], rows: Sequence[Sequence[str]], more: str, to: BrokenPipeSafeStream) -> None:
    screen, (rows, widths, right) = console(to), _laid_out(headers, rows)
    fitting = _fitting(widths, screen.width)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i in fitting:
        drawn.add_column(headers[i], justify="right" if right[i] else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(row[i]) for i in fitting))
    screen.print(drawn)
    if left := [name for i, name in enumerate(headers) if i not in fitting]:
        screen.print(Text(f"no room for {', '.join(left)}{f'; {more}' if more else ''}", style="dim"))


def _fitting(widths: Sequence[int], room: int) -> list[int]:
    """Return the columns that fit side by side, in order, skipping those too wide; the first is always included."""
    fitting = [0]
    for i in range(1, len(widths)):
        if sum(widths[j] for j in (*fitting, i)) + GAP * len(fitting) + EDGES <= room:
            fitting.append(i)
    return fitting


SOON = 0.1  # seconds; shorter work shows no bar


PROGRESS_INTERVAL_S = 5.0  # seconds between two lines


Count = Callable[[int, int], None]


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """Yield a function to call with done and total: shows a bar on a terminal, else a line every few seconds."""
    if not is_interactive(sys.stderr):
        yield _lines(what)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    bar = Progress(*columns, console=console(BrokenPipeSafeStream(sys.stderr)), redirect_stdout=False)
    task, began = bar.add_task(what, total=None), time.monotonic()

    def count(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if time.monotonic() > began + SOON:
            bar.start()

    try:
        yield count
    finally:
        bar.stop()


def _lines(what: str) -> Count:
    following = time.monotonic() + PROGRESS_INTERVAL_S

    def count(done: int, total: int) -> None:
        nonlocal following
        if time.monotonic() >= following:
            following = time.monotonic() + PROGRESS_INTERVAL_S
            print_message(f"{what}: {done}/{total}")

    return count
