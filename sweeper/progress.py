"""Talk with the person at the terminal: a live table, or plain lines."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from sweeper import board, text
from sweeper.board import Board, Row
from sweeper.trial import Closing, Job, Observer, TrialResult
from trainers.epoch import Epoch
from trainers.support.files import full
from trainers.support.text import visible

FRAMES = 4  # a second, at most
WIDE, MIDDLE = 96, 64  # columns of the terminal from which more of the live table is shown


class View(Observer, Protocol):
    """Shows a sweep while it runs. No call raises: a terminal that is gone does not end a sweep."""

    def plan(self, total: int | None, results: Sequence[TrialResult] = ()) -> None: ...


def choose(stream: TextIO | None = None, *, where: Sequence[str] = ()) -> View:
    """The live table on a terminal, plain lines anywhere else and where CI or TERM=dumb ask for them.

    `stream` is stderr when left out; `where` are lines that stay below the table, such as links.
    """
    stream = sys.stderr if stream is None else stream
    return Live(stream, where=where) if lively(stream) else Plain(stream)


def lively(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a person watches `stream` on a terminal that can move its cursor."""
    if environment.get("CI") or environment.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    with suppress(ValueError, OSError):
        return stream.isatty()
    return False


class Deafened:
    """A text stream that may be gone: what cannot be written is dropped, what it cannot encode becomes `?`."""

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
                return  # a log on a full disk: what comes when there is room again will be in it
            self.gone = True
            _let_go(self._stream)

    def isatty(self) -> bool:
        with suppress(ValueError, OSError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def blocks(self) -> str:
        """Characters of a sparkline that it can show."""
        try:
            board.BLOCKS.encode(self.encoding)
        except UnicodeEncodeError:
            return board.ASCII_BLOCKS
        return board.BLOCKS


def _let_go(stream: TextIO) -> None:
    """Point a closed stream at nothing, so that Python does not stumble over it when it ends."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def _comparable(job: Job, result: TrialResult) -> TrialResult:
    """Without the value of a final, which is of test where its epochs' are of train."""
    return result.model_copy(update={"value": None}) if job.kind == "final" else result


class Plain:
    """A line an epoch and a line an end, with the time of day: for files, pipes and logs."""

    def __init__(self, stream: TextIO) -> None:
        self._out, self._board = Deafened(stream), Board()

    def plan(self, total: int | None, results: Sequence[TrialResult] = ()) -> None:
        self._board.plan(total, results)

    def started(self, job: Job, slot: str) -> None:
        self._board.start(job, slot)

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self.note(board.line(self._board, self._board.epoch(job, epoch, best)))

    def ended(self, job: Job, result: TrialResult) -> None:
        result = _comparable(job, result)
        self._board.end(result)
        self.note(board.ending(result))

    def note(self, text: str) -> None:
        self._out.write(f"{visible(text)}\n")
        self._out.flush()

    def closed(self, _closing: Closing) -> None:
        self.note(self._board.summary())


class Live:
    """A table with a row a running trial, and below it the counts, the best and the time left."""

    def __init__(self, stream: TextIO, *, where: Sequence[str] = ()) -> None:
        self._out, self._board, self._where = Deafened(stream), Board(), where
        self._console = console(self._out)
        self._screen = Screen(
            get_renderable=self._frame,
            console=self._console,
            refresh_per_second=FRAMES,
            redirect_stdout=False,
            vertical_overflow="ellipsis",
        )

    def plan(self, total: int | None, results: Sequence[TrialResult] = ()) -> None:
        self._board.plan(total, results)
        self._show()

    def started(self, job: Job, slot: str) -> None:
        self._board.start(job, slot)
        self._show()

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self._board.epoch(job, epoch, best)
        self._show()

    def ended(self, job: Job, result: TrialResult) -> None:
        result = _comparable(job, result)
        self._board.end(result)
        if result.state == "FAILED":
            self.note(board.ending(result))

    def note(self, text: str) -> None:
        """Say `text` above the table."""
        self._console.print(Text(visible(text)))

    def closed(self, _closing: Closing) -> None:
        self._screen.stop()

    def _show(self) -> None:
        """Begin to draw; the frames then come by themselves."""
        if not self._screen.is_started:
            self._screen.start()

    def _frame(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        columns = _columns(self._console.width)
        for name in columns:
            table.add_column(
                name, justify="left" if name in ("backbone", "device", "curve") else "right", no_wrap=True
            )
        for row in list(self._board.rows.values()):
            cells = self._cells(row)
            table.add_row(*(visible(cells[name]) for name in columns))
        words = [Text(visible(line), style="dim") for line in self._where]
        return Group(*([table] if self._board.rows else []), Text(self._board.summary()), *words)

    def _cells(self, row: Row) -> dict[str, str]:
        last = row.epochs[-1] if row.epochs else None
        left = row.seconds_left
        return {
            "trial": str(row.job.trial),
            "backbone": row.job.recipe.train.backbone.split(".")[0][:24],
            "device": row.slot,
            "epoch": f"{row.done}/{row.planned}",
            "value": text.short(row.values[-1] if last else None),
            "img/s": f"{last.images_per_second:,.0f}" if last else "-",
            "eta": "-" if left is None else text.duration(left),
            "curve": board.sparkline(row.values, 12, self._out.blocks),
        }


def _columns(width: int) -> list[str]:
    """The columns of the live table for which a terminal of `width` has room."""
    if width >= WIDE:
        return ["trial", "backbone", "device", "epoch", "value", "img/s", "eta", "curve"]
    if width >= MIDDLE:
        return ["trial", "backbone", "device", "epoch", "value", "eta"]
    return ["trial", "epoch", "value", "eta"]


def console(out: Deafened) -> Console:
    """Rich's, which leaves names as they are."""
    colours: Any = None if os.environ.get("NO_COLOR") else "auto"
    return Console(file=out, color_system=colours, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ what commands print
def out(text: str, stream: TextIO | None = None) -> None:
    """A result on stdout, or wherever `stream` says; nothing happens when nobody listens any more.

    What would steer a terminal, in names of whoever's making, is shown as an escape.
    """
    target = Deafened(sys.stdout if stream is None else stream)
    target.write(f"{visible(text)}\n")
    target.flush()


def talk(text: str) -> None:
    """Anything that is no result, on stderr."""
    out(text, sys.stderr)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """A table on stdout: with as many columns as fit on a terminal, whole and plainly aligned anywhere else."""
    stream = sys.stdout if stream is None else stream
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    right = [all(_numeric(row[i]) for row in rows) for i in range(len(headers))]
    if lively(stream):
        return _pretty(headers, rows, right, widths, Deafened(stream))
    for row in [headers, *rows]:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        out("  ".join(cells).rstrip(), stream)
    return None


def _numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "-."


def _pretty(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], widths: Sequence[int], to: Deafened
) -> None:
    screen = console(to)
    room = sum(1 for i in range(len(widths)) if sum(widths[: i + 1]) + 3 * i + 2 <= screen.width) or 1
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header, justified in list(zip(headers, right, strict=True))[:room]:
        drawn.add_column(header, justify="right" if justified else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row[:room]))
    screen.print(drawn)
    if room < len(headers):
        screen.print(Text(f"{len(headers) - room} more columns do not fit; --json has them all", style="dim"))
