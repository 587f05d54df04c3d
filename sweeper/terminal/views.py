"""Views of a sweep on the terminal: a live table, or plain lines."""

import sys
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper import text
from sweeper.terminal import summary
from sweeper.terminal.heading import Heading
from sweeper.terminal.output import BrokenPipeSafeStream, is_interactive
from sweeper.terminal.screen import Screen
from sweeper.terminal.summary import Known, RunningRow, SweepSummary
from sweeper.trial import Closing, Job, Observer, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position
from trainers.support.text import visible

FRAMES = 4  # per second, at most
WIDE, MIDDLE = 96, 64  # widths of the terminal from which the live table shows more columns


class View(Observer, Protocol):
    """A view of a running sweep. No call raises: a sweep outlives its terminal."""

    @property
    def gone(self) -> bool:
        """True if nobody reads the view any more, if that can be detected."""
        return False

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        """Show the start of a sweep; `results` are from earlier sessions."""
        ...

    def plan(self, total: int | None, results: Sequence[TrialResult] = (), seconds: float | None = None) -> None: ...


def choose(stream: TextIO | None = None, *, where: Sequence[str] = (), known: Known | None = None) -> View:
    """Return the live table for a terminal, and plain lines anywhere else, in CI, and with TERM=dumb.

    `stream` defaults to stderr; `where` are lines that stay below the table, such as links.
    """
    stream, known = sys.stderr if stream is None else stream, known or Known()
    return Live(stream, where=where, known=known) if is_interactive(stream) else Plain(stream, known)


def comparable(job: Job, result: TrialResult) -> TrialResult:
    """Return the result, without the value of a final model: it is on test, while its epochs' values are on train."""
    return result.model_copy(update={"value": None}) if job.kind == "final" else result


class Lines(View):
    """A line for each start, epoch and finish."""

    def __init__(self, known: Known | None = None) -> None:
        self._board = SweepSummary(known=known or Known())

    @abstractmethod
    def line(self, text: str, job: Job | None = None) -> None:
        """Write a line, which may be about a job."""

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        for line in summary.heading(heading, results):
            self.line(line)

    def plan(self, total: int | None, results: Sequence[TrialResult] = (), seconds: float | None = None) -> None:
        self._board.plan(total, results, seconds)

    def started(self, job: Job, slot: str) -> None:
        self.line(summary.starting(self._board.start(job, slot)), job)

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self.line(summary.line(self._board, self._board.epoch(job, epoch, best)), job)

    def ended(self, job: Job, result: TrialResult) -> None:
        result = comparable(job, result)
        self._board.end(result, job=job, counts=job.kind == "trial" or self._board.total is None)
        self.line(summary.ending(job, result, self._board.split), job)

    def note(self, text: str) -> None:
        self.line(text)

    def closed(self, _closing: Closing) -> None:
        if self._board.total != 0:  # otherwise there was no search
            self.line(self._board.summary())


class Plain(Lines):
    """Dated lines, for files, pipes and simple terminals."""

    def __init__(self, stream: TextIO, known: Known | None = None) -> None:
        super().__init__(known)
        self._out = BrokenPipeSafeStream(stream)

    @property
    def gone(self) -> bool:
        return self._out.is_gone()

    def line(self, text: str, job: Job | None = None) -> None:  # noqa: ARG002  one stream for all
        self._out.write(f"{visible(summary.stamped(text))}\n")
        self._out.flush()


class Live(Lines):
    """A table with one row per running trial, above counts, best trial and remaining time; epochs get no lines."""

    def __init__(self, stream: TextIO, *, where: Sequence[str] = (), known: Known | None = None) -> None:
        super().__init__(known)
        self._out = BrokenPipeSafeStream(stream)
        self._screen, self._where = Screen(self._out), where
        self._drawn = 0.0  # time of the last frame
        self._shown: object = None  # the content of the last frame
        self._news = 0  # number of updates so far
        self._closed = False  # other observers, which close later, may still write lines

    @property
    def gone(self) -> bool:
        return self._out.is_gone()

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        for line in summary.heading(heading, results):
            self._screen.say(visible(line))

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self._board.epoch(job, epoch, best)
        self._show()

    def moved(self, positions: Mapping[str, Position]) -> None:
        self._board.move(positions)
        self._show(new=False)

    def line(self, text: str, job: Job | None = None) -> None:  # noqa: ARG002  one screen for all
        """Write a line above the table."""
        self._screen.say(visible(text))
        self._show()

    def closed(self, _closing: Closing) -> None:
        self._screen.draw(self._frame())
        self._screen.close()
        self._closed = True

    def _show(self, *, new: bool = True) -> None:
        """Draw updates, at most FRAMES times per second; the rest is drawn with the next update."""
        self._news += new
        if self._closed:
            return
        shows = self._news, [(row.at, row.loads) for row in self._board.rows.values()], self._screen.size
        now = time.monotonic()
        if shows != self._shown and now - self._drawn >= 1 / FRAMES:
            self._screen.draw(self._frame())
            self._shown, self._drawn = shows, now

    def _frame(self) -> Group:
        rows: list[RenderableType] = [self._title(), self._table()] if self._board.rows else []
        words = [Text(visible(line), style="dim") for line in self._where]
        return Group(*rows, Text(self._board.summary()), *words)

    def _title(self) -> Text:
        """Return the study, and the metric and split of the values below."""
        job = next(iter(self._board.rows.values())).job
        return Text(visible(f"{job.study}: {job.recipe.metric} on {self._board.split}"))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        columns = _columns(self._screen.size[0])
        for name in columns:
            header = self._board.split if name == "value" else name
            table.add_column(header, justify="left" if name in LEFT else "right", no_wrap=True)
        for row in self._board.rows.values():
            cells = self._cells(row)
            table.add_row(*(visible(cells[name]) for name in columns))
        return table

    def _cells(self, row: RunningRow) -> dict[str, str]:
        last = row.epochs[-1] if row.epochs else None
        left = row.seconds_left
        return {
            "trial": _trial(row.job),
            "backbone": row.job.recipe.train.backbone.split(".")[0][:24],
            "device": row.slot,
            "epoch": f"{row.done}/{row.planned}",
            "batches": summary.batches(row),
            "within the epoch": summary.batches(row, self._out.bar),
            "value": text.format_value(row.values[-1] if last else None),
            "img/s": f"{last.images_per_second:,.0f}" if last else "-",
            "eta": "-" if left is None else text.format_duration(left),
            "curve": summary.sparkline(row.values, 12, self._out.blocks),
        }


LEFT = ("backbone", "device", "batches", "within the epoch", "curve")


def _trial(job: Job) -> str:
    """Return the number of a run's trial, with the seed if it is a new one."""
    return f"{job.trial} seed {job.recipe.train.seed}" if job.has_new_seed else str(job.trial)


def _columns(width: int) -> list[str]:
    """Return the columns of the live table that fit a terminal of `width`."""
    if width >= WIDE:
        return ["trial", "backbone", "device", "epoch", "within the epoch", "value", "img/s", "eta", "curve"]
    if width >= MIDDLE:
        return ["trial", "backbone", "device", "epoch", "batches", "value", "eta"]
    return ["trial", "epoch", "batches", "value", "eta"]
